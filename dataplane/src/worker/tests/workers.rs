//! Several workers over one table: it does not matter which of them a packet meets.

use super::bed::Bed;
use super::config::{CLIENTS, Config, SERVERS, socket};
use super::packets::{ACK, DATA, FIN, RST, SYN, SYN_ACK, Talk};
use crate::packet::wire::{TCP, UDP};
use crate::port::{Burst, Port};
use crate::reason::Reason;
use conntrack::Method;
use std::sync::atomic::Ordering::Relaxed;

const CLIENT: &str = "10.64.0.7:40001";
const VIP: &str = "10.0.0.100:80";

#[test]
fn a_connection_goes_on_at_whatever_worker_its_packets_meet() {
    for method in [Method::Nat, Method::FullNat] {
        let config = Config::of(TCP, VIP, method, "10.2.0.11:8080");
        let mut bed = Bed::with_workers(&config, 2);
        let request = Talk::tcp(CLIENT, VIP);
        let inside = bed
            .send_one(0, CLIENTS, &request.packet(SYN, b""))
            .packet()
            .talk;
        let steps = [
            (1, SERVERS, SYN_ACK, (1, 0)),
            (0, CLIENTS, ACK, (1, 0)),
            (1, CLIENTS, DATA, (1, 0)),
            (0, SERVERS, DATA, (1, 0)),
            (1, CLIENTS, FIN, (0, 1)),
            (0, SERVERS, FIN, (0, 1)),
            (1, CLIENTS, ACK, (0, 1)),
        ];
        for (worker, side, flags, load) in steps {
            let (sent, expected) = if side == CLIENTS {
                (request, inside)
            } else {
                (inside.back(), request.back())
            };
            let seen = bed.send_one(worker, side, &sent.packet(flags, b"data"));
            assert_eq!(seen.packet().talk, expected, "{method:?}");
            assert_eq!((seen.side, seen.worker), (1 - side, worker));
            assert_eq!(config.load(0), load, "{method:?}");
        }
        assert_eq!(bed.books()["connections"], 1);
        bed.pass(125);
        assert_eq!((config.load(0), bed.connections()), ((0, 0), 0));
    }
}

#[test]
fn the_workers_rounds_start_at_different_servers() {
    let config = Config::new().with(TCP, VIP, Method::Dr, &["10.2.0.11:80", "10.2.0.12:80"]);
    let mut bed = Bed::with_workers(&config, 2);
    for worker in 0..2u16 {
        let frame = Talk::tcp(CLIENT, VIP).at_port(worker).packet(SYN, b"");
        bed.send(worker.into(), CLIENTS, &frame);
    }
    assert_eq!((config.load(0), config.load(1)), ((1, 0), (1, 0)));
}

#[test]
fn two_workers_that_get_a_syn_at_once_make_one_connection() {
    for method in [Method::Nat, Method::Dr, Method::Tun, Method::FullNat] {
        let config = Config::of(TCP, VIP, method, "10.2.0.11:80");
        let mut bed = Bed::with_workers(&config, 2);
        let mut frame = Talk::tcp(CLIENT, VIP).packet(SYN, b"");
        super::bed::address(&mut frame, CLIENTS);
        for wires in &bed.wires {
            assert!(wires[CLIENTS].inject(&frame));
        }
        // The second worker's packet waited for a neighbour that answered the first: a tick later it goes.
        let mut seen = bed.settle();
        seen.append(&mut bed.pass(1));
        let [first, second] = [&seen[0], &seen[1]].map(|seen| seen.packet());
        // The outer header of a tunnel has an identification of its own.
        assert_eq!(first.talk, second.talk);
        assert_eq!((config.load(0), bed.connections()), ((1, 0), 1));
        bed.pass(65);
        assert_eq!((config.load(0), bed.connections()), ((0, 0), 0));
    }
}

#[test]
fn workers_in_threads_agree_about_every_connection() {
    const FLOWS: u16 = 500;
    for method in [Method::Nat, Method::FullNat] {
        let config = Config::of(TCP, VIP, method, "10.2.0.11:8080").with(
            UDP,
            VIP,
            method,
            &["10.2.0.11:8080"],
        );
        let mut bed = Bed::with_workers(&config, 2);
        // The hosts answer first, so that no packet waits.
        let warm_up = Talk::tcp(CLIENT, VIP).at_port(1);
        bed.send(0, CLIENTS, &warm_up.packet(SYN, b""));
        bed.send(0, CLIENTS, &warm_up.packet(RST, b""));
        let inside = bed.send(0, CLIENTS, &warm_up.packet(DATA, b""));
        bed.send(0, SERVERS, &inside[0].packet().talk.back().packet(RST, b""));
        bed.pass(15);
        assert_eq!((config.load(0), bed.connections()), ((0, 0), 0));
        for port in 0..FLOWS {
            for wires in &bed.wires {
                for protocol in [TCP, UDP] {
                    let talk = Talk::new(protocol, CLIENT, VIP).at_port(1000 + port);
                    let mut frame = talk.packet(SYN, b"");
                    super::bed::address(&mut frame, CLIENTS);
                    assert!(wires[CLIENTS].inject(&frame));
                }
            }
        }
        let now = bed.now;
        std::thread::scope(|scope| {
            for worker in &mut bed.workers {
                scope.spawn(move || while worker.run_once(now) > 0 {});
            }
        });
        let seen = bed.settle();
        // A worker that meets the other one halfway through the same connection does not wait for it.
        let contended = bed.books().get("table-full").copied().unwrap_or(0);
        assert_eq!(contended, bed.tables.ipv4.statistics().inserts_contended);
        assert_eq!(
            seen.len() as u64 + contended,
            u64::from(FLOWS) * 4,
            "{:?}",
            bed.books()
        );
        let mut by_client = std::collections::BTreeMap::new();
        for seen in seen {
            let got = seen.packet();
            assert_eq!(got.talk.destination, socket("10.2.0.11:8080"));
            *by_client
                .entry((got.talk.protocol, got.talk.source))
                .or_insert(0) += 1;
        }
        assert_eq!(by_client.len(), usize::from(FLOWS) * 2, "{method:?}");
        assert!(
            by_client.values().all(|&count| count == 1 || count == 2),
            "{method:?}"
        );
        assert_eq!(config.load(0), (u32::from(FLOWS), 0));
        assert_eq!(config.load(1), (0, u32::from(FLOWS)));
        bed.pass(320);
        assert_eq!((config.load(0), config.load(1)), ((0, 0), (0, 0)));
        assert_eq!(bed.connections(), 0);
    }
}

#[test]
fn a_server_that_one_worker_has_not_heard_of_is_counted_right() {
    let mut config = Config::new().with(TCP, VIP, Method::Nat, &["10.2.0.11:80", "10.2.0.12:80"]);
    config.ipvs.expire_nodest_conn = true;
    let mut newer = config.clone();
    newer.server(0).present = false;
    config.services[0].servers.pop();
    let mut bed = Bed::with_workers(&config, 2);
    // One worker takes the new server over and connects a client to it, while the other is busy with a burst.
    bed.publish(&newer);
    let talk = Talk::tcp(CLIENT, VIP);
    let request = |flags| {
        let mut frame = talk.packet(flags, b"");
        super::bed::address(&mut frame, CLIENTS);
        frame
    };
    assert!(bed.wires[0][CLIENTS].inject(&request(SYN)));
    bed.workers[0].run_once(bed.now);
    assert_eq!(newer.load(1), (1, 0));
    let inside = Talk::new(TCP, CLIENT, "10.2.0.12:80");
    let mut reset = inside.back().packet(RST, b"");
    super::bed::address(&mut reset, SERVERS);
    for (side, frame) in [(SERVERS, reset), (CLIENTS, request(SYN))] {
        assert!(bed.wires[1][side].inject(&frame));
        bed.stats[1].verdicts.received.fetch_add(1, Relaxed);
        let mut burst = Burst::new();
        let worker = &mut bed.workers[1];
        worker.ports_mut()[side].receive(&mut burst);
        worker.handle(&mut burst);
    }
    assert_eq!(newer.load(1), (1, 0));
    bed.pass(1);
    assert_eq!(bed.books()[Reason::ServerGone.name()], 2);
    bed.pass(70);
    assert_eq!((newer.load(1), bed.connections()), ((0, 0), 0));
}
