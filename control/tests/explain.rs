//! What a director says of packets, and what it does with them: workers on memory ports, with time of the test's making.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use conntrack::{Method, Ticks, V4};
use control::Director;
use control::config::{Configuration, Protocol};
use control::explain::{Explanation, Question, QuestionError, Verdict};
use dataplane::packet::wire::write_ipv4_checksum;
use dataplane::packet::{arp, checksum};
use dataplane::port::memory::{MemoryPort, MemoryWire};
use dataplane::port::{Mac, PortId, PortInfo};
use dataplane::reason::Reason;
use dataplane::worker::Worker;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const DIRECTOR: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOST: Mac = Mac([2, 0, 0, 0, 0, 2]);
const SYN: u8 = 2;
const ACK: u8 = 0x10;

struct Bed {
    director: Director,
    worker: Worker<MemoryPort>,
    wire: MemoryWire,
    now: Ticks,
}

const HEAD: &str = r#"
[director]
connections = 1000
servers = 50
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/16"]
"#;

impl Bed {
    fn new(text: &str) -> Bed {
        let text = format!("{HEAD}{text}");
        let read = Configuration::parse("test", &text);
        let configuration = read.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let info = PortInfo {
            name: "lan".to_owned(),
            mac: DIRECTOR,
            mtu: 1500,
            driver: "memory",
        };
        let (port, wire) = MemoryPort::new(PortId(0), info.clone(), 64, 2048);
        let director = Director::assemble(configuration.configuration, vec![info]).unwrap();
        let now = Ticks(1000);
        let worker = Worker::new(director.worker_parts(0, vec![port]), now);
        let mut bed = Bed {
            director,
            worker,
            wire,
            now,
        };
        bed.run();
        bed
    }

    /// What comes out until nothing moves any more; ARP is answered.
    fn run(&mut self) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        for _ in 0..100 {
            self.now = self.now.after(Ticks(1));
            let count = self.worker.run_once(self.now);
            let frames = self.wire.take();
            if count == 0 && frames.is_empty() {
                return seen;
            }
            for (frame, _) in frames {
                if frame[12..14] != [8, 6] {
                    seen.push(frame);
                } else if let Ok(asked) = arp::parse(&frame)
                    && !asked.is_gratuitous()
                {
                    assert!(self.wire.inject(&arp::reply(HOST, &asked)));
                }
            }
        }
        panic!("it does not come to rest");
    }

    fn send(&mut self, packet: &Packet, flags: u8) -> Vec<Vec<u8>> {
        assert!(self.wire.inject(&packet.frame(flags)));
        self.run()
    }

    fn ask(&self, packet: &Packet) -> Explanation {
        self.director.explain(&packet.question()).unwrap()
    }

    fn says(&self, packet: &Packet, sentence: &str) -> Explanation {
        let answer = self.ask(packet);
        let said = answer.steps.iter().any(|step| step.contains(sentence));
        assert!(said, "{sentence}: {:#?}", answer.steps);
        answer
    }

    fn entries(&self) -> u64 {
        self.director.status().tables[0].entries
    }

    fn drops(&self, reason: Reason) -> u64 {
        let drops = self.director.status().drops;
        drops.into_iter().find(|(of, _)| *of == reason).unwrap().1
    }
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
}

fn tcp(source: &str, destination: &str) -> Packet {
    Packet {
        protocol: Protocol::Tcp,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

impl Packet {
    fn question(&self) -> Question {
        Question {
            protocol: self.protocol,
            source: self.source,
            destination: self.destination,
            port: None,
        }
    }

    fn back(&self, server: &str) -> Packet {
        Packet {
            source: server.parse().unwrap(),
            destination: self.source,
            ..*self
        }
    }

    fn frame(&self, flags: u8) -> Vec<u8> {
        let (IpAddr::V4(from), IpAddr::V4(to)) = (self.source.ip(), self.destination.ip()) else {
            panic!("IPv4 alone");
        };
        let number = self.protocol.number();
        let ports = [self.source.port(), self.destination.port()];
        let mut transport: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
        let field = if self.protocol == Protocol::Tcp {
            transport.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
            16
        } else {
            transport.extend([0, 12, 0, 0, 1, 2, 3, 4]);
            6
        };
        let sum = checksum::l4::<V4>(from, to, number, &transport);
        transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        let mut frame = [DIRECTOR.0, HOST.0].concat();
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(u16::try_from(20 + transport.len()).unwrap().to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, number, 0, 0]);
        frame.extend([from.octets(), to.octets()].concat());
        write_ipv4_checksum(&mut frame, 14);
        frame.extend(transport);
        frame
    }
}

fn destination(frame: &[u8]) -> SocketAddr {
    let address = Ipv4Addr::new(frame[30], frame[31], frame[32], frame[33]);
    SocketAddr::new(address.into(), u16::from_be_bytes([frame[36], frame[37]]))
}

fn service(scheduler: &str, more: &str, servers: &str) -> String {
    format!(
        "[[service]]\nlisten = \"tcp 10.1.0.100:80\"\nscheduler = \"{scheduler}\"\nmethod = \"nat\"\n{more}\nserver = [{servers}]\n"
    )
}

const TWO: &str = r#"{ address = "10.1.0.11:8080" }, { address = "10.1.0.12:8080" }"#;
const REQUEST: (&str, &str) = ("10.1.7.9:40000", "10.1.0.100:80");

fn request() -> Packet {
    tcp(REQUEST.0, REQUEST.1)
}

#[test]
fn a_first_packet_and_its_connection_are_explained_and_nothing_is_changed() {
    let mut bed = Bed::new(&service("wlc", "", TWO));
    let answer = bed.says(
        &request(),
        "It is for the service tcp 10.1.0.100:80, by its very port.",
    );
    assert_eq!(answer.verdict, Verdict::Forwarded);
    let foretold = answer.server.unwrap();
    assert_eq!((answer.method, bed.entries()), (Some(Method::Nat), 0));
    bed.says(&request(), "wlc chooses");
    bed.says(&request(), "whose hardware address is not known");
    let sent = bed.send(&request(), SYN);
    assert_eq!(destination(&sent[0]), foretold);
    let answer = bed.says(
        &request(),
        "It comes from the client and goes to the server",
    );
    let connection = answer.connection.unwrap();
    assert_eq!((connection.client, connection.owner), (request().source, 0));
    assert_eq!((answer.server, bed.entries()), (Some(foretold), 1));
    let way = answer.way.unwrap();
    assert_eq!((way.mac, way.next_hop), (Some(HOST), foretold.ip()));
    assert_eq!(way.port, "lan");
    // The other way round.
    let reply = request().back(&foretold.to_string());
    let answer = bed.says(&reply, "goes to the client");
    assert_eq!(answer.way.unwrap().next_hop, request().source.ip());
}

#[test]
fn what_is_nobodys_is_left() {
    let bed = Bed::new(&service("rr", "", TWO));
    let other = tcp("10.1.7.9:40000", "10.1.0.100:81");
    let answer = bed.says(&other, "No service has tcp 10.1.0.100:81.");
    assert_eq!((answer.verdict, answer.service), (Verdict::Left, None));
    let bed = Bed::new("");
    let answer = bed.says(&request(), "There is no service of IPv4");
    assert_eq!(answer.verdict, Verdict::Left);
}

#[test]
fn what_cannot_be_is_dropped_as_it_is_said() {
    let mut bed = Bed::new(&service(
        "rr",
        "",
        r#"{ address = "10.1.0.11", weight = 0 }"#,
    ));
    for (packet, reason) in [
        (request(), Reason::NoServer),
        (tcp("10.1.0.100:5", REQUEST.1), Reason::BadSource),
        (tcp("224.0.0.1:5", REQUEST.1), Reason::BadSource),
    ] {
        let answer = bed.ask(&packet);
        assert_eq!(
            answer.verdict,
            Verdict::Dropped(reason),
            "{:#?}",
            answer.steps
        );
        let before = bed.drops(reason);
        bed.send(&packet, SYN);
        assert_eq!(bed.drops(reason), before + 1, "{packet:?}");
    }
    bed.says(&request(), "10.1.0.11:80 (weight 0)");
}

#[test]
fn a_choice_that_depends_on_what_came_before_is_not_made_up() {
    for (scheduler, why) in [
        ("rr", "on whose turn it is there"),
        ("wrr", "on whose turn it is there"),
        ("lblc", "on what it remembers of the destination"),
        ("lblcr", "on what it remembers of the destination"),
        ("twos", "on what it draws then"),
    ] {
        let mut bed = Bed::new(&service(scheduler, "", TWO));
        bed.says(&request(), why);
        let why = "Which one depends on the worker that gets the packet and on ";
        let answer = bed.says(&request(), why);
        assert_eq!((answer.server, answer.verdict), (None, Verdict::Forwarded));
        bed.says(
            &request(),
            "10.1.0.12:8080 (weight 1, 0 active, 0 inactive)",
        );
        assert_eq!(bed.send(&request(), SYN).len(), 1, "{scheduler}");
    }
    let bed = Bed::new(&service("rr", "", r#"{ address = "10.1.0.11:8080" }"#));
    let answer = bed.says(&request(), "rr chooses 10.1.0.11:8080, the only one.");
    assert_eq!(answer.server, Some("10.1.0.11:8080".parse().unwrap()));
}

#[test]
fn a_client_that_is_remembered_goes_to_its_server() {
    let mut bed = Bed::new(&service("rr", "persistence_timeout = 60", TWO));
    bed.says(&request(), "nothing remembers its client");
    let sent = bed.send(&request(), SYN);
    let again = tcp("10.1.7.9:40001", REQUEST.1);
    let answer = bed.says(&again, "A template remembers that 10.1.7.9 belongs to");
    assert_eq!(answer.server, Some(destination(&sent[0])));
    assert!(answer.template.unwrap().template);
    let sent = bed.send(&again, SYN);
    assert_eq!(Some(destination(&sent[0])), answer.server);
}

#[test]
fn marks_and_services_of_all_ports_are_told() {
    let text = r#"
[[mark]]
mark = 7
destination_ports = "5000-6000"
[[service]]
listen = "mark 7"
scheduler = "sh"
method = "nat"
addresses = ["10.1.0.100"]
server = [{ address = "10.1.0.13:7000" }]
[[service]]
listen = "tcp 10.1.0.100:0"
scheduler = "sh"
method = "dr"
persistence_timeout = 60
server = [{ address = "10.1.0.14" }]
"#;
    let mut bed = Bed::new(text);
    let marked = tcp("10.1.7.9:40000", "10.1.0.100:5001");
    bed.says(&marked, "The first rule that matches gives it mark 7.");
    let answer = bed.says(
        &marked,
        "It is for the service mark 7, which is asked first.",
    );
    assert_eq!(answer.server, Some("10.1.0.13:7000".parse().unwrap()));
    assert_eq!(Some(destination(&bed.send(&marked, SYN)[0])), answer.server);
    let other = tcp("10.1.7.9:40000", "10.1.0.100:99");
    bed.says(&other, "No rule gives it a mark.");
    let answer = bed.says(&other, "which has all ports that no other service has");
    assert_eq!(answer.server, Some("10.1.0.14:99".parse().unwrap()));
    assert_eq!(answer.method, Some(Method::Dr));
}

#[test]
fn the_connections_of_a_removed_server_are_told_apart() {
    let mut bed = Bed::new(&service("sh", "", TWO));
    let sent = bed.send(&request(), SYN);
    let server = destination(&sent[0]);
    let rest: Vec<_> = ["10.1.0.11:8080", "10.1.0.12:8080"]
        .into_iter()
        .filter(|other| *other != server.to_string())
        .collect();
    let text = format!(
        "{HEAD}{}",
        service("sh", "", &format!("{{ address = \"{}\" }}", rest[0]))
    );
    let configuration = Configuration::parse("test", &text).unwrap().configuration;
    bed.director.apply(configuration).unwrap();
    bed.run();
    let answer = bed.says(&request(), "Its server was removed from the service");
    assert_eq!(answer.verdict, Verdict::Dropped(Reason::ServerGone));
    bed.send(&request(), ACK);
    assert_eq!(bed.drops(Reason::ServerGone), 1);
}

#[test]
fn a_connection_that_has_ended_may_begin_anew_unless_a_template_controls_it() {
    const RST: u8 = 4;
    for (more, says) in [("", true), ("persistence_timeout = 60", false)] {
        let mut bed = Bed::new(&service("wlc", more, TWO));
        bed.send(&request(), SYN);
        bed.send(&request(), ACK);
        bed.send(&request(), RST);
        let answer = bed.says(&request(), "CLOSE");
        let anew = answer
            .steps
            .iter()
            .any(|step| step.contains("it is scheduled anew"));
        assert_eq!(anew, says, "{:#?}", answer.steps);
    }
}

#[test]
fn a_question_that_makes_no_sense_is_refused() {
    let bed = Bed::new(&service("rr", "", TWO));
    let question = Question {
        port: Some("wan".to_owned()),
        ..request().question()
    };
    let error = bed.director.explain(&question).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"wan\" is not the name of a port; accepted: lan"
    );
    let question = Question {
        destination: "[fd00::1]:80".parse().unwrap(),
        ..request().question()
    };
    let error = bed.director.explain(&question).unwrap_err();
    assert!(matches!(error, QuestionError::Families { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Of schedulers that hash and of those that go by load, whatever came before: what is said is what the packet gets.
    #[test]
    fn the_server_that_is_told_is_the_one_that_the_packet_gets(
        scheduler in prop::sample::select(vec!["sh", "mh", "dh", "maglev", "wlc", "lc", "sed", "nq", "fo", "ovf"]),
        weights in prop::collection::vec(0_u16..5, 1..8),
        clients in prop::collection::vec((1_u8..250, 1_u8..250, 1024_u16..60_000), 1..30),
    ) {
        let servers = weights.iter().zip(11..).map(|(weight, host)| {
            format!("{{ address = \"10.1.0.{host}:8080\", weight = {weight} }}")
        });
        let servers = servers.collect::<Vec<_>>().join(", ");
        let mut bed = Bed::new(&service(scheduler, "", &servers));
        for (a, b, port) in clients {
            let packet = tcp(&format!("10.1.{a}.{b}:{port}"), REQUEST.1);
            let before = bed.drops(Reason::NoServer);
            let answer = bed.ask(&packet);
            let sent = bed.send(&packet, SYN);
            match answer.verdict {
                Verdict::Forwarded => {
                    prop_assert_eq!(sent.len(), 1);
                    prop_assert_eq!(answer.server, Some(destination(&sent[0])));
                }
                verdict => {
                    prop_assert_eq!(verdict, Verdict::Dropped(Reason::NoServer));
                    prop_assert_eq!(bed.drops(Reason::NoServer), before + 1);
                }
            }
        }
    }
}
