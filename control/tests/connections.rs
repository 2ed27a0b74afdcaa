//! The gRPC services that list and end connections, drain servers and tell rates, as a client meets them; packets come and go
//! by a memory port.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use control::Director;
use control::config::Configuration;
use control::connections::{self, Filter};
use control::grpc::{ConnectionsService, DirectorService};
use control::manage::Manager;
use dataplane::packet::{arp, checksum};
use dataplane::port::memory::{MemoryPort, MemoryWire};
use dataplane::port::{Mac, PortId, PortInfo};
use proto::v1;
use proto::v1::connections_client::ConnectionsClient;
use proto::v1::director_client::DirectorClient;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const DIRECTOR: Mac = Mac([2, 0, 0, 0, 0, 1]);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 2]);
const SERVER: Mac = Mac([2, 0, 0, 0, 0, 3]);

const TEXT: &str = r#"
[director]
workers = 1
connections = 40000
servers = 4
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
[[service]]
listen = "udp 10.1.0.100:53"
scheduler = "rr"
method = "nat"
server = [{ address = "10.1.0.11" }]
[[service]]
listen = "udp 10.1.0.101:53"
scheduler = "rr"
method = "nat"
persistence_timeout = 50
server = [{ address = "10.1.0.12" }]
"#;

struct Bed {
    director: Arc<Director>,
    manager: Arc<Manager>,
    wire: MemoryWire,
    connections: ConnectionsClient<Channel>,
    counters: DirectorClient<Channel>,
    _folder: TempDir,
}

impl Bed {
    async fn new() -> Bed {
        let info = PortInfo {
            name: "lan".to_owned(),
            mac: DIRECTOR,
            mtu: 1500,
            driver: "memory",
        };
        let (port, wire) = MemoryPort::new(PortId(0), info, 64, 2048);
        let configuration = Configuration::parse("f", TEXT).unwrap().configuration;
        let director = Arc::new(Director::start_with(configuration, vec![vec![port]]).unwrap());
        let manager = Arc::new(Manager::new(Arc::clone(&director), 1));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = Server::builder()
            .add_service(ConnectionsService::server(Arc::clone(&manager)))
            .add_service(DirectorService::server(Arc::clone(&director)));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        let address = format!("unix:{}", path.display());
        Bed {
            director,
            manager,
            wire,
            connections: ConnectionsClient::connect(address.clone()).await.unwrap(),
            counters: DirectorClient::connect(address).await.unwrap(),
            _folder: folder,
        }
    }

    /// A datagram of each of so many clients' ports to a VIP; waits until all are forwarded.
    fn flows(&self, vip: u8, ports: std::ops::Range<u16>) {
        // One by itself: the others need not wait for the server's hardware address. A machine that is very busy may answer
        // too late for it; then it is said again.
        let ports: Vec<_> = ports.collect();
        let (first, rest) = ports.split_first().unwrap();
        let before = self.forwarded();
        let mut said = None;
        eventually(|| {
            self.answer();
            if said.is_none_or(|said: Instant| said.elapsed() > Duration::from_secs(3)) {
                assert!(self.wire.inject(&datagram(vip, *first)));
                said = Some(Instant::now());
            }
            self.forwarded() > before
        });
        for some in rest.chunks(40) {
            let wanted = self.forwarded() + u64::try_from(some.len()).unwrap();
            for port in some {
                assert!(self.wire.inject(&datagram(vip, *port)));
            }
            eventually(|| {
                self.answer();
                self.forwarded() >= wanted
            });
        }
    }

    fn forwarded(&self) -> u64 {
        self.director.status().workers[0].forwarded
    }

    /// What hosts on the link answer; everything else is thrown away.
    fn answer(&self) {
        for (frame, _) in self.wire.take() {
            if let Ok(asked) = arp::parse(&frame)
                && frame[12..14] == [0x08, 0x06]
                && !asked.is_gratuitous()
            {
                assert!(self.wire.inject(&arp::reply(SERVER, &asked)));
            }
        }
    }

    /// Active, inactive and persistent of a service's server.
    fn load(&self, service: usize) -> (u32, u32, u32) {
        let server = &self.director.services()[service].servers[0];
        (server.active, server.inactive, server.persistent)
    }

    async fn list(&mut self, filter: v1::ConnectionFilter, limit: u64) -> Vec<Vec<v1::Connection>> {
        let request = v1::ListConnectionsRequest {
            filter: Some(filter),
            limit,
        };
        let mut stream = self
            .connections
            .list_connections(request)
            .await
            .unwrap()
            .into_inner();
        let mut chunks = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            chunks.push(message.connections);
        }
        chunks
    }

    async fn kill(&mut self, filter: v1::ConnectionFilter, all: bool) -> Result<u64, Status> {
        let request = v1::KillConnectionsRequest {
            filter: Some(filter),
            all,
        };
        let answer = self.connections.kill_connections(request).await?;
        Ok(answer.into_inner().killed)
    }

    async fn drain(&mut self, request: v1::DrainRequest) -> Result<Vec<v1::DrainResponse>, Status> {
        let mut stream = self.connections.drain(request).await?.into_inner();
        let mut told = Vec::new();
        while let Some(message) = stream.message().await? {
            told.push(message);
        }
        Ok(told)
    }
}

fn eventually(mut question: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !question() {
        assert!(Instant::now() < end, "not within ten seconds");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn datagram(vip: u8, client_port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&DIRECTOR.0);
    frame.extend_from_slice(&CLIENT.0);
    frame.extend_from_slice(&[0x08, 0x00]);
    let mut ip = [
        0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 1, 0, vip,
    ];
    let sum = checksum::ipv4_header(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&client_port.to_be_bytes());
    frame.extend_from_slice(&[0, 53, 0, 12, 0, 0]);
    frame.extend_from_slice(b"what");
    frame
}

fn key(vip: u8) -> v1::ServiceKey {
    v1::ServiceKey {
        protocol: v1::Protocol::Udp.into(),
        address: format!("10.1.0.{vip}"),
        port: 53,
        ..v1::ServiceKey::default()
    }
}

/// The fields that are wrong, and what is told of them.
fn violations(status: &Status) -> Vec<(String, String)> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let violations = details.bad_request().unwrap().field_violations.clone();
    let pairs = violations.into_iter();
    pairs
        .map(|violation| (violation.field, violation.description))
        .collect()
}

#[tokio::test]
async fn connections_are_listed_by_what_they_are() {
    let mut bed = Bed::new().await;
    bed.flows(100, 1000..1001);
    bed.flows(101, 2000..2001);
    let all = bed.list(v1::ConnectionFilter::default(), 0).await.concat();
    let states: BTreeSet<_> = all
        .iter()
        .map(|one| (one.state.as_str(), one.template))
        .collect();
    assert_eq!(states, BTreeSet::from([("NONE", true), ("UDP", false)]));
    assert_eq!(all.len(), 3);
    let filter = v1::ConnectionFilter {
        client: "10.1.0.0/24".to_owned(),
        client_port: 1000,
        server: "10.1.0.11".to_owned(),
        state: "udp".to_owned(),
        protocol: v1::Protocol::Udp.into(),
        method: v1::Method::Nat.into(),
        worker_from_one: 1,
        templates: v1::Templates::Without.into(),
        ..v1::ConnectionFilter::default()
    };
    let found = bed.list(filter.clone(), 0).await.concat();
    let one = &found[0];
    assert_eq!(found.len(), 1);
    assert!(
        (290_000..=300_000).contains(&one.expires_ms),
        "{}",
        one.expires_ms
    );
    assert_eq!((one.client.as_str(), one.client_port), ("10.1.0.2", 1000));
    assert_eq!(
        (one.r#virtual.as_str(), one.virtual_port),
        ("10.1.0.100", 53)
    );
    assert_eq!((one.server.as_str(), one.server_port), ("10.1.0.11", 53));
    assert_eq!(
        (one.method(), one.worker, one.has_service),
        (v1::Method::Nat, 0, true)
    );
    // Each field by itself lets it through no more once it is another.
    let others: [fn(&mut v1::ConnectionFilter); 9] = [
        |filter| filter.client = "10.2.0.0/16".to_owned(),
        |filter| filter.client_port = 1001,
        |filter| filter.server = "10.1.0.12/32".to_owned(),
        |filter| filter.server_port = 54,
        |filter| filter.state = "ESTABLISHED".to_owned(),
        |filter| filter.protocol = v1::Protocol::Tcp.into(),
        |filter| filter.method = v1::Method::Dr.into(),
        |filter| filter.worker_from_one = 2,
        |filter| filter.templates = v1::Templates::Only.into(),
    ];
    for (index, other) in others.iter().enumerate() {
        let mut filter = filter.clone();
        other(&mut filter);
        assert!(bed.list(filter, 0).await.is_empty(), "{index}");
    }
}

#[tokio::test]
async fn long_lists_come_in_chunks_and_end_at_their_limit() {
    let mut bed = Bed::new().await;
    bed.flows(100, 1000..3500);
    let lens = |chunks: Vec<Vec<v1::Connection>>| chunks.iter().map(Vec::len).collect::<Vec<_>>();
    let all = bed.list(v1::ConnectionFilter::default(), 0).await;
    let ports: BTreeSet<_> = all.iter().flatten().map(|one| one.client_port).collect();
    assert_eq!(ports.len(), 2500, "each once");
    assert_eq!(lens(all), [1000, 1000, 500]);
    let some = bed.list(v1::ConnectionFilter::default(), 1500).await;
    assert_eq!(lens(some), [1000, 500]);
    let request = v1::CountConnectionsRequest { filter: None };
    let counted = bed.connections.count_connections(request).await.unwrap();
    assert_eq!(counted.into_inner().connections, 2500);
}

#[tokio::test]
async fn readers_who_do_not_read_hold_up_nobody_until_there_are_too_many() {
    let mut bed = Bed::new().await;
    // More than the buffers on the way take.
    bed.flows(100, 1000..31_000);
    let mut lazy = Vec::new();
    let status = loop {
        let request = v1::ListConnectionsRequest::default();
        match bed.connections.list_connections(request).await {
            Ok(stream) => lazy.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(lazy.len(), 32);
    bed.flows(100, 31_000..31_001);
    drop(lazy);
    let mut counted = Err(status);
    for _ in 0..500 {
        let request = v1::CountConnectionsRequest { filter: None };
        counted = bed.connections.count_connections(request).await;
        if counted.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(counted.unwrap().into_inner().connections, 30_001);
}

#[tokio::test]
async fn killed_connections_are_gone_and_counted_off_once() {
    let mut bed = Bed::new().await;
    bed.flows(100, 1000..4000);
    assert_eq!(bed.load(0), (0, 3000, 0));
    let filter = v1::ConnectionFilter {
        client_port: 1234,
        ..v1::ConnectionFilter::default()
    };
    assert_eq!(bed.kill(filter.clone(), false).await.unwrap(), 1);
    assert_eq!(bed.load(0), (0, 2999, 0));
    assert_eq!(bed.kill(filter, false).await.unwrap(), 0);
    assert_eq!(
        bed.kill(v1::ConnectionFilter::default(), true)
            .await
            .unwrap(),
        2999
    );
    assert_eq!(bed.load(0), (0, 0, 0));
    assert_eq!(bed.director.status().tables[0].entries, 0);
    // The addresses may be had again.
    bed.flows(100, 1000..1001);
    assert_eq!(bed.load(0), (0, 1, 0));
}

#[tokio::test]
async fn what_is_wrong_in_a_call_is_told_field_by_field() {
    let mut bed = Bed::new().await;
    bed.flows(100, 1000..1001);
    let status = bed
        .kill(v1::ConnectionFilter::default(), false)
        .await
        .unwrap_err();
    assert_eq!(
        violations(&status),
        [(
            "filter".to_owned(),
            "missing: which connections; accepted: a field of the filter, or `all`".to_owned()
        )]
    );
    let filter = v1::ConnectionFilter {
        client: "10.1.0.2/33".to_owned(),
        client_port: 65_536,
        state: "UPD".to_owned(),
        method: 77,
        protocol: 78,
        templates: 79,
        worker_from_one: 70_000,
        ..v1::ConnectionFilter::default()
    };
    let status = bed.kill(filter.clone(), false).await.unwrap_err();
    let told = violations(&status);
    let fields: BTreeSet<_> = told.iter().map(|(field, _)| field.as_str()).collect();
    let names = [
        "client",
        "client_port",
        "state",
        "method",
        "protocol",
        "templates",
        "worker_from_one",
    ];
    let expected: BTreeSet<_> = names.iter().map(|name| format!("filter.{name}")).collect();
    assert_eq!(fields, expected.iter().map(String::as_str).collect());
    let state = told
        .iter()
        .find(|(field, _)| field == "filter.state")
        .unwrap();
    assert!(
        state.1.contains("ESTABLISHED") && !state.1.contains("DEAD"),
        "{}",
        state.1
    );
    let filter = v1::ConnectionFilter {
        state: "UDP".to_owned(),
        ..v1::ConnectionFilter::default()
    };
    assert_eq!(
        violations(&bed.kill(filter, true).await.unwrap_err())[0].0,
        "all"
    );
    assert_eq!(bed.load(0), (0, 1, 0), "nothing was ended");
    let request = v1::DrainRequest {
        address: "10.1.0.11".to_owned(),
        deadline: Some(prost_types::Duration {
            seconds: 604_801,
            nanos: 0,
        }),
        interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 5_000_000,
        }),
        at_deadline: 9,
        ..v1::DrainRequest::default()
    };
    let told = violations(&bed.drain(request).await.unwrap_err());
    let fields: Vec<_> = told.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(fields, ["service", "deadline", "interval", "at_deadline"]);
    let request = v1::DrainRequest {
        service: Some(key(100)),
        address: "10.1.0.99".to_owned(),
        ..v1::DrainRequest::default()
    };
    let status = bed.drain(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(
        status.message().contains("it has 10.1.0.11:53"),
        "{}",
        status.message()
    );
    let status = bed
        .counters
        .watch_statistics(v1::WatchStatisticsRequest { interval_ms: 99 })
        .await;
    assert_eq!(violations(&status.unwrap_err())[0].0, "interval_ms");
    let request = v1::ZeroCountersRequest {
        service: Some(key(99)),
    };
    let status = bed.counters.zero_counters(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_drain_gives_weight_0_and_tells_until_the_deadline_then_reschedules() {
    let mut bed = Bed::new().await;
    bed.flows(101, 1000..1003);
    assert_eq!(bed.load(1), (0, 3, 1));
    let request = v1::DrainRequest {
        service: Some(key(101)),
        address: "10.1.0.12".to_owned(),
        deadline: Some(prost_types::Duration {
            seconds: 0,
            nanos: 350_000_000,
        }),
        at_deadline: v1::DrainEnd::Reschedule.into(),
        interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
        ..v1::DrainRequest::default()
    };
    let told = bed.drain(request).await.unwrap();
    assert!((4..=5).contains(&told.len()), "{told:?}");
    let (last, before) = told.split_last().unwrap();
    for one in before {
        assert_eq!(
            (one.inactive, one.persistent, one.done, one.revision),
            (3, 1, false, 2)
        );
    }
    assert_eq!(
        (last.inactive, last.persistent, last.done, last.ended),
        (0, 0, true, 4)
    );
    assert_eq!(bed.manager.current().1, 2);
    assert_eq!(bed.director.services()[1].servers[0].weight, 0);
}

#[tokio::test]
async fn a_drain_ends_when_nothing_is_left_and_keeps_what_is_to_be_kept() {
    let mut bed = Bed::new().await;
    bed.flows(100, 1000..1002);
    let request = v1::DrainRequest {
        service: Some(key(100)),
        address: "10.1.0.11".to_owned(),
        deadline: Some(prost_types::Duration {
            seconds: 0,
            nanos: 0,
        }),
        interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
        ..v1::DrainRequest::default()
    };
    let told = bed.drain(request.clone()).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].inactive, told[0].done, told[0].ended),
        (2, true, 0)
    );
    assert_eq!(bed.load(0), (0, 2, 0));
    // Its weight is 0 already: no other revision. Somebody else ends the connections.
    let request = v1::DrainRequest {
        deadline: None,
        ..request
    };
    let mut stream = bed
        .connections
        .drain(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(!stream.message().await.unwrap().unwrap().done);
    assert_eq!(
        bed.kill(v1::ConnectionFilter::default(), true)
            .await
            .unwrap(),
        2
    );
    let mut last = stream.message().await.unwrap().unwrap();
    while !last.done {
        last = stream.message().await.unwrap().unwrap();
    }
    assert_eq!((last.inactive, last.ended, last.revision), (0, 0, 2));
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_drain_that_somebody_undoes_says_so() {
    let mut bed = Bed::new().await;
    bed.flows(100, 1000..1001);
    let request = v1::DrainRequest {
        service: Some(key(100)),
        address: "10.1.0.11".to_owned(),
        interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
        ..v1::DrainRequest::default()
    };
    let mut stream = bed.connections.drain(request).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().inactive, 1);
    bed.director
        .apply(Configuration::parse("f", TEXT).unwrap().configuration)
        .unwrap();
    let status = loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Aborted);
    assert!(
        status.message().contains("weight 1"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn counters_go_to_0_and_connections_stay() {
    let mut bed = Bed::new().await;
    bed.flows(100, 1000..1005);
    bed.flows(101, 1000..1001);
    let counted = |bed: &Bed, service: usize| {
        let service = &bed.director.services()[service];
        (
            service.traffic.connections,
            service.servers[0].traffic.in_packets,
        )
    };
    eventually(|| counted(&bed, 0) == (5, 5) && counted(&bed, 1) == (1, 1));
    let request = v1::ZeroCountersRequest {
        service: Some(key(100)),
    };
    bed.counters.zero_counters(request).await.unwrap();
    assert_eq!((counted(&bed, 0), counted(&bed, 1)), ((0, 0), (1, 1)));
    assert_eq!(bed.load(0), (0, 5, 0));
    bed.flows(100, 2000..2002);
    eventually(|| counted(&bed, 0) == (2, 2));
    bed.counters
        .zero_counters(v1::ZeroCountersRequest { service: None })
        .await
        .unwrap();
    assert_eq!((counted(&bed, 0), counted(&bed, 1)), ((0, 0), (0, 0)));
}

#[tokio::test]
async fn rates_rise_while_packets_come_and_watchers_see_them() {
    let mut bed = Bed::new().await;
    bed.director.tidy();
    let request = v1::WatchStatisticsRequest { interval_ms: 100 };
    let mut stream = bed
        .counters
        .watch_statistics(request)
        .await
        .unwrap()
        .into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.elapsed_ms, 0);
    assert_eq!(first.services[0].rates, Some(v1::Rates::default()));
    bed.flows(100, 1000..2000);
    let end = Instant::now() + Duration::from_secs(10);
    let seen = loop {
        bed.director.tidy();
        let next = stream.message().await.unwrap().unwrap();
        assert!((90..2000).contains(&next.elapsed_ms), "{}", next.elapsed_ms);
        let [service, server] = [next.services[0].rates, next.services[0].servers[0].rates];
        if service.is_some_and(|rates| rates.connections > 0) {
            assert_eq!(service, server);
            break service.unwrap();
        }
        assert!(Instant::now() < end);
    };
    // A quarter of 1000 in two seconds or a little more.
    assert!((100..=125).contains(&seen.connections), "{seen:?}");
    assert_eq!((seen.in_packets, seen.out_packets), (seen.connections, 0));
    assert!(
        (31 * seen.in_packets..=33 * seen.in_packets).contains(&seen.in_bytes),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_walk_ends_when_its_visitor_wants() {
    let bed = Bed::new().await;
    bed.flows(100, 1000..1010);
    let mut seen = 0;
    let walked = connections::for_each(&bed.director, &Filter::default(), |_| {
        seen += 1;
        if seen == 4 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!((walked, seen), (ControlFlow::Break(()), 4));
}
