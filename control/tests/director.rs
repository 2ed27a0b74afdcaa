//! A director on memory ports: packets go in and come out, configurations come and go.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use control::config::{Configuration, GueChecksum, TunnelKind};
use control::plan::Action;
use control::status::ServerStatus;
use control::{ApplyError, Director, StartError};
use dataplane::frame::{Frame, Offload};
use dataplane::helper::Helper;
use dataplane::packet::{arp, checksum};
use dataplane::port::handle::{Link, Opened, PortHandle, PortState};
use dataplane::port::memory::{MemoryPort, MemoryWire};
use dataplane::port::{Burst, Mac, Port, PortCounters, PortId, PortInfo, Sent};
use dataplane::snapshot::Snapshot;
use parking_lot::Mutex;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const DIRECTOR: Mac = Mac([2, 0, 0, 0, 0, 1]);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 2]);
const SERVER: Mac = Mac([2, 0, 0, 0, 0, 3]);

const TEXT: &str = r#"
[director]
workers = 1
connections = 100
servers = 3
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
[[service]]
listen = "udp 10.1.0.100:53"
scheduler = "wrr"
method = "nat"
server = [{ address = "10.1.0.11" }, { address = "10.1.0.12", weight = 0 }]
[timeouts]
udp = 1
"#;

fn configuration(text: &str) -> Configuration {
    Configuration::parse("test", text)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
        .configuration
}

/// A director with one memory port, and the test's end of it.
fn start(text: &str) -> (Director, MemoryWire) {
    let info = PortInfo {
        name: "lan".to_owned(),
        mac: DIRECTOR,
        mtu: 1500,
        driver: "memory",
    };
    let (port, wire) = MemoryPort::new(PortId(0), info, 64, 2048);
    (
        Director::start_with(configuration(text), vec![vec![port]]).unwrap(),
        wire,
    )
}

/// A UDP datagram of a client to the service.
fn request(client_port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&DIRECTOR.0);
    frame.extend_from_slice(&CLIENT.0);
    frame.extend_from_slice(&[0x08, 0x00]);
    let mut ip = [
        0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 1, 0, 100,
    ];
    let sum = checksum::ipv4_header(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&client_port.to_be_bytes());
    frame.extend_from_slice(&[0, 53, 0, 12, 0, 0]);
    frame.extend_from_slice(b"what");
    frame
}

/// Waits for a frame that `wanted` says yes to; answers ARP requests meanwhile.
fn receive(wire: &MemoryWire, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        for (frame, _) in wire.take() {
            if wanted(&frame) {
                return frame;
            }
            if let Ok(asked) = arp::parse(&frame)
                && frame[12..14] == [0x08, 0x06]
                && !asked.is_gratuitous()
            {
                assert!(wire.inject(&arp::reply(SERVER, &asked)));
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no such frame within five seconds");
}

/// Waits until `question` is answered with yes.
fn eventually(question: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !question() {
        assert!(Instant::now() < end, "not within five seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn destination(frame: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(frame[30], frame[31], frame[32], frame[33])
}

fn is_udp(frame: &[u8]) -> bool {
    frame[12..14] == [0x08, 0x00] && frame[23] == 17
}

fn servers(director: &Director) -> Vec<ServerStatus> {
    director.services().into_iter().next().unwrap().servers
}

/// Lets one flow to the first server begin.
fn one_flow(wire: &MemoryWire) {
    assert!(wire.inject(&request(1000)));
    assert_eq!(
        destination(&receive(wire, is_udp)),
        Ipv4Addr::new(10, 1, 0, 11)
    );
}

#[test]
fn a_flow_passes_and_is_counted() {
    let (director, wire) = start(TEXT);
    let announced = receive(&wire, |frame| {
        arp::parse(frame).is_ok_and(|arp| arp.is_gratuitous())
    });
    assert!([[10, 1, 0, 1], [10, 1, 0, 100]].contains(&announced[28..32].try_into().unwrap()));
    one_flow(&wire);
    eventually(|| servers(&director)[0].traffic.in_packets == 1);
    let first = &servers(&director)[0];
    assert_eq!((first.active, first.inactive), (0, 1));
    assert_eq!((first.traffic.connections, first.traffic.in_bytes), (1, 32));
    let status = director.status();
    assert_eq!((status.version, status.workers.len()), (1, 1));
    assert!(
        status.workers[0].running
            && status.workers[0].forwarded == 1
            && status.workers[0].received >= 2
    );
    assert_eq!(
        (status.tables[0].capacity, status.tables[0].entries),
        (100, 1)
    );
    assert_eq!(status.ports[0].addresses, ["10.1.0.1/24"]);
    let neighbour = &status
        .neighbours
        .iter()
        .find(|neighbour| neighbour.mac == Some(SERVER))
        .unwrap();
    assert_eq!(
        (neighbour.port.as_str(), neighbour.state),
        ("lan", "reachable")
    );
    director.stop();
}

#[test]
fn a_server_that_stays_keeps_its_number_and_its_counts() {
    let (director, wire) = start(TEXT);
    one_flow(&wire);
    eventually(|| servers(&director)[0].traffic.in_packets == 1);
    let before = servers(&director);
    let text = TEXT.replace(
        "{ address = \"10.1.0.11\" }, { address = \"10.1.0.12\", weight = 0 }",
        "{ address = \"10.1.0.13\" }, { address = \"10.1.0.11\", weight = 7 }",
    );
    let plan = director.apply(configuration(&text)).unwrap();
    assert_eq!(
        plan.to_string(),
        "1 servers added, 1 servers edited, 1 servers removed"
    );
    let after = servers(&director);
    assert_eq!(
        (after[1].id, after[1].inactive, after[1].weight),
        (before[0].id, 1, 7)
    );
    assert_eq!(after[1].traffic, before[0].traffic);
    assert_ne!(after[0].id, before[0].id);
    assert_eq!(director.status().version, 2);
}

#[test]
fn a_server_that_returns_to_a_service_with_slow_start_gets_few_flows_at_first() {
    let text = TEXT.replace("method = \"nat\"", "method = \"nat\"\nslow_start = 86400");
    let (director, wire) = start(&text);
    one_flow(&wire);
    let back = configuration(&text.replace("weight = 0", "weight = 1"));
    director.apply(back).unwrap();
    let mut counts = [0, 0];
    // A round of ten and one.
    for client_port in 2000..2022 {
        assert!(wire.inject(&request(client_port)));
        let server = destination(&receive(&wire, is_udp));
        counts[usize::from(server == Ipv4Addr::new(10, 1, 0, 12))] += 1;
    }
    assert_eq!(counts[0] + counts[1], 22);
    assert!((1..=3).contains(&counts[1]), "{counts:?}");
    director.stop();
}

#[test]
fn edits_of_servers_begin_a_round_anew_whatever_they_change_and_edits_of_the_service_do_not() {
    let text = TEXT.replace(", weight = 0", "");
    let (director, wire) = start(&text);
    let mut ports = 2000..;
    let mut next = || {
        assert!(wire.inject(&request(ports.next().unwrap())));
        destination(&receive(&wire, is_udp)).octets()[3]
    };
    assert_eq!(next(), 12);
    let text = text.replace("method = \"nat\"", "method = \"nat\"\none_packet = true");
    director.apply(configuration(&text)).unwrap();
    assert_eq!([next(), next()], [11, 12]);
    let mut again = configuration(&text);
    again.services[0].idle_edits += 1;
    director.apply(again.clone()).unwrap();
    assert_eq!(next(), 12);
    again.services[0].servers[0].upper = 100;
    director.apply(again.clone()).unwrap();
    assert_eq!(next(), 12);
    again.ipvs.sloppy_tcp = true;
    director.apply(again).unwrap();
    assert_eq!(next(), 11);
}

#[test]
fn a_server_that_is_added_again_has_no_weight_of_its_life_before() {
    let text = TEXT.replace("scheduler = \"wrr\"", "scheduler = \"mh\"");
    let with = |weight: &str| configuration(&text.replace("weight = 0", weight));
    let (director, wire) = start(&text);
    let refused = || {
        let ports = 3000..3030;
        let verdicts = ports.map(|port| {
            assert!(wire.inject(&request(port)));
            let ours = |frame: &[u8]| is_udp(frame) || frame[23] == 1;
            receive(&wire, ours)[23] == 1
        });
        verdicts.filter(|refused| *refused).count()
    };
    let mh_port = |mut configuration: Configuration| {
        configuration.services[0].flags.mh_port = true;
        configuration.services[0].one_packet = true;
        configuration
    };
    director.apply(mh_port(with("weight = 1"))).unwrap();
    assert_eq!(refused(), 0);
    director.apply(mh_port(with("weight = 0"))).unwrap();
    assert!(refused() > 0);
    let mut without = mh_port(with("weight = 0"));
    without.services[0].servers.pop();
    director.apply(without).unwrap();
    assert_eq!(refused(), 0);
    director.apply(mh_port(with("weight = 0"))).unwrap();
    assert_eq!(refused(), 0);
}

#[test]
fn a_raised_threshold_lets_the_next_connection_pass() {
    let text = TEXT.replace("udp = 1", "udp = 300").replace(
        "{ address = \"10.1.0.11\" }",
        "{ address = \"10.1.0.11\", upper = 1 }",
    );
    let (director, wire) = start(&text);
    one_flow(&wire);
    eventually(|| servers(&director)[0].inactive == 1);
    assert!(wire.inject(&request(1001)));
    // Port unreachable.
    receive(&wire, |frame| frame[23] == 1 && frame[34..36] == [3, 3]);
    let raised = text.replace("upper = 1", "upper = 2");
    let plan = director.apply(configuration(&raised)).unwrap();
    assert_eq!(plan.to_string(), "1 servers edited");
    assert!(wire.inject(&request(1001)));
    eventually(|| servers(&director)[0].inactive == 2);
    let changed = format!("{raised}[ipvs]\nsloppy_tcp = true\n");
    let plan = director.apply(configuration(&changed)).unwrap();
    assert_eq!(plan.to_string(), "ipvs settings changed");
}

#[test]
fn another_tunnel_to_a_server_is_an_edit_and_known_connections_take_it() {
    let text = |keys: &str| {
        let server = format!("{{ address = \"10.1.0.11\", method = \"tun\"{keys} }}");
        TEXT.replace("{ address = \"10.1.0.11\" }", &server)
    };
    let (director, wire) = start(&text(""));
    let to_server = |frame: &[u8]| frame[12..14] == [8, 0] && frame[33] == 11;
    let inner = request(1000).split_off(34);
    let see = |protocol: u8, header: &[u8]| {
        assert!(wire.inject(&request(1000)));
        let frame = receive(&wire, to_server);
        let (between, packet) = frame[34..].split_at(frame.len() - 34 - 20 - inner.len());
        assert_eq!(frame[23], protocol);
        assert!(between.ends_with(header), "{between:02x?}");
        assert_eq!(packet[20..], inner);
    };
    see(4, &[]);
    for (keys, protocol, header) in [
        (", tunnel = \"gre\"", 47, [0, 0, 8, 0]),
        (
            ", tunnel = \"gue\", tunnel_port = 6080, tunnel_checksum = \"remote\"",
            17,
            [0, 4, 0, 0],
        ),
    ] {
        let plan = director.apply(configuration(&text(keys))).unwrap();
        assert_eq!(plan.to_string(), "1 servers edited");
        see(protocol, &header);
    }
    assert_eq!(servers(&director)[0].traffic.connections, 1);
    let tunnel = TunnelKind::Gue {
        port: 6080,
        checksum: GueChecksum::Remote,
    };
    assert_eq!(servers(&director)[0].tunnel, tunnel);
    director.stop();
}

#[test]
fn a_helper_is_an_edit_and_reaches_the_workers() {
    let text = |helper: &str| {
        let service = format!("listen = \"tcp 10.1.0.100:21\"\n{helper}");
        TEXT.replace("listen = \"udp 10.1.0.100:53\"", &service)
    };
    let info = PortInfo {
        name: "lan".to_owned(),
        mac: DIRECTOR,
        mtu: 1500,
        driver: "memory",
    };
    let director = Director::assemble(configuration(&text("")), vec![info]).unwrap();
    let publisher = director.worker_parts(0, Vec::<MemoryPort>::new()).publisher;
    let helpers = || {
        let snapshot = publisher.current();
        let helpers: Vec<_> = snapshot.services.values().map(|one| one.helper).collect();
        helpers
    };
    assert_eq!(helpers(), [None]);
    for _ in 0..2 {
        let ftp = configuration(&text("helper = \"ftp\""));
        let plan = director.apply(ftp.clone()).unwrap();
        assert_eq!(plan.to_string(), "1 services edited");
        assert_eq!(helpers(), [Some(Helper::Ftp)]);
        assert_eq!(director.apply(ftp).unwrap().to_string(), "nothing changes");
        director.apply(configuration(&text(""))).unwrap();
        assert_eq!(helpers(), [None]);
    }
}

#[test]
fn nothing_new_changes_nothing() {
    let (director, _wire) = start(TEXT);
    let plan = director.apply(configuration(TEXT)).unwrap();
    assert_eq!(plan.to_string(), "nothing changes");
}

#[test]
fn the_number_of_a_removed_server_is_kept_as_long_as_a_connection_refers_to_it() {
    let (director, wire) = start(TEXT);
    one_flow(&wire);
    eventually(|| servers(&director)[0].inactive == 1);
    let number = servers(&director)[0].id;
    let without = TEXT.replace("{ address = \"10.1.0.11\" }, ", "");
    let plan = director.apply(configuration(&without)).unwrap();
    assert_eq!(
        (plan.servers_to(Action::Remove), plan.connections_cut()),
        (1, 1)
    );
    // Of three numbers two are taken, one of them by the server that is gone.
    let three = without.replace(
        "server = [",
        "server = [{ address = \"10.1.0.21\" }, { address = \"10.1.0.22\" }, ",
    );
    let refused = director.apply(configuration(&three)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "3 servers and 1 removed ones that connections still refer to are too many; accepted: 3 in all \
         (director.servers), or wait for those connections to end"
    );
    assert_eq!(servers(&director).len(), 1, "nothing has changed");
    // The flow's second is over, and its timer fires.
    eventually(|| director.status().tables[0].entries == 0);
    let taken = |director: &Director| director.apply(configuration(&three)).is_ok();
    eventually(|| taken(&director));
    let again = servers(&director)
        .into_iter()
        .find(|server| server.id == number)
        .unwrap();
    assert_eq!(
        again.traffic,
        control::Traffic::default(),
        "a new server begins at zero"
    );
}

#[test]
fn a_removed_server_that_comes_back_in_time_has_its_connections_again() {
    let (director, wire) = start(&TEXT.replace("udp = 1", "udp = 300"));
    one_flow(&wire);
    eventually(|| servers(&director)[0].inactive == 1);
    let number = servers(&director)[0].id;
    let text = TEXT.replace("udp = 1", "udp = 300");
    director
        .apply(configuration(
            &text.replace("{ address = \"10.1.0.11\" }, ", ""),
        ))
        .unwrap();
    director.tidy();
    director.apply(configuration(&text)).unwrap();
    assert_eq!(
        (servers(&director)[0].id, servers(&director)[0].inactive),
        (number, 1)
    );
    eventually(|| {
        assert!(wire.inject(&request(1000)));
        servers(&director)[0].traffic.in_packets > 1
    });
    assert_eq!(servers(&director)[0].traffic.connections, 1);
}

#[test]
fn what_is_fixed_at_the_start_is_not_changed_at_run_time() {
    let (director, _wire) = start(TEXT);
    for (from, to, keys) in [
        ("workers = 1", "workers = 2", "director.workers"),
        (
            "connections = 100",
            "connections = 200\nhalf_open_percent = 3",
            "director.connections, director.half_open_percent",
        ),
        ("[port.lan]", "[port.wan]", "port.lan, port.wan"),
        ("[timeouts]", "[metrics]\n[timeouts]", "metrics.listen"),
        (
            "driver = \"memory\"",
            "driver = \"af_packet\"\ninterface = \"eth0\"",
            "port.lan",
        ),
        (
            "servers = 3",
            "servers = 4\nidle = \"poll\"\npin = true\ncontrol = \"unix:/x\"\nproc = \"/p\"\ntable = \"/x\"",
            // The netlink socket is beside the control socket.
            "director.servers, director.idle, director.pin, director.control, director.netlink, director.proc, director.table",
        ),
    ] {
        let error = director
            .apply(configuration(&TEXT.replace(from, to)))
            .unwrap_err();
        assert!(matches!(error, ApplyError::NeedsRestart { .. }));
        let expected = format!(
            "{keys}: fixed while the director runs; accepted: as they are, or a restart of uvsd"
        );
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(director.configuration(), configuration(TEXT));
    assert_eq!(director.status().version, 1);
}

#[test]
fn an_invalid_configuration_made_by_hand_is_refused() {
    let (director, _wire) = start(TEXT);
    let mut bad = configuration(TEXT);
    bad.services[0].servers[0].address = "192.0.2.1:53".parse().unwrap();
    let expected = "service[0].server[0].address: 192.0.2.1 is not an address with a way to it; accepted: an address \
                    in 10.1.0.0/24, or a [[route]] to it";
    assert_eq!(
        director.apply(bad.clone()).unwrap_err().to_string(),
        expected
    );
    assert_eq!(Director::start(bad).err().unwrap().to_string(), expected);
}

#[test]
fn ports_that_do_not_fit_are_refused() {
    let none: Vec<Vec<MemoryPort>> = Vec::new();
    let error = Director::start_with(configuration(TEXT), none)
        .err()
        .unwrap();
    let expected = "0 ports with 0 queues were handed over; accepted: 1 ports with 1 queues each";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_cpu_that_is_not_there_is_told() {
    let text = TEXT.replace("workers = 1", "workers = 2\npin = [0, 1023]");
    let error = Director::start(configuration(&text)).err().unwrap();
    assert!(
        matches!(
            error,
            StartError::Pin {
                worker: 1,
                cpu: 1023,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn an_interface_that_is_not_there_is_told_with_its_port() {
    let text = TEXT.replace("\"memory\"", "\"af_packet\"\ninterface = \"nosuch0\"");
    let error = Director::start(configuration(&text))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with("port lan: interface \"nosuch0\""),
        "{error}"
    );
}

/// A driver with a fault.
struct FaultyPort(PortInfo);

impl Port for FaultyPort {
    fn info(&self) -> &PortInfo {
        &self.0
    }
    fn receive(&mut self, _: &mut Burst) -> usize {
        panic!("this driver has a fault");
    }
    fn transmit(&mut self, frame: Frame) -> Sent {
        Sent::Refused(frame)
    }
    fn send(&mut self, _: &[u8], _: &Offload) -> bool {
        false
    }
    fn flush(&mut self) {}
    fn release(&mut self, _: Frame) {}
    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn counters(&mut self) -> PortCounters {
        PortCounters::default()
    }
}

#[test]
fn a_worker_that_ends_on_its_own_is_told() {
    let info = PortInfo {
        name: "lan".to_owned(),
        mac: DIRECTOR,
        mtu: 1500,
        driver: "memory",
    };
    let director = Director::start_with(configuration(TEXT), vec![vec![FaultyPort(info)]]).unwrap();
    eventually(|| director.ended_workers() == [0]);
    assert!(!director.status().workers[0].running);
    director.stop();
}

#[test]
fn memory_ports_are_opened_and_all_workers_stop() {
    let text = TEXT.replace("workers = 1", "workers = 4");
    let director = Director::start(configuration(&text)).unwrap();
    assert!(director.ended_workers().is_empty());
    eventually(|| {
        director
            .status()
            .workers
            .iter()
            .all(|worker| worker.running && worker.sleeps > 0)
    });
    director.stop();
}

/// A port that the test changes.
struct Changing {
    state: Mutex<PortState>,
    refuses: AtomicBool,
    told: Mutex<Vec<Mac>>,
}

impl PortHandle for Changing {
    fn state(&self) -> PortState {
        self.state.lock().clone()
    }

    fn statistics(&self) -> Vec<(String, u64)> {
        vec![("collisions".to_owned(), 7)]
    }

    fn adopt(&self, snapshot: &Snapshot) -> std::io::Result<()> {
        if self.refuses.load(Relaxed) {
            return Err(std::io::ErrorKind::Other.into());
        }
        self.told.lock().push(snapshot.ports[0].mac);
        Ok(())
    }
}

/// A director on a port that the test changes.
fn start_changing() -> (Director, MemoryWire, Arc<Changing>) {
    let info = PortInfo {
        name: "lan".to_owned(),
        mac: DIRECTOR,
        mtu: 1500,
        driver: "memory",
    };
    let state = PortState {
        mac: info.mac,
        mtu: info.mtu,
        link: Link::Up,
        mode: "as usual".to_owned(),
    };
    let handle = Arc::new(Changing {
        state: Mutex::new(state),
        refuses: AtomicBool::new(false),
        told: Mutex::default(),
    });
    let (port, wire) = MemoryPort::new(PortId(0), info, 64, 2048);
    let opened = Opened {
        queues: vec![port],
        handle: Arc::clone(&handle) as Arc<dyn PortHandle>,
    };
    let director = Director::start_opened(configuration(TEXT), vec![opened]).unwrap();
    (director, wire, handle)
}

/// Addresses that the director announces until `enough` were, with the hardware address that it tells.
fn announcements(
    wire: &MemoryWire,
    enough: impl Fn(&[(Ipv4Addr, Mac)]) -> bool,
) -> Vec<(Ipv4Addr, Mac)> {
    let (mut told, end) = (Vec::new(), Instant::now() + Duration::from_secs(5));
    while !enough(&told) {
        assert!(
            Instant::now() < end,
            "announced within five seconds: {told:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
        let frames = wire.take().into_iter();
        let messages = frames.filter_map(|(frame, _)| arp::parse(&frame).ok());
        let own = messages.filter(arp::Arp::is_gratuitous);
        told.extend(own.map(|message| (message.sender, message.sender_mac)));
    }
    told.sort_unstable_by_key(|(address, _)| *address);
    told
}

#[test]
fn another_hardware_address_and_another_mtu_reach_the_workers_and_the_links() {
    let (director, wire, port) = start_changing();
    let own = [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 100)];
    assert_eq!(
        announcements(&wire, |told| told.len() == 2),
        own.map(|address| (address, DIRECTOR))
    );
    director.tidy();
    assert_eq!(director.status().version, 1, "nothing has changed");
    let other = Mac([2, 0, 0, 0, 0, 0x99]);
    port.state.lock().mac = other;
    port.state.lock().mtu = 1400;
    director.tidy();
    let status = director.status();
    assert_eq!(status.version, 2);
    assert_eq!(
        (status.ports[0].state.mac, status.ports[0].state.mtu),
        (other, 1400)
    );
    assert_eq!(status.ports[0].statistics, [("collisions".to_owned(), 7)]);
    assert_eq!(*port.told.lock(), [DIRECTOR, other]);
    let of_other = |told: &[(Ipv4Addr, Mac)]| -> Vec<Ipv4Addr> {
        let told = told.iter().filter(|(_, mac)| *mac == other);
        told.map(|(address, _)| *address).collect()
    };
    let told = announcements(&wire, |told| of_other(told).len() == 2);
    assert_eq!(of_other(&told), own);
    // It answers with it, too.
    assert!(wire.inject(&arp::request(
        CLIENT,
        Ipv4Addr::new(10, 1, 0, 2),
        own[1],
        None
    )));
    let answer = receive(&wire, |frame| frame[..6] == CLIENT.0);
    assert_eq!(arp::parse(&answer).unwrap().sender_mac, other);
}

#[test]
fn a_link_that_is_back_is_told_once_and_one_that_is_gone_changes_nothing_else() {
    let (director, wire, port) = start_changing();
    let _ = announcements(&wire, |told| told.len() == 6);
    for link in [Link::Down, Link::Gone, Link::Down] {
        port.state.lock().link = link;
        director.tidy();
        let status = director.status();
        assert_eq!((status.version, status.ports[0].state.link), (1, link));
    }
    port.state.lock().link = Link::Up;
    director.tidy();
    director.tidy();
    assert_eq!(director.status().version, 2);
    let _ = announcements(&wire, |told| told.len() == 2);
}

#[test]
fn what_a_driver_refuses_to_be_told_is_told_again_later() {
    let (director, _wire, port) = start_changing();
    port.refuses.store(true, Relaxed);
    port.state.lock().mtu = 1400;
    director.tidy();
    director.tidy();
    assert_eq!(director.status().version, 1);
    port.refuses.store(false, Relaxed);
    director.tidy();
    assert_eq!(director.status().version, 2);
    director.tidy();
    assert_eq!(director.status().version, 2);
}

/// A table's file that is gone with the test.
struct TableFile(std::path::PathBuf);

impl TableFile {
    fn new(name: &str) -> TableFile {
        let name = format!("/dev/shm/uvs-control-{}-{name}", std::process::id());
        TableFile(name.into())
    }

    /// The configuration with the table in it.
    fn text(&self, text: &str) -> String {
        let table = format!("[director]\ntable = \"{}\"", self.0.display());
        text.replace("[director]", &table)
    }
}

impl Drop for TableFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn with_a_table_in_a_file_the_next_director_knows_the_servers_by_the_same_numbers() {
    let file = TableFile::new("numbers");
    let text = file.text(&TEXT.replace("udp = 1", "udp = 300"));
    let number = {
        let (director, wire) = start(&text);
        one_flow(&wire);
        eventually(|| servers(&director)[0].inactive == 1);
        servers(&director)[0].id
    };
    // The servers in another order, and a new one before them.
    let other = text.replace(
        "server = [{ address = \"10.1.0.11\" }, { address = \"10.1.0.12\", weight = 0 }]",
        "server = [{ address = \"10.1.0.21\" }, { address = \"10.1.0.12\" }, { address = \"10.1.0.11\" }]",
    );
    {
        let (director, wire) = start(&other);
        let takeover = director.takeover().unwrap();
        assert_eq!(
            (takeover.adopted.adopted, takeover.adopted.refused.all()),
            (1, 0)
        );
        let last = servers(&director).into_iter().next_back().unwrap();
        assert_eq!((last.id, last.inactive), (number, 1));
        one_flow(&wire);
    }
    // It is gone while nobody runs: as after a reload, its client's packets are dropped, its number stays taken.
    let gone = text.replace("{ address = \"10.1.0.11\" }, ", "");
    {
        let (director, wire) = start(&gone);
        assert_eq!(director.takeover().unwrap().adopted.adopted, 1);
        assert!(wire.inject(&request(1000)));
        let dropped = || {
            let drops = director.status().drops;
            drops
                .iter()
                .any(|(reason, count)| reason.name() == "server-gone" && *count == 1)
        };
        eventually(dropped);
        assert!(servers(&director).iter().all(|server| server.id != number));
    }
    // And it comes back.
    let (director, wire) = start(&text);
    assert_eq!(servers(&director)[0].inactive, 1);
    one_flow(&wire);
}

#[test]
fn a_table_whose_list_of_servers_is_damaged_is_replaced() {
    use std::os::unix::fs::FileExt;
    let file = TableFile::new("damaged");
    let text = file.text(&TEXT.replace("udp = 1", "udp = 300"));
    let (director, wire) = start(&text);
    one_flow(&wire);
    drop(director);
    let raw = std::fs::OpenOptions::new()
        .write(true)
        .open(&file.0)
        .unwrap();
    raw.write_all_at(&[0xff; 8], 4096 + 24).unwrap();
    let (director, _wire) = start(&text);
    let told = director.takeover().unwrap().to_string();
    assert!(
        told.contains("was replaced: its directory of servers is damaged"),
        "{told}"
    );
    assert_eq!(director.status().tables[0].entries, 0);
}

#[test]
fn a_table_that_cannot_be_is_told_with_its_place() {
    let file = TableFile::new("taken");
    let text = file.text(TEXT);
    let (_director, _wire) = start(&text);
    let error = Director::assemble(configuration(&text), Vec::new())
        .err()
        .unwrap();
    let told = error.to_string();
    assert!(
        told.contains(&format!("director.table: {}", file.0.display())),
        "{told}"
    );
    assert!(told.contains("another uvsd has it"), "{told}");
    let on_disk = concat!(env!("CARGO_TARGET_TMPDIR"), "/table");
    let text = TEXT.replace("[director]", &format!("[director]\ntable = \"{on_disk}\""));
    let error = Director::assemble(configuration(&text), Vec::new())
        .err()
        .unwrap();
    assert!(error.to_string().contains("tmpfs"), "{error}");
}
