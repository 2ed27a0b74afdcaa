//! Services and servers that are edited while connections live, and what schedulers notice of it.
//!
//! Recorded: `tests/scenario/recorded/edits-of-rounds.json`, `edits-of-hashes.json`, `edits-of-methods.json`, `last-service.json`,
//! `reuse-while-counted.json`.

use super::bed::Bed;
use super::config::{CLIENTS, Config, SERVERS, mac_of, socket};
use super::packets::{ACK, DATA, RST, SYN, SYN_ACK, Talk};
use crate::packet::TcpFlags;
use crate::packet::wire::{TCP, UDP};
use crate::reason::Reason;
use crate::snapshot::Persistence;
use conntrack::{Method, Ticks};

const VIP: &str = "10.0.0.100:80";
const BOTH: [&str; 2] = ["10.2.0.11:80", "10.2.0.12:80"];
const THREE: [&str; 3] = ["10.2.0.11:80", "10.2.0.12:80", "10.2.0.13:80"];

fn request(port: u16) -> Talk {
    Talk::tcp("10.64.0.7:40001", VIP).at_port(port)
}

/// Which of the servers a client's packet reaches by DR or NAT.
fn server_of(bed: &mut Bed, port: u16, flags: TcpFlags) -> usize {
    let to = bed
        .send_one(0, CLIENTS, &request(port).packet(flags, b""))
        .to();
    let mut servers = THREE.iter();
    let place = servers.position(|server| mac_of(socket(server).ip()) == to);
    place.expect("it goes to a server")
}

#[test]
fn an_edit_of_a_server_begins_the_round_anew_and_one_of_the_service_does_not() {
    for (edits, anew) in [(1, false), (2, true)] {
        let mut config = Config::new().with(TCP, VIP, Method::Dr, &THREE);
        config.services[0].scheduler = "wrr";
        config.services[0].edits = Some(1);
        let mut bed = Bed::new(&config);
        let first = server_of(&mut bed, 1, SYN);
        config.services[0].edits = Some(edits);
        config.services[0].persistence = Some(Persistence {
            timeout: Ticks::from_seconds(60),
            mask: u128::from(u32::MAX),
            engine: None,
        });
        bed.publish(&config);
        assert_eq!(server_of(&mut bed, 2, SYN) == first, anew);
    }
}

#[test]
fn other_switches_of_a_scheduler_leave_what_it_knows() {
    let mut config = Config::new().with(TCP, VIP, Method::Dr, &BOTH);
    config.services[0].scheduler = "mh";
    let mut bed = Bed::new(&config);
    // As the table is of the weights that the servers had.
    config.server(0).weight = 0;
    bed.publish(&config);
    let refused = |bed: &mut Bed, ports: std::ops::Range<u16>| {
        let replies = ports.map(|port| {
            let client = Talk::tcp(&format!("10.64.{}.7:1", port % 200), VIP).at_port(port);
            let seen = bed.send_one(0, CLIENTS, &client.packet(SYN, b""));
            seen.side == CLIENTS
        });
        replies.filter(|refused| *refused).count()
    };
    assert!(refused(&mut bed, 1..50) > 0, "the drained server's clients");
    config.services[0].options.mh_fallback = true;
    bed.publish(&config);
    assert_eq!(refused(&mut bed, 50..100), 0);
    config.services[0].options.mh_fallback = false;
    bed.publish(&config);
    assert!(refused(&mut bed, 100..150) > 0);
}

#[test]
fn a_connection_keeps_its_method_whatever_its_server_has_by_now() {
    for (first, then) in [
        (Method::Dr, Method::Tun),
        (Method::Tun, Method::Dr),
        (Method::Nat, Method::Tun),
        (Method::Tun, Method::Nat),
    ] {
        let mut config = Config::of(TCP, VIP, first, BOTH[0]);
        let mut bed = Bed::new(&config);
        let frame = request(1).packet(SYN, b"");
        let before = bed.send_one(0, CLIENTS, &frame).packet();
        config.server(0).method = then;
        bed.publish(&config);
        let after = bed.send_one(0, CLIENTS, &frame).packet();
        assert_eq!(after.talk, before.talk, "{first:?} {then:?}");
        let new = bed.send_one(0, CLIENTS, &request(2).packet(SYN, b""));
        let is_tunnelled = new.packet().talk.protocol != TCP;
        assert_eq!(is_tunnelled, then == Method::Tun);
    }
}

#[test]
fn without_a_service_of_its_family_a_packet_is_the_kernels() {
    let mut config = Config::of(TCP, VIP, Method::Nat, BOTH[0]).with(
        UDP,
        "[fd00:a::100]:53",
        Method::Nat,
        &["[fd00:2::11]:53"],
    );
    let mut bed = Bed::new(&config);
    let inside = bed.send_one(0, CLIENTS, &request(1).packet(SYN, b""));
    let answer = inside.packet().talk.back().packet(SYN_ACK, b"");
    bed.send_one(0, SERVERS, &answer);
    let service = config.services.remove(0);
    config.services[0].id = 1;
    bed.publish(&config);
    for (side, frame) in [
        (CLIENTS, request(1).packet(ACK, b"")),
        (SERVERS, answer.clone()),
    ] {
        let before = bed.books();
        assert!(bed.send(0, side, &frame).is_empty());
        assert_eq!(bed.moved(&before)["exceptions"], 1);
    }
    let other = Talk::udp("[fd00:64::7]:9", "[fd00:a::100]:53");
    bed.send_one(0, CLIENTS, &other.packet(DATA, b"x"));
    // Another one, and the connection is known again: its server is gone.
    let mut another = service.clone();
    another.id = 0;
    another.address = socket("10.0.0.101:80");
    another.servers[0].present = false;
    config.services.push(another);
    bed.publish(&config);
    bed.send_for(0, CLIENTS, &request(1).packet(ACK, b""), Reason::ServerGone);
    assert_eq!(bed.send_one(0, SERVERS, &answer).side, CLIENTS);
}

#[test]
fn a_connection_that_is_scheduled_again_counts_until_its_successor_has_a_server() {
    let config = Config::new().with(TCP, VIP, Method::Nat, &BOTH);
    let load = config.clone().server(0).load.clone();
    load.set_thresholds(1, 1);
    let mut bed = Bed::new(&config);
    let ports: Vec<u16> = (1..=3)
        .filter(|&port| server_of(&mut bed, port, SYN) == 0)
        .collect();
    assert_eq!((ports.len(), load.overloaded()), (1, true));
    server_of(&mut bed, ports[0], ACK);
    server_of(&mut bed, ports[0], RST);
    assert_eq!(server_of(&mut bed, ports[0], SYN), 1, "it was full");
    assert_eq!((config.load(0), load.overloaded()), ((0, 0), false));
    assert_eq!(bed.connections(), 3);
}
