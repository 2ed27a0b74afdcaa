//! Clients that stay with their server.

use super::bed::{Bed, Limits};
use super::config::{CLIENTS, Config, SERVERS};
use super::packets::{ACK, SYN, SYN_ACK, Talk};
use crate::calls::{CALL_ID_LEN, CallId};
use crate::packet::wire::{TCP, UDP};
use crate::reason::Reason;
use crate::snapshot::{Engine, Persistence};
use conntrack::{ConnectionView, Method, State, Ticks, V4};
use std::net::SocketAddr;

const VIP: &str = "10.0.0.100:80";
const THREE: [&str; 3] = ["10.2.0.11:80", "10.2.0.12:80", "10.2.0.13:80"];
const PERSISTENCE: Persistence = Persistence {
    timeout: Ticks::from_seconds(10),
    mask: u128::MAX,
    engine: None,
};

fn persistent(protocol: u8) -> Config {
    let mut config = Config::new().with(protocol, VIP, Method::Nat, &THREE);
    config.services[0].persistence = Some(PERSISTENCE);
    config
}

fn server_of(bed: &mut Bed, worker: usize, client: &str) -> SocketAddr {
    let frame = Talk::tcp(client, VIP).packet(SYN, b"");
    let seen = bed.send_one(worker, CLIENTS, &frame);
    seen.packet().talk.destination
}

fn templates(bed: &Bed) -> Vec<ConnectionView<V4>> {
    let mut found = Vec::new();
    bed.tables.ipv4.for_each(|_, view| {
        if view.flags & conntrack::TEMPLATE != 0 {
            found.push(view);
        }
    });
    found
}

#[test]
fn a_client_stays_whatever_its_port_and_worker() {
    let mut bed = Bed::with_workers(&persistent(TCP), 2);
    let first = server_of(&mut bed, 0, "10.64.0.7:1");
    assert_ne!(server_of(&mut bed, 0, "10.64.0.8:1"), first);
    for port in 2..6 {
        let client = format!("10.64.0.7:{port}");
        assert_eq!(
            server_of(&mut bed, usize::from(port % 2 == 0), &client),
            first
        );
    }
    assert_eq!(templates(&bed).len(), 2);
}

#[test]
fn a_template_is_renewed_while_it_has_connections_and_goes_with_the_last() {
    let config = persistent(TCP);
    let mut bed = Bed::new(&config);
    let first = server_of(&mut bed, 0, "10.64.0.7:1");
    bed.pass(55);
    assert_eq!(
        templates(&bed).len(),
        1,
        "the connection is half open, and lasts a minute"
    );
    assert_eq!(server_of(&mut bed, 0, "10.64.0.7:2"), first);
    bed.pass(62);
    assert_eq!(templates(&bed).len(), 1);
    bed.pass(70);
    assert_eq!((templates(&bed).len(), bed.connections()), (0, 0));
    assert_eq!(
        (0..3).map(|id| config.load(id)).collect::<Vec<_>>(),
        [(0, 0); 3]
    );
    let persistent = |id: u32| config.clone().server(id).load.persistent();
    assert_eq!((0..3).map(persistent).sum::<u32>(), 0);
}

#[test]
fn a_drained_servers_clients_stay_unless_templates_expire_with_it() {
    for expire in [false, true] {
        let mut config = persistent(TCP);
        config.ipvs.expire_quiescent_template = expire;
        config.services[0].scheduler = "wrr";
        let mut bed = Bed::new(&config);
        let first = server_of(&mut bed, 0, "10.64.0.7:1");
        let place = THREE
            .iter()
            .position(|server| first == server.parse().unwrap());
        config.server(u32::try_from(place.unwrap()).unwrap()).weight = 0;
        bed.publish(&config);
        assert_eq!(server_of(&mut bed, 0, "10.64.0.7:2") != first, expire);
        let mut ports: Vec<_> = templates(&bed)
            .iter()
            .map(|view| (view.client.1, view.virtual_server.1, view.real_server.1))
            .collect();
        ports.sort_unstable();
        let voided = (0, 65535, 65535);
        assert_eq!(
            ports,
            if expire {
                vec![(0, 80, 80), voided]
            } else {
                vec![(0, 80, 80)]
            }
        );
    }
}

#[test]
fn a_template_is_assured_by_an_established_connection_or_an_answered_datagram() {
    for protocol in [TCP, UDP] {
        let mut bed = Bed::new(&persistent(protocol));
        let talk = Talk::new(protocol, "10.64.0.7:1", VIP);
        let asked = bed
            .send_one(0, CLIENTS, &talk.packet(SYN, b""))
            .packet()
            .talk;
        assert_eq!(templates(&bed)[0].state, State::None);
        bed.send_one(0, SERVERS, &asked.back().packet(SYN_ACK, b""));
        if protocol == TCP {
            assert_eq!(templates(&bed)[0].state, State::None);
            bed.send_one(0, CLIENTS, &talk.packet(ACK, b""));
        }
        assert_eq!(templates(&bed)[0].state, State::Assured, "{protocol}");
    }
}

#[test]
fn flows_that_are_refused_leave_no_template() {
    let config = persistent(TCP);
    let limits = Limits {
        connections: 100,
        half_open_percent: 10,
        ..Limits::default()
    };
    let mut bed = Bed::with(&config, &limits);
    for client in 0..80 {
        let frame = Talk::tcp(&format!("10.64.1.{client}:1"), VIP).packet(SYN, b"");
        if client < 10 {
            bed.send_one(0, CLIENTS, &frame);
        } else {
            bed.send_for(0, CLIENTS, &frame, Reason::HalfOpenFull);
        }
    }
    assert_eq!((templates(&bed).len(), bed.connections()), (10, 20));
    let persistent = |id: u32| config.clone().server(id).load.persistent();
    assert_eq!((0..3).map(persistent).sum::<u32>(), 10);
}

#[test]
fn a_flood_leaves_the_templates_of_those_who_mean_it() {
    let mut config = persistent(TCP);
    let timeout = Ticks::from_seconds(600);
    config.services[0].persistence = Some(Persistence {
        timeout,
        ..PERSISTENCE
    });
    let limits = Limits {
        connections: 200,
        half_open_percent: 43,
        ..Limits::default()
    };
    let mut bed = Bed::with(&config, &limits);
    let client = |number: u32| Talk::tcp(&format!("10.64.1.{number}:1"), VIP);
    for number in 0..80 {
        let frame = client(number).packet(SYN, b"");
        bed.send_one(0, CLIENTS, &frame);
        if number == 50 {
            // Again and again is not in earnest.
            bed.send_one(0, CLIENTS, &client(number).at_port(2).packet(SYN, b""));
        }
        if number == 60 {
            bed.send_one(0, CLIENTS, &client(60).packet(ACK, b""));
        }
    }
    assert_eq!(templates(&bed).len(), 80);
    bed.pass(75);
    // 44 came before there were too many, and one was established.
    let mut left: Vec<_> = templates(&bed).iter().map(|view| view.client.0).collect();
    left.sort_unstable();
    assert_eq!(left.len(), 45);
    assert_eq!(left[44], std::net::Ipv4Addr::new(10, 64, 1, 60));
    bed.pass(500);
    assert_eq!(templates(&bed).len(), 45, "as long as the service says");
    bed.pass(800);
    assert_eq!((templates(&bed).len(), bed.connections()), (0, 0));
}

fn invite(call: &str) -> Vec<u8> {
    format!("INVITE sip:a@example.test SIP/2.0\r\nCall-ID: {call}\r\n\r\n").into_bytes()
}

#[test]
fn a_thousand_calls_of_one_client_keep_their_servers_and_leave_nothing_behind() {
    let mut config = persistent(UDP);
    config.services[0].one_packet = true;
    config.services[0].persistence = Some(Persistence {
        engine: Some(Engine::Sip),
        ..PERSISTENCE
    });
    let mut bed = Bed::new(&config);
    bed.tables.calls.prepare();
    let server_of = |bed: &mut Bed, call: &str| {
        let frame = Talk::udp("10.64.0.7:5060", VIP).packet(ACK, &invite(call));
        bed.send_one(0, CLIENTS, &frame).packet().talk.destination
    };
    let calls: Vec<_> = (0..1000)
        .map(|call| format!("call-{call}@example.test"))
        .collect();
    let first: Vec<_> = calls.iter().map(|call| server_of(&mut bed, call)).collect();
    let again: Vec<_> = calls.iter().map(|call| server_of(&mut bed, call)).collect();
    assert!(first == again);
    let shares = THREE.map(|server| {
        first
            .iter()
            .filter(|found| **found == server.parse().unwrap())
            .count()
    });
    assert_eq!(shares.iter().max(), Some(&334));
    assert_eq!(bed.tables.calls.in_use(), 1000);
    let long = "x".repeat(CALL_ID_LEN);
    assert_eq!(server_of(&mut bed, &long), server_of(&mut bed, &long));
    bed.pass(40);
    assert_eq!((bed.tables.calls.in_use(), templates(&bed).len()), (0, 0));
}

#[test]
fn a_client_that_speaks_from_the_port_of_a_calls_template_is_translated() {
    for one_packet in [false, true] {
        let mut config = persistent(UDP);
        config.services[0].one_packet = one_packet;
        config.services[0].persistence = Some(Persistence {
            engine: Some(Engine::Sip),
            ..PERSISTENCE
        });
        let mut bed = Bed::new(&config);
        bed.tables.calls.prepare();
        let id = CallId::new(b"call").unwrap();
        let place = bed.tables.calls.place(&id).max(1);
        for (port, call) in [(place ^ 2, "call"), (place, "another"), (place, "another")] {
            let talk = Talk::udp("10.64.0.7:5060", VIP).at_port(port);
            let got = bed
                .send_one(0, CLIENTS, &talk.packet(ACK, &invite(call)))
                .packet();
            assert_eq!(got.talk.source, talk.source);
            assert!(
                THREE
                    .map(|server| server.parse().unwrap())
                    .contains(&got.talk.destination)
            );
        }
    }
}
