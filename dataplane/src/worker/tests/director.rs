//! What the director says for itself: ARP, neighbour discovery, echo, announcements.

use super::bed::Bed;
use super::config::{CLIENTS, Config, DIRECTOR, SERVERS, director_mac, ip, mac_of};
use super::packets::{Got, icmp};
use crate::frame::Offload;
use crate::packet::wire::TCP;
use crate::packet::{Parsed, arp, ndp, parse};
use crate::port::Mac;
use crate::reason::Reason;
use crate::snapshot::Owned;
use conntrack::Method;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ASKER4: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 77);
const ASKER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x77);

/// FULLNAT of both families, and an address that the kernel holds.
fn config() -> Config {
    let mut config = Config::of(TCP, "10.0.0.100:80", Method::FullNat, "10.2.0.11:80").with(
        TCP,
        "[fd00:a::100]:80",
        Method::FullNat,
        &["[fd00:2::11]:80"],
    );
    config.owned.push((ip("10.2.0.99"), Owned::Kernel));
    config.owned.push((ip("fd00:2::99"), Owned::Kernel));
    config
}

const OURS: [&str; 8] = [
    "10.0.0.100",
    "10.2.0.200",
    "10.1.0.1",
    "10.2.0.1",
    "fd00:a::100",
    "fd00:2::200",
    "fd00:1::1",
    "fd00:2::1",
];
const OTHERS: [&str; 4] = ["10.2.0.99", "10.2.0.11", "fd00:2::99", "fd00:2::11"];

/// A host on the servers' link asks for an address.
fn question(target: IpAddr) -> Vec<u8> {
    match target {
        IpAddr::V4(target) => arp::request(mac_of(ASKER4.into()), ASKER4, target, None).to_vec(),
        IpAddr::V6(target) => {
            ndp::solicitation(mac_of(ASKER6.into()), ASKER6, target, None).to_vec()
        }
    }
}

/// Address, hardware address, and to whom a frame of the director tells it; `None` for one that asks.
fn told(frame: &[u8]) -> Option<(IpAddr, Mac, Mac)> {
    let to = Mac(frame[..6].try_into().unwrap());
    match parse(frame, &Offload::NONE) {
        Parsed::Arp => {
            let message = arp::parse(frame).unwrap();
            let tells = message.operation == arp::Operation::Reply || message.is_gratuitous();
            tells.then_some((message.sender.into(), message.sender_mac, to))
        }
        Parsed::Ipv6(packet) => match ndp::parse(frame, &packet).unwrap() {
            ndp::Message::Advertisement {
                target, target_mac, ..
            } => Some((target.into(), target_mac.unwrap(), to)),
            ndp::Message::Solicitation { .. } => None,
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_director_is_found_under_its_own_addresses_and_no_others() {
    let mut bed = Bed::new(&config());
    bed.pass(4);
    for (targets, answered) in [(&OURS[..], true), (&OTHERS[..], false)] {
        for &target in targets {
            let target = ip(target);
            bed.chatter.clear();
            let before = bed.books();
            bed.send_raw(0, SERVERS, &question(target), Offload::NONE);
            let verdict = if answered { "replied" } else { "exceptions" };
            let moved = BTreeMap::from([("received", 1), (verdict, 1)]);
            assert_eq!(bed.moved(&before), moved, "{target}");
            assert_eq!(bed.chatter.len(), usize::from(answered));
            if answered {
                let (_, side, frame) = &bed.chatter[0];
                let asker = if target.is_ipv4() {
                    ASKER4.into()
                } else {
                    ASKER6.into()
                };
                assert_eq!(*side, SERVERS);
                let expected = (target, director_mac(SERVERS), mac_of(asker));
                assert_eq!(told(frame), Some(expected));
            }
        }
    }
}

#[test]
fn whoever_wants_an_address_of_the_director_learns_that_it_is_taken() {
    let mut bed = Bed::new(&config());
    bed.pass(4);
    bed.chatter.clear();
    let prober = Mac([2, 7, 7, 7, 7, 7]);
    let vip = Ipv4Addr::new(10, 0, 0, 100);
    let probe = arp::request(prober, Ipv4Addr::UNSPECIFIED, vip, None);
    bed.send_raw(0, CLIENTS, &probe, Offload::NONE);
    let vip6: Ipv6Addr = "fd00:a::100".parse().unwrap();
    // From nowhere there is no source link-layer address option: RFC 4861 §4.3.
    let group = ndp::solicited_node(vip6);
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0], vip6.octets().as_slice()].concat();
    let mut probe = icmp(Ipv6Addr::UNSPECIFIED.into(), group.into(), message);
    probe[..6].copy_from_slice(&ndp::multicast_mac(group).0);
    probe[21] = 255;
    bed.send_raw(0, CLIENTS, &probe, Offload::NONE);
    let all_nodes = Mac([0x33, 0x33, 0, 0, 0, 1]);
    let told: Vec<_> = bed
        .chatter
        .iter()
        .filter_map(|(_, _, frame)| told(frame))
        .collect();
    assert_eq!(
        told,
        [
            (vip.into(), director_mac(CLIENTS), prober),
            (vip6.into(), director_mac(CLIENTS), all_nodes)
        ]
    );
}

/// Address and side of what was announced, counted.
fn announced(bed: &mut Bed) -> BTreeMap<(IpAddr, usize), usize> {
    let mut announced = BTreeMap::new();
    for (worker, side, frame) in std::mem::take(&mut bed.chatter) {
        let Some((address, mac, to)) = told(&frame) else {
            continue;
        };
        assert_eq!(worker, 0, "one worker speaks for all");
        assert_eq!(mac, director_mac(side));
        assert_eq!(to.0[0] & 1, 1, "everybody is told");
        *announced.entry((address, side)).or_default() += 1;
    }
    announced
}

#[test]
fn addresses_are_announced_three_times_and_later_only_new_ones() {
    let mut config = config();
    let mut bed = Bed::with_workers(&config, 2);
    bed.chatter.clear();
    bed.pass(5);
    let mut expected = BTreeMap::new();
    for (side, addresses) in DIRECTOR.iter().enumerate() {
        expected.extend(addresses.map(|address| ((ip(address), side), 3)));
        // The VIPs are on neither link: both are told.
        expected.extend(["10.0.0.100", "fd00:a::100"].map(|vip| ((ip(vip), side), 3)));
    }
    expected.extend(["10.2.0.200", "fd00:2::200"].map(|lip| ((ip(lip), SERVERS), 3)));
    assert_eq!(announced(&mut bed), expected);
    bed.pass(5);
    assert_eq!(announced(&mut bed), BTreeMap::new());

    config = config.with(TCP, "10.0.0.101:80", Method::Dr, &["10.2.0.11:80"]);
    // An address taken over from the kernel is new, too.
    for (_, owned) in &mut config.owned {
        *owned = Owned::Director;
    }
    bed.publish(&config);
    bed.pass(5);
    let mut expected = BTreeMap::new();
    expected.extend([0, 1].map(|side| ((ip("10.0.0.101"), side), 3)));
    expected.extend(["10.2.0.99", "fd00:2::99"].map(|address| ((ip(address), SERVERS), 3)));
    assert_eq!(announced(&mut bed), expected);
}

#[test]
fn many_new_addresses_are_announced_a_few_at_a_time_and_a_removed_one_no_more() {
    let mut config = Config::new();
    for host in 0..=255 {
        config
            .owned
            .push((IpAddr::from([10, 1, 7, host]), Owned::Virtual));
    }
    let mut bed = Bed::new(&config);
    bed.chatter.clear();
    bed.now = bed.now.after(conntrack::Ticks(1));
    bed.settle();
    assert!((1..=64).contains(&bed.chatter.len()));
    config.owned.pop();
    bed.publish(&config);
    bed.pass(6);
    let announced = announced(&mut bed);
    assert_eq!(
        announced.len(),
        256 + 4 - 1 + announced.len().saturating_sub(259)
    );
    let removed = announced
        .get(&(ip("10.1.7.255"), CLIENTS))
        .copied()
        .unwrap_or(0);
    assert!(removed <= 1, "not after it was removed");
    let others = announced
        .iter()
        .filter(|((address, _), _)| *address != ip("10.1.7.255"));
    assert!(
        others.clone().all(|(_, &count)| count == 3),
        "{announced:?}"
    );
}

fn echo(from: &str, to: &str) -> Vec<u8> {
    let kind = if ip(to).is_ipv4() { 8 } else { 128 };
    let message = [&[kind, 0, 0, 0, 0x12, 0x34, 0, 1], b"abcdefgh".as_slice()].concat();
    icmp(ip(from), ip(to), message)
}

#[test]
fn the_director_answers_echo_requests_to_its_addresses_alone() {
    let mut bed = Bed::new(&config());
    for target in OURS {
        let from = if ip(target).is_ipv4() {
            "10.64.0.7"
        } else {
            "fd00:64::7"
        };
        let frame = echo(from, target);
        let seen = bed.send_one(0, CLIENTS, &frame);
        let (got, sent) = (seen.packet(), Got::of(&frame));
        assert_eq!(seen.side, CLIENTS);
        assert_eq!(got.talk, sent.talk.back(), "{target}");
        assert_eq!(got.payload[4..], sent.payload[4..]);
        assert!(matches!(got.payload[0], 0 | 129));
        assert_eq!(got.ttl, 64);

        let mut wrong = frame.clone();
        *wrong.last_mut().unwrap() ^= 1;
        bed.send_for(0, CLIENTS, &wrong, Reason::BadIcmpChecksum);
    }
    for target in ["10.2.0.99", "10.2.0.11", "fd00:2::99", "fd00:2::11"] {
        let from = if ip(target).is_ipv4() {
            "10.64.0.7"
        } else {
            "fd00:64::7"
        };
        let before = bed.books();
        assert!(bed.send(0, CLIENTS, &echo(from, target)).is_empty());
        let moved = BTreeMap::from([("received", 1), ("exceptions", 1)]);
        assert_eq!(bed.moved(&before), moved, "{target}");
    }
}

#[test]
fn what_is_not_the_directors_is_left_to_the_kernel() {
    let mut bed = Bed::new(&config());
    let mut lldp = vec![0; 60];
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    let ospf = crate::packet::sample::of_protocol(&crate::packet::sample::client_v4(89), b"hello");
    let elsewhere = super::packets::Talk::tcp("10.64.0.7:1", "10.0.0.100:81");
    let reply = icmp(
        ip("10.64.0.7"),
        ip("10.0.0.100"),
        vec![0, 0, 0, 0, 0, 0, 0, 0],
    );
    let router = icmp(
        ip("fd00:1::fe"),
        ip("fd00:1::1"),
        vec![134, 0, 0, 0, 0, 0, 0, 0],
    );
    let fragment = {
        let mut frame = super::packets::Talk::udp("10.64.0.7:1", "10.2.0.99:53")
            .packet(super::packets::ACK, &[0; 16]);
        frame[20] |= 0x20;
        crate::packet::sample::fix_header(&mut frame);
        frame
    };
    let frames = [
        lldp,
        ospf,
        elsewhere.packet(super::packets::SYN, b""),
        reply,
        router,
        fragment,
    ];
    for frame in frames {
        let before = bed.books();
        assert!(bed.send(0, CLIENTS, &frame).is_empty());
        let moved = BTreeMap::from([("received", 1), ("exceptions", 1)]);
        assert_eq!(bed.moved(&before), moved, "{frame:02x?}");
    }
}
