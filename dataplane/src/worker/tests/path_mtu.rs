//! What routers say of the way through a tunnel.
//!
//! Recorded: `tests/scenario/recorded/tun-ipip.json`, `tunnel-mtu.json`.

use super::bed::Bed;
use super::config::{CLIENTS, Config, DIRECTOR, SERVERS, ip};
use super::errors::TOO_BIG;
use super::fragments::cut;
use super::packets::{ACK, SYN, Seen, Talk, icmp_error};
use crate::packet::wire::TCP;
use crate::reason::Reason;
use conntrack::{Method, Ticks};
use scheduler::RealServerId;
use std::sync::atomic::Ordering::Relaxed;

/// Clients' and tunnels' families: every pair.
const PAIRS: [(&str, &str, &str); 4] = [
    ("10.64.0.7:40001", "10.0.0.100:80", "10.2.0.11:80"),
    ("10.64.0.7:40001", "10.0.0.100:80", "[fd00:2::11]:80"),
    ("[fd00:64::7]:40001", "[fd00:a::100]:80", "10.2.0.11:80"),
    ("[fd00:64::7]:40001", "[fd00:a::100]:80", "[fd00:2::11]:80"),
];

/// A tunnel whose router told the first of two workers of `mtu` bytes.
fn told(vip: &str, client: &str, server: &str, mtu: u32) -> (Config, Bed, Talk) {
    let config = Config::of(TCP, vip, Method::Tun, server);
    let mut bed = Bed::with_workers(&config, 2);
    let talk = Talk::tcp(client, vip);
    let tunnelled = bed.send_one(0, CLIENTS, &talk.whole(SYN, &[7; 300]));
    let outside = usize::from(server.starts_with('['));
    let router = ["10.2.0.254", "fd00:2::fe"][outside];
    let director = ip(DIRECTOR[SERVERS][outside]);
    let (kind, code, _) = TOO_BIG[outside];
    let error = icmp_error(router, director, (kind, code, mtu), &tunnelled.frame);
    bed.send_one(0, SERVERS, &error);
    (config, bed, talk)
}

#[test]
fn what_one_worker_heard_of_a_tunnel_all_heed_for_ten_minutes() {
    for (client, vip, server) in PAIRS {
        let (config, mut bed, talk) = told(vip, client, server, 1400);
        let inside = usize::from(vip.starts_with('['));
        let overhead = [20, 40][usize::from(server.starts_with('['))];
        let header = [40, 60][inside];
        let fits = 1400 - overhead - header;
        // A new configuration changes nothing in it.
        bed.publish(&config);
        bed.settle();
        let packet = |more: usize| talk.whole(ACK, &vec![7; fits + more]);
        for worker in [0, 1] {
            assert_eq!(bed.send_one(worker, CLIENTS, &packet(0)).side, SERVERS);
            let (kind, quoted) = bed.send_one(worker, CLIENTS, &packet(1)).packet().error();
            let mtu = u32::try_from(1400 - overhead).unwrap();
            assert_eq!((kind.2, quoted), (mtu, talk), "{client} {server}");
        }
        let stats = bed.stats[1].server(RealServerId(0)).unwrap();
        assert_eq!(stats.out_packets.load(Relaxed), 1, "the error it sent");
        bed.now = bed.now.after(Ticks::from_seconds(601));
        assert_eq!(bed.send_one(1, CLIENTS, &packet(1)).side, SERVERS);
    }
}

#[test]
fn what_may_be_cut_is_cut_to_a_tunnels_path() {
    let (client, vip, server) = PAIRS[0];
    let (_, mut bed, talk) = told(vip, client, server, 600);
    let lens = |seen: Vec<Seen>| -> Vec<usize> {
        assert!(seen.iter().all(|seen| seen.side == SERVERS));
        seen.iter().map(|seen| seen.packet().len).collect()
    };
    let packet = talk.packet(ACK, &[7; 700]);
    let seen = bed.send(1, CLIENTS, &packet);
    assert_eq!(lens(seen), [596, 184]);
    // Fragments that come as such, too.
    let pieces = cut(&packet, &[600], 9);
    assert_eq!(lens(bed.send(1, CLIENTS, &pieces[0])), [596, 64]);
    assert_eq!(lens(bed.send(1, CLIENTS, &pieces[1])), [160]);
    let pieces = cut(&packet, &[40], 10);
    assert_eq!(lens(bed.send(1, CLIENTS, &pieces[0])), [80]);
    assert_eq!(lens(bed.send(1, CLIENTS, &pieces[1])), [596, 144]);
}

#[test]
fn no_router_makes_a_tunnel_narrower_than_what_must_pass() {
    for (client, vip, server) in PAIRS {
        let (config, bed, _) = told(vip, client, server, 100);
        let outside = usize::from(server.starts_with('['));
        let least = match vip.starts_with('[') {
            false => [552, 1280][outside],
            true => 1280 + [20, 40][outside],
        };
        let path = config.clone().server(0).path_mtu.limit(bed.now);
        assert_eq!(path, least, "{client} {server}");
    }
}

#[test]
fn whoever_does_not_know_the_tunnel_is_not_heeded() {
    let (client, vip, server) = PAIRS[0];
    let mut config = Config::of(TCP, vip, Method::Tun, server);
    let mut bed = Bed::new(&config);
    let tunnelled = bed.send_one(0, CLIENTS, &Talk::tcp(client, vip).whole(SYN, b""));
    let mut elsewhere = tunnelled.frame.clone();
    elsewhere[14 + 19] ^= 1;
    crate::packet::sample::fix_header(&mut elsewhere);
    let mut no_connection = tunnelled.frame.clone();
    no_connection[14 + 20 + 20 + 1] ^= 1;
    for quoted in [elsewhere, no_connection] {
        let error = icmp_error("10.2.0.254", ip("10.2.0.1"), (3, 4, 600), &quoted);
        bed.send_for(0, SERVERS, &error, Reason::IcmpUnrelated);
    }
    assert_eq!(config.server(0).path_mtu.limit(bed.now), u32::MAX);
}
