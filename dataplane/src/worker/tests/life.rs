//! Connections from their first packet to the reuse of their entry.

use super::bed::{Bed, Limits};
use super::config::{CLIENTS, Config, METHODS, SERVERS, mac_of, socket};
use super::packets::{ACK, DATA, FIN, RST, SYN, SYN_ACK, Talk};
use crate::packet::TcpFlags;
use crate::packet::wire::{TCP, UDP};
use crate::reason::Reason;
use conntrack::Method;
use std::sync::atomic::Ordering::Relaxed;

const CLIENT: &str = "10.64.0.7:40001";
const VIP: &str = "10.0.0.100:80";

fn request() -> Talk {
    Talk::tcp(CLIENT, VIP)
}

/// Plays a conversation by NAT, true for what the server sends.
fn play(bed: &mut Bed, steps: &[(bool, TcpFlags)]) {
    let server = Talk::tcp("10.2.0.11:80", CLIENT);
    for &(from_server, flags) in steps {
        if from_server {
            bed.send_one(0, SERVERS, &server.packet(flags, b""));
        } else {
            bed.send_one(0, CLIENTS, &request().packet(flags, b""));
        }
    }
}

/// A state, the packets after the SYN that lead there, its timeout in seconds, and how it counts.
type Case = (&'static str, &'static [(bool, TcpFlags)], u32, (u32, u32));

#[test]
fn a_silent_connection_ends_when_the_timeout_of_its_state_has_passed() {
    let open = [(false, SYN), (true, SYN_ACK), (false, ACK)];
    let cases: [Case; 6] = [
        ("SYN_RECV", &[], 60, (1, 0)),
        ("ESTABLISHED", &[(true, SYN_ACK), (false, ACK)], 900, (1, 0)),
        (
            "CLOSE_WAIT",
            &[(true, SYN_ACK), (false, ACK), (false, FIN)],
            60,
            (0, 1),
        ),
        (
            "FIN_WAIT",
            &[(true, SYN_ACK), (false, ACK), (true, FIN)],
            120,
            (0, 1),
        ),
        (
            "TIME_WAIT",
            &[(true, SYN_ACK), (false, ACK), (true, FIN), (false, FIN)],
            120,
            (0, 1),
        ),
        (
            "CLOSE",
            &[(true, SYN_ACK), (false, ACK), (false, RST)],
            10,
            (0, 1),
        ),
    ];
    for (name, steps, seconds, load) in cases {
        let config = Config::of(TCP, VIP, Method::Nat, "10.2.0.11:80");
        let mut bed = Bed::new(&config);
        play(&mut bed, &open[..1]);
        play(&mut bed, steps);
        let mut names = Vec::new();
        bed.tables
            .ipv4
            .for_each(|_, view| names.push(view.state.name()));
        assert_eq!(names, [name]);
        bed.pass(seconds - 2);
        assert_eq!((config.load(0), bed.connections()), (load, 1), "{name}");
        bed.pass(4);
        assert_eq!((config.load(0), bed.connections()), ((0, 0), 0), "{name}");
        // The client's port is free again.
        play(&mut bed, &open);
        assert_eq!(config.load(0), (1, 0), "{name}");
    }
}

#[test]
fn packets_keep_a_connection_alive() {
    let config = Config::of(TCP, VIP, Method::Nat, "10.2.0.11:80").with(
        UDP,
        VIP,
        Method::Dr,
        &["10.2.0.11:80"],
    );
    let mut bed = Bed::new(&config);
    play(&mut bed, &[(false, SYN), (true, SYN_ACK), (false, ACK)]);
    let datagrams = Talk::udp(CLIENT, VIP);
    for round in 0..8 {
        bed.send_one(0, CLIENTS, &datagrams.packet(ACK, b"again"));
        if round % 3 == 0 {
            play(&mut bed, &[(round % 2 == 0, DATA)]);
        }
        bed.pass(290);
    }
    assert_eq!((config.load(0), config.load(1)), ((1, 0), (0, 1)));
    assert_eq!(bed.books()["connections"], 2);
}

#[test]
fn entries_are_used_again_when_their_connections_have_ended() {
    for method in METHODS {
        let config = Config::of(UDP, VIP, method, "10.2.0.11:80");
        let limits = Limits {
            connections: 8,
            ..Limits::default()
        };
        let mut bed = Bed::with(&config, &limits);
        for round in 0..4u16 {
            for port in 0..8 {
                let talk = Talk::udp(CLIENT, VIP).at_port(1000 + 8 * round + port);
                bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
            }
            assert_eq!(config.load(0), (0, 8));
            let another = Talk::udp(CLIENT, VIP).at_port(9);
            bed.send_for(0, CLIENTS, &another.packet(SYN, b""), Reason::TableFull);
            bed.pass(305);
            assert_eq!(
                (config.load(0), bed.connections()),
                ((0, 0), 0),
                "{method:?}"
            );
        }
    }
}

#[test]
fn local_ports_come_back_and_the_gauges_say_so() {
    let mut config = Config::of(TCP, VIP, Method::FullNat, "10.2.0.11:80");
    config.services[0].lips[0].first_port = 5000;
    config.services[0].lips[0].last_port = 5003;
    let mut bed = Bed::new(&config);
    let gauges = |bed: &Bed| {
        let stats = &bed.stats[0];
        (
            stats.lip_ports.load(Relaxed),
            stats.lip_ports_in_use.load(Relaxed),
        )
    };
    for round in 0..3 {
        for port in 0..4 {
            let talk = request().at_port(1000 + port);
            let seen = bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
            assert!((5000..=5003).contains(&seen.packet().talk.source.port()));
        }
        let another = request().at_port(9);
        bed.send_for(
            0,
            CLIENTS,
            &another.packet(SYN, b""),
            Reason::LipPortsExhausted,
        );
        bed.pass(2);
        assert_eq!(gauges(&bed), (4, 4), "round {round}");
        bed.pass(65);
        assert_eq!(gauges(&bed), (4, 0), "round {round}");
    }
}

#[test]
fn a_changed_range_of_local_ports_holds_for_new_connections_and_spares_the_old() {
    let mut config = Config::of(TCP, VIP, Method::FullNat, "10.2.0.11:80");
    config.services[0].lips[0].first_port = 5000;
    config.services[0].lips[0].last_port = 5001;
    let mut bed = Bed::new(&config);
    let port_of = |bed: &mut Bed, client: u16| {
        let talk = request().at_port(client);
        let seen = bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
        seen.packet().talk.source.port()
    };
    assert_eq!([1, 2].map(|client| port_of(&mut bed, client)), [5000, 5001]);
    config.services[0].lips[0].first_port = 5001;
    config.services[0].lips[0].last_port = 5002;
    bed.publish(&config);
    assert_eq!(port_of(&mut bed, 3), 5002);
    let another = request().at_port(4).packet(SYN, b"");
    bed.send_for(0, CLIENTS, &another, Reason::LipPortsExhausted);
    // The old connections go on.
    assert_eq!([1, 2].map(|client| port_of(&mut bed, client)), [5000, 5001]);
    // And hold their ports whatever the range becomes, as does the third.
    config.services[0].lips[0].first_port = 5000;
    config.services[0].lips[0].last_port = 5001;
    bed.publish(&config);
    bed.pass(1);
    assert_eq!(bed.stats[0].lip_ports_in_use.load(Relaxed), 3);
    bed.send_for(0, CLIENTS, &another, Reason::LipPortsExhausted);
    config.services[0].lips[0].last_port = 5002;
    bed.publish(&config);
    bed.send_for(0, CLIENTS, &another, Reason::LipPortsExhausted);
    config.services[0].lips[0].last_port = 5001;
    bed.publish(&config);
    bed.pass(70);
    assert_eq!(bed.stats[0].lip_ports_in_use.load(Relaxed), 0);
    assert_eq!(bed.stats[0].lip_ports.load(Relaxed), 2);
}

#[test]
fn a_reset_met_by_another_worker_ends_the_connection_early() {
    for method in METHODS {
        let config = Config::of(TCP, VIP, method, "10.2.0.11:80");
        let mut bed = Bed::with_workers(&config, 2);
        bed.send_one(0, CLIENTS, &request().packet(SYN, b""));
        bed.send(1, CLIENTS, &request().packet(ACK, b""));
        bed.send(1, CLIENTS, &request().packet(RST, b""));
        bed.pass(1);
        assert_eq!(config.load(0), (0, 1), "{method:?}");
        bed.pass(12);
        assert_eq!(
            (config.load(0), bed.connections()),
            ((0, 0), 0),
            "{method:?}"
        );
    }
}

#[test]
fn a_syn_on_a_connection_in_time_wait_is_scheduled_again() {
    const SERVERS_OF: [&str; 2] = ["10.2.0.11:80", "10.2.0.12:80"];
    for method in METHODS {
        for worker in [0, 1] {
            let mut config = Config::new().with(TCP, VIP, method, &SERVERS_OF);
            let mut bed = Bed::with_workers(&config, 2);
            let opened = bed.send_one(0, CLIENTS, &request().packet(SYN, b""));
            let first = u32::from(opened.to() == mac_of(socket(SERVERS_OF[1]).ip()));
            if method.sees_replies() {
                let back = opened.packet().talk.back();
                bed.send_one(0, SERVERS, &back.packet(SYN_ACK, b""));
                bed.send_one(0, CLIENTS, &request().packet(ACK, b""));
                bed.send_one(0, SERVERS, &back.packet(FIN, b""));
            }
            bed.send_one(0, CLIENTS, &request().packet(FIN, b""));
            assert_eq!(config.load(first), (0, 1), "{method:?}");
            config.server(first).weight = 0;
            bed.publish(&config);

            // By FULLNAT another worker cannot give the local port back, and so the server stays.
            let stays = method == Method::FullNat && worker == 1;
            bed.send(worker, CLIENTS, &request().packet(SYN, b""));
            bed.pass(1);
            let loads = (config.load(first), config.load(1 - first));
            let expected = if stays {
                ((1, 0), (0, 0))
            } else {
                ((0, 0), (1, 0))
            };
            assert_eq!(loads, expected, "{method:?} {worker}");
            bed.pass(130);
            assert_eq!((config.load(0), config.load(1)), ((0, 0), (0, 0)));
            assert_eq!(bed.connections(), 0);
        }
    }
}

#[test]
fn a_servers_syn_on_a_closed_connection_goes_to_the_client() {
    let config = Config::of(TCP, VIP, Method::Nat, "10.2.0.11:80");
    let mut bed = Bed::new(&config);
    let steps = [(false, SYN), (true, SYN_ACK), (false, ACK), (false, RST)];
    play(&mut bed, &steps);
    let seen = bed.send_one(
        0,
        SERVERS,
        &Talk::tcp("10.2.0.11:80", CLIENT).packet(SYN, b""),
    );
    assert_eq!(seen.packet().talk, request().back());
    assert_eq!(bed.books()["connections"], 1);
}

#[test]
fn an_added_server_is_known_to_the_scheduler() {
    for scheduler in scheduler::NAMES {
        let mut config =
            Config::new().with(TCP, VIP, Method::Dr, &["10.2.0.11:80", "10.2.0.12:80"]);
        config.services[0].scheduler = scheduler;
        config.server(1).present = false;
        let mut bed = Bed::new(&config);
        bed.send_one(0, CLIENTS, &request().packet(SYN, b""));
        config.server(0).present = false;
        config.server(1).present = true;
        bed.publish(&config);
        let another = request().at_port(9).packet(SYN, b"");
        let seen = bed.send_one(0, CLIENTS, &another);
        assert_eq!(
            seen.to(),
            mac_of(socket("10.2.0.12:80").ip()),
            "{scheduler}"
        );
    }
}

#[test]
fn a_service_takes_another_scheduler() {
    let mut config = Config::new().with(TCP, VIP, Method::Dr, &["10.2.0.11:80", "10.2.0.12:80"]);
    let mut bed = Bed::new(&config);
    let used = |bed: &mut Bed, clients: std::ops::Range<u16>| {
        let to = clients.map(|port| {
            let frame = request().at_port(port).packet(SYN, b"");
            bed.send_one(0, CLIENTS, &frame).to().0
        });
        to.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(used(&mut bed, 0..10), 2, "rr takes turns");
    config.services[0].scheduler = "sh";
    bed.publish(&config);
    assert_eq!(used(&mut bed, 10..20), 1, "sh does not");
}

#[test]
fn a_server_of_weight_zero_keeps_its_connections_and_gets_no_new_ones() {
    let mut config = Config::new().with(TCP, VIP, Method::Nat, &["10.2.0.11:80", "10.2.0.12:80"]);
    config.services[0].scheduler = "wrr";
    let mut bed = Bed::new(&config);
    for port in 1..=10 {
        bed.send_one(0, CLIENTS, &request().at_port(port).packet(SYN, b""));
    }
    assert_eq!((config.load(0), config.load(1)), ((5, 0), (5, 0)));
    config.server(0).weight = 0;
    bed.publish(&config);
    for port in 1..=20 {
        let flags = if port <= 10 { ACK } else { SYN };
        bed.send_one(0, CLIENTS, &request().at_port(port).packet(flags, b""));
    }
    assert_eq!((config.load(0), config.load(1)), ((5, 0), (15, 0)));
}

#[test]
fn a_removed_server_gets_nothing_its_replies_pass_and_added_again_it_goes_on() {
    for method in METHODS {
        let mut config = Config::of(TCP, VIP, method, "10.2.0.11:80");
        let mut bed = Bed::new(&config);
        let inside = bed
            .send_one(0, CLIENTS, &request().packet(SYN, b""))
            .packet()
            .talk;
        if method.sees_replies() {
            bed.send_one(0, SERVERS, &inside.back().packet(SYN_ACK, b""));
        }
        config.server(0).present = false;
        bed.publish(&config);
        bed.send_for(0, CLIENTS, &request().packet(ACK, b""), Reason::ServerGone);
        let another = request().at_port(9).packet(SYN, b"");
        let refused = bed.send_one(0, CLIENTS, &another);
        assert_eq!(
            (refused.side, refused.packet().error().0),
            (CLIENTS, (3, 3, 0))
        );
        if method.sees_replies() {
            let seen = bed.send_one(0, SERVERS, &inside.back().packet(ACK, b""));
            assert_eq!(seen.packet().talk, request().back());
        }
        config.server(0).present = true;
        bed.publish(&config);
        let seen = bed.send_one(0, CLIENTS, &request().packet(ACK, b""));
        assert_eq!(seen.side, SERVERS, "{method:?}");
        assert_eq!(config.load(0), (1, 0));
        assert_eq!(bed.books()["connections"], 1);
    }
}

#[test]
fn a_busy_client_of_a_removed_server_is_let_go_when_its_connection_times_out() {
    let mut config = Config::new().with(UDP, VIP, Method::Nat, &["10.2.0.11:80", "10.2.0.12:80"]);
    let mut bed = Bed::new(&config);
    let talk = Talk::udp(CLIENT, VIP);
    let inside = bed
        .send_one(0, CLIENTS, &talk.packet(ACK, b"1"))
        .packet()
        .talk;
    let gone = u32::from(inside.destination != socket("10.2.0.11:80"));
    config.server(gone).present = false;
    bed.publish(&config);
    let mut seconds = 0;
    let seen = loop {
        let mut seen = bed.send(0, CLIENTS, &talk.packet(ACK, b"again"));
        if let Some(seen) = seen.pop() {
            break seen;
        }
        assert!(seconds < 310, "the connection does not end");
        bed.pass(10);
        seconds += 10;
    };
    assert!(seconds >= 300);
    assert_ne!(seen.packet().talk.destination, inside.destination);
    assert_eq!((config.load(gone), config.load(1 - gone)), ((0, 0), (0, 1)));
}

#[test]
fn schedulers_are_told_how_many_seconds_passed() {
    // lblc forgets the server of a destination that was not asked for in a day, and not before.
    let mut config = Config::new().with(TCP, VIP, Method::Dr, &["10.2.0.11:80", "10.2.0.12:80"]);
    config.services[0].scheduler = "lblc";
    let mut bed = Bed::new(&config);
    let first = bed.send_one(0, CLIENTS, &request().packet(SYN, b""));
    bed.send_one(0, CLIENTS, &request().packet(ACK, b""));
    bed.pass(600);
    let another = request().at_port(9).packet(SYN, b"");
    assert_eq!(bed.send_one(0, CLIENTS, &another).to(), first.to());
}

#[test]
fn a_first_packet_decides_whether_there_is_a_connection() {
    let config = Config::of(TCP, VIP, Method::Nat, "10.2.0.11:80");
    let mut bed = Bed::new(&config);
    for flags in [ACK, DATA, FIN, RST, TcpFlags(0), TcpFlags(6)] {
        bed.send_for(
            0,
            CLIENTS,
            &request().packet(flags, b""),
            Reason::NoConnection,
        );
    }
    for (port, flags) in [
        (1, SYN),
        (2, SYN_ACK),
        (3, TcpFlags(3)),
        (4, TcpFlags(0xc2)),
    ] {
        bed.send_one(0, CLIENTS, &request().at_port(port).packet(flags, b""));
    }
    assert_eq!(bed.books()["connections"], 4);
}
