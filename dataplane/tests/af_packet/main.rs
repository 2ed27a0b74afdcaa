//! The port `af_packet` against the kernel, through veth pairs. Needs root, iproute2 and ethtool, and fails without.

mod links;
mod namespace;
mod room;

use dataplane::frame::{Gso, Offload};
use dataplane::port::af_packet::{self, AfPacketPort, Config, Fanout, OpenError};
use dataplane::port::handle::{Link, PortHandle};
use dataplane::port::{BURST, Burst, Mac, Port, PortId, Sent};
use namespace::Namespace;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// An EtherType for experiments: the kernel's stack has no use for it.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// A frame for the other end of the pair, with a number in it.
fn numbered(to: Mac, len: usize, number: u32) -> Vec<u8> {
    let mut frame = [
        &to.0[..],
        &[2, 0, 0, 0, 0, 99],
        &EXPERIMENTAL,
        &number.to_be_bytes(),
    ]
    .concat();
    frame.resize(len, 0xa5);
    frame
}

/// Frames of the kernel's own (IPv6 finds its neighbours on a new link) are not what the tests count.
fn number_of(frame: &[u8]) -> Option<u32> {
    (frame[12..14] == EXPERIMENTAL)
        .then(|| u32::from_be_bytes(frame[14..18].try_into().expect("four bytes")))
}

fn open(namespace: &Namespace, config: Config) -> Vec<AfPacketPort> {
    namespace
        .run(move || af_packet::open(config))
        .expect("the interface is there and up")
        .queues
}

/// A port and what tells of it.
fn open_with_handle(namespace: &Namespace, interface: &str) -> (AfPacketPort, Arc<dyn PortHandle>) {
    let config = Config::new(PortId(0), interface);
    let opened = namespace.run(move || af_packet::open(config));
    let mut opened = opened.expect("the interface is there and up");
    (opened.queues.remove(0), opened.handle)
}

fn statistic(handle: &Arc<dyn PortHandle>, name: &str) -> u64 {
    let statistics = handle.statistics();
    let found = statistics.iter().find(|(of, _)| of == name);
    found.unwrap_or_else(|| panic!("{name}: {statistics:?}")).1
}

fn open_one(namespace: &Namespace, interface: &str) -> AfPacketPort {
    open(namespace, Config::new(PortId(0), interface)).remove(0)
}

/// Two namespaces, a veth pair, and a port at each end.
fn pair() -> (Namespace, Namespace, AfPacketPort, AfPacketPort) {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    let ports = (open_one(&left, "left0"), open_one(&right, "right0"));
    (left, right, ports.0, ports.1)
}

/// The numbers of the frames that arrive until `count` have or nothing more comes.
fn receive_numbers(port: &mut AfPacketPort, count: usize) -> Vec<u32> {
    let (mut numbers, mut burst) = (Vec::new(), Burst::new());
    let deadline = Instant::now() + Duration::from_secs(5);
    while numbers.len() < count && Instant::now() < deadline {
        port.receive(&mut burst);
        for frame in burst.drain(..) {
            numbers.extend(number_of(frame.bytes()));
            port.release(frame);
        }
    }
    numbers
}

#[test]
fn small_frames_pass_both_ways_and_as_they_are() {
    let (_a, _b, mut left, mut right) = pair();
    assert_eq!(left.info().mac, Mac([2, 0, 0, 0, 0, 0x10]));
    assert_eq!((left.info().mtu, left.info().driver), (1500, "af_packet"));
    let (started, mut burst, mut next) = (Instant::now(), Burst::new(), 0);
    while next < 200_000 {
        for number in next..next + 32 {
            assert!(left.send(&numbered(right.info().mac, 60, number), &Offload::NONE));
        }
        left.flush();
        // There and, without a copy by the caller, back again.
        let mut returned = 0;
        while returned < 32 {
            right.receive(&mut burst);
            for mut frame in burst.drain(..) {
                if number_of(frame.bytes()).is_none() {
                    right.release(frame);
                    continue;
                }
                assert!(frame.headroom() >= 128);
                assert_eq!(frame.offload, Offload::NONE);
                frame.bytes_mut()[..6].copy_from_slice(&left.info().mac.0);
                assert!(matches!(right.transmit(frame), Sent::Taken));
            }
            right.flush();
            left.receive(&mut burst);
            for frame in burst.drain(..) {
                if number_of(frame.bytes()).is_some() {
                    assert_eq!(
                        frame.bytes(),
                        numbered(left.info().mac, 60, next + returned)
                    );
                    returned += 1;
                }
                left.release(frame);
            }
        }
        next += 32;
    }
    let rate = 2.0 * f64::from(next) / started.elapsed().as_secs_f64();
    println!("60-byte frames there and back on one core: {rate:.0} frames/s");
    assert_eq!((left.counters(), right.counters()), Default::default());
}

/// What a forwarder of these tests has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    frames: u64,
    segmented: u64,
    longest: usize,
    offload: Option<Offload>,
}

/// Passes IP packets between two ports, to these neighbours, until told to stop.
fn forward(mut ports: [AfPacketPort; 2], neighbours: [Mac; 2], stop: &AtomicBool) -> Seen {
    let (mut seen, mut burst) = (Seen::default(), Burst::new());
    while !stop.load(Relaxed) {
        let mut received = 0;
        for from in 0..2 {
            received += ports[from].receive(&mut burst);
            let [first, second] = &mut ports;
            let (origin, to) = if from == 0 {
                (first, second)
            } else {
                (second, first)
            };
            for mut frame in burst.drain(..) {
                if !matches!(frame.bytes()[12..14], [0x08, 0x00] | [0x86, 0xdd])
                    || frame.bytes()[0] & 1 == 1
                {
                    origin.release(frame);
                    continue;
                }
                seen.frames += 1;
                seen.longest = seen.longest.max(frame.bytes().len());
                if frame.offload.gso != Gso::None {
                    seen.segmented += 1;
                    seen.offload = Some(frame.offload);
                }
                frame.bytes_mut()[..6].copy_from_slice(&neighbours[1 - from].0);
                frame.bytes_mut()[6..12].copy_from_slice(&to.info().mac.0);
                match to.transmit(frame) {
                    Sent::Copied(frame) | Sent::Refused(frame) => origin.release(frame),
                    Sent::Taken => unreachable!("it is another port's frame"),
                }
            }
            to.flush();
        }
        if received == 0 {
            let fds = ports
                .each_ref()
                .map(|port| port.wait_on().expect("a socket"));
            let mut fds = fds.map(|fd| nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN));
            nix::poll::poll(&mut fds, 10u8).expect("the descriptors are open");
        }
    }
    seen
}

const TRANSFER_LEN: usize = 50_000_000;

/// The stream that is sent: no two blocks are alike.
fn stream() -> impl Iterator<Item = Vec<u8>> {
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        std::iter::repeat_with(|| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()
        })
        .take(12_500)
        .flatten()
        .collect()
    })
    .take(TRANSFER_LEN / 100_000)
}

/// Sends 50 MB from a client to a server through a forwarder and compares them.
fn transfer(client_address: &str, server_address: &str, without_segmentation: bool) -> Seen {
    let (client, director, server) = (Namespace::new(), Namespace::new(), Namespace::new());
    director.veth("d0", 0x20, &client, "c0");
    director.veth("d1", 0x30, &server, "s0");
    for (namespace, interface, own, other, mac) in [
        (&client, "c0", client_address, server_address, 0x20),
        (&server, "s0", server_address, client_address, 0x30),
    ] {
        let (len, nodad) = if own.contains(':') {
            (64, " nodad")
        } else {
            (24, "")
        };
        namespace.ip(&format!("address add {own}/{len} dev {interface}{nodad}"));
        namespace.ip(&format!(
            "neighbour add {other} lladdr 02:00:00:00:00:{mac:02x} dev {interface}"
        ));
    }
    if without_segmentation {
        director.command("ethtool", "-K d1 tso off gso off tx off");
    }
    let config = |id, interface| Config::new(PortId(id), interface);
    let [d0, d1] =
        [config(0, "d0"), config(1, "d1")].map(|config| open(&director, config).remove(0));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let neighbours = [0x21, 0x31].map(|mac| Mac([2, 0, 0, 0, 0, mac]));
    let forwarder = director.spawn(move || forward([d0, d1], neighbours, &stopped));

    let ip: IpAddr = server_address.parse().expect("an address");
    let listener = server
        .run(move || TcpListener::bind(SocketAddr::new(ip, 7000)).expect("the address is ours"));
    let receiver = server.spawn(move || {
        let (mut connection, _) = listener.accept().expect("the client connects");
        let mut all = Vec::with_capacity(TRANSFER_LEN);
        connection
            .read_to_end(&mut all)
            .expect("the connection holds");
        all
    });
    let blocks: Vec<Vec<u8>> = stream().collect();
    let expected = blocks.concat();
    let started = Instant::now();
    let sender = client.spawn(move || {
        let address = SocketAddr::new(ip, 7000);
        let mut connection =
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).expect("it answers");
        blocks
            .iter()
            .for_each(|block| connection.write_all(block).expect("the connection holds"));
    });
    sender.join().expect("the sender is done");
    let received = receiver.join().expect("the receiver is done");
    let seconds = started.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    let seen = forwarder.join().expect("the forwarder was told to stop");
    assert!(
        received == expected,
        "{} bytes arrived, and others than were sent",
        received.len()
    );
    println!(
        "{client_address}: {:.0} MB/s; {seen:?}",
        f64::from(50_000_000) / 1e6 / seconds
    );
    seen
}

#[test]
fn tcp_over_ipv4_passes_in_segments_of_up_to_64_kib() {
    let seen = transfer("10.9.0.1", "10.9.0.2", false);
    assert!(seen.segmented > 100 && seen.longest > 60_000, "{seen:?}");
    let offload = seen.offload.expect("some were segmented");
    assert!(
        matches!(offload.gso, Gso::Tcp4 { .. }) && offload.partial_checksum,
        "{offload:?}"
    );
    assert_eq!(
        (
            offload.checksum_start,
            offload.checksum_offset,
            offload.segment_len
        ),
        (34, 16, 1448)
    );
}

#[test]
fn tcp_over_ipv6_passes_in_segments_of_up_to_64_kib() {
    let seen = transfer("fd00:9::1", "fd00:9::2", false);
    assert!(seen.segmented > 100 && seen.longest > 60_000, "{seen:?}");
    let offload = seen.offload.expect("some were segmented");
    assert!(
        matches!(offload.gso, Gso::Tcp6 { .. }) && offload.partial_checksum,
        "{offload:?}"
    );
    assert_eq!(
        (
            offload.checksum_start,
            offload.checksum_offset,
            offload.segment_len
        ),
        (54, 16, 1428)
    );
}

#[test]
fn an_interface_that_cannot_cut_segments_has_them_cut() {
    let seen = transfer("10.9.0.1", "10.9.0.2", true);
    assert!(seen.segmented > 100 && seen.longest > 60_000, "{seen:?}");
}

/// A UDP datagram of the flow `source_port` → 53, numbered behind its header.
fn datagram(to: Mac, source_port: u16, number: u32) -> Vec<u8> {
    let mut frame = [&to.0[..], &[2, 0, 0, 0, 0, 99, 8, 0]].concat();
    frame.extend([
        0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 1, 203, 0, 113, 1,
    ]);
    frame.extend(source_port.to_be_bytes());
    frame.extend([0, 53, 0, 12, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame
}

#[test]
fn two_workers_share_the_frames_and_lose_none() {
    for fanout in [Fanout::Hash, Fanout::RoundRobin, Fanout::Cpu] {
        let (left, right) = (Namespace::new(), Namespace::new());
        left.veth("left0", 0x10, &right, "right0");
        let mut sender = open_one(&left, "left0");
        let mut workers = open(
            &right,
            Config {
                workers: 2,
                fanout,
                ..Config::new(PortId(0), "right0")
            },
        );
        let to = workers[0].info().mac;
        let (mut numbers, mut shares, mut burst) = (HashSet::new(), [0, 0], Burst::new());
        for number in 0..20_000u32 {
            let source_port = 1024 + u16::try_from(number % 1000).expect("small");
            assert!(sender.send(&datagram(to, source_port, number), &Offload::NONE));
            if number % 32 == 31 {
                sender.flush();
                let before = numbers.len();
                let deadline = Instant::now() + Duration::from_secs(1);
                while numbers.len() < before + 32 && Instant::now() < deadline {
                    for (worker, share) in workers.iter_mut().zip(&mut shares) {
                        worker.receive(&mut burst);
                        for frame in burst.drain(..) {
                            if let (Some([8, 0]), Some(number)) =
                                (frame.bytes().get(12..14), frame.bytes().get(42..46))
                            {
                                let number =
                                    u32::from_be_bytes(number.try_into().expect("four bytes"));
                                assert!(numbers.insert(number), "{number} arrived twice");
                                *share += 1;
                            }
                            worker.release(frame);
                        }
                    }
                }
            }
        }
        println!("{fanout:?}: {shares:?}");
        assert_eq!(numbers.len(), 20_000);
        assert!(
            fanout == Fanout::Cpu || shares.iter().all(|&share| share > 2_000),
            "{shares:?}"
        );
        assert!(
            workers
                .iter_mut()
                .all(|worker| worker.counters().receive_missed == 0)
        );
    }
}

#[test]
fn a_vlan_tag_is_where_it_was() {
    let (_a, _b, mut left, mut right) = pair();
    let mut sent = numbered(right.info().mac, 100, 1);
    sent.splice(12..12, [0x88, 0xa8, 0x60, 0x2a, 0x81, 0x00, 0x00, 0x07]);
    assert!(left.send(&sent, &Offload::NONE));
    left.flush();
    let (mut burst, deadline) = (Burst::new(), Instant::now() + Duration::from_secs(5));
    loop {
        assert!(Instant::now() < deadline, "the frame did not arrive");
        right.receive(&mut burst);
        let found = burst.drain(..).fold(false, |found, frame| {
            let same = frame.bytes() == sent;
            right.release(frame);
            found || same
        });
        if found {
            break;
        }
    }
}

#[test]
fn frames_for_others_are_left_alone_and_multicast_is_received() {
    let (_a, _b, mut left, mut right) = pair();
    let others = Mac([2, 0, 0, 0, 0, 0x77]);
    let group = Mac([0x33, 0x33, 0xff, 1, 2, 3]);
    for (to, number) in [
        (others, 1),
        (group, 2),
        (Mac([0xff; 6]), 3),
        (right.info().mac, 4),
    ] {
        assert!(left.send(&numbered(to, 60, number), &Offload::NONE));
    }
    left.flush();
    assert_eq!(receive_numbers(&mut right, 3), [2, 3, 4]);
    assert_eq!(right.counters().receive_missed, 0);
}

#[test]
fn a_slot_that_is_held_stops_the_ring_and_is_no_frame_again() {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    let mut sender = open_one(&left, "left0");
    let mut port = open(
        &right,
        Config {
            receive_slots: 30,
            ..Config::new(PortId(0), "right0")
        },
    )
    .remove(0);
    std::thread::sleep(Duration::from_millis(50));
    let to = port.info().mac;
    let (mut burst, mut held) = (Burst::new(), None);
    let mut sent = 0;
    let mut send = |count: u32| {
        for number in sent..sent + count {
            assert!(sender.send(&numbered(to, 60, number), &Offload::NONE));
        }
        sender.flush();
        sent += count;
    };
    send(1);
    let deadline = Instant::now() + Duration::from_secs(5);
    while held.is_none() && Instant::now() < deadline {
        port.receive(&mut burst);
        for frame in burst.drain(..) {
            match number_of(frame.bytes()) {
                Some(0) => held = Some(frame),
                _ => port.release(frame),
            }
        }
    }
    let held = held.expect("the first frame arrives");
    // Of 32 slots, which are a block, 31 are left; the kernel may have used one or two for frames of its own.
    send(50);
    let numbers = receive_numbers(&mut port, 31);
    assert!((22..32).contains(&numbers.len()), "{numbers:?}");
    assert!(
        numbers
            .iter()
            .copied()
            .eq(1..=u32::try_from(numbers.len()).expect("small")),
        "{numbers:?}"
    );
    assert!(port.counters().receive_missed >= 10);
    assert_eq!(number_of(held.bytes()), Some(0), "nobody wrote over it");
    port.release(held);
    send(10);
    assert!(receive_numbers(&mut port, 10).into_iter().eq(51..61));
}

#[test]
fn a_full_ring_and_a_long_frame_are_refused() {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    let config = Config {
        transmit_slots: 15,
        ..Config::new(PortId(0), "left0")
    };
    let (mut left, mut right) = (open(&left, config).remove(0), open_one(&right, "right0"));
    assert!(!left.send(&vec![0; 70_000], &Offload::NONE));
    let frame = numbered(right.info().mac, 60, 5);
    assert!((0..15).all(|_| left.send(&frame, &Offload::NONE)));
    assert!(!left.send(&frame, &Offload::NONE));
    left.flush();
    assert_eq!(receive_numbers(&mut right, 15), [5; 15]);
    assert!(left.send(&frame, &Offload::NONE));
    left.flush();
    assert_eq!(receive_numbers(&mut right, 1), [5]);
    assert_eq!(
        left.counters().transmit_errors,
        0,
        "the caller counts what is refused"
    );
}

#[test]
fn malformed_frames_are_counted_and_hold_up_none_behind_them() {
    let (_a, _b, mut left, mut right) = pair();
    let beyond_the_end = Offload {
        partial_checksum: true,
        checksum_start: 5000,
        checksum_offset: 16,
        ..Offload::NONE
    };
    for round in 0..100 {
        let mut good = Vec::new();
        for number in round * 32..(round + 1) * 32 {
            let bad = number % 7 == 0 || number % 11 < 2;
            let offload = if bad { beyond_the_end } else { Offload::NONE };
            assert!(left.send(
                &numbered(right.info().mac, 60 + number as usize % 100, number),
                &offload
            ));
            good.extend((!bad).then_some(number));
        }
        left.flush();
        assert_eq!(receive_numbers(&mut right, good.len()), good);
    }
    let bad = (0..3200)
        .filter(|number| number % 7 == 0 || number % 11 < 2)
        .count();
    assert_eq!(left.counters().transmit_errors, bad as u64);
}

#[test]
fn more_malformed_frames_than_one_flush_takes_out_are_left_to_the_next() {
    let (_a, _b, mut left, mut right) = pair();
    let bad = Offload {
        partial_checksum: true,
        checksum_start: 5000,
        checksum_offset: 16,
        ..Offload::NONE
    };
    let to = right.info().mac;
    assert!((0..40).all(|number| left.send(&numbered(to, 60, number), &bad)));
    assert!(left.send(&numbered(to, 60, 40), &Offload::NONE));
    left.flush();
    assert_eq!(left.counters().transmit_errors, BURST as u64);
    left.flush();
    assert_eq!(left.counters().transmit_errors, 40);
    assert_eq!(receive_numbers(&mut right, 1), [40]);
}

#[test]
fn frames_outlive_their_port() {
    let (_a, _b, mut left, mut right) = pair();
    assert!(left.send(&numbered(right.info().mac, 60, 9), &Offload::NONE));
    left.flush();
    let (mut burst, deadline) = (Burst::new(), Instant::now() + Duration::from_secs(5));
    while !burst
        .iter()
        .any(|frame| number_of(frame.bytes()) == Some(9))
    {
        assert!(Instant::now() < deadline, "the frame did not arrive");
        right.receive(&mut burst);
    }
    drop(right);
    assert!(
        burst
            .iter()
            .any(|frame| number_of(frame.bytes()) == Some(9))
    );
}

#[test]
fn errors_say_what_to_do() {
    let namespace = Namespace::new();
    namespace.ip("link add down0 type veth peer name down1");
    let open = |interface: &str| {
        let config = Config::new(PortId(0), interface);
        namespace
            .run(move || af_packet::open(config))
            .err()
            .expect("it cannot be opened")
            .to_string()
    };
    let cases = [
        (
            "none0",
            "interface \"none0\" does not exist in this network namespace; `ip link` lists those that do",
        ),
        (
            "lo",
            "interface \"lo\" is of ARP hardware type 772; accepted is Ethernet (1)",
        ),
        (
            "down0",
            "interface \"down0\" is down; `ip link set down0 up` first",
        ),
    ];
    for (interface, expected) in cases {
        assert_eq!(open(interface), expected);
    }
}

#[test]
fn without_the_capability_the_error_names_it() {
    let this = std::env::current_exe().expect("a test binary");
    let output = Command::new("setpriv")
        .args(["--inh-caps", "-net_raw", "--bounding-set", "-net_raw"])
        .arg(this)
        .args(["--ignored", "--exact", "is_refused_without_cap_net_raw"])
        .output()
        .expect("util-linux is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "run by without_the_capability_the_error_names_it"]
fn is_refused_without_cap_net_raw() {
    let error = af_packet::open(Config::new(PortId(0), "eth0"))
        .err()
        .expect("the capability was dropped");
    assert!(matches!(error, OpenError::NotPermitted { .. }), "{error}");
    assert!(error.to_string().contains("CAP_NET_RAW"));
}
