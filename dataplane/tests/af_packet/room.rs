//! What has no room: in a slot, in a buffer, behind the socket.

use super::*;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// A receiver on the same machine may take its time: what it was sent must not change meanwhile.
#[test]
fn what_was_sent_stays_as_it_is_while_its_receiver_is_slow() {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    right.ip("address add 192.0.2.2/24 dev right0");
    let mut port = open_one(&left, "left0");
    let receiver = right.run(|| {
        let receiver = std::net::UdpSocket::bind("192.0.2.2:9").expect("it is up");
        nix::sys::socket::setsockopt(
            &receiver,
            nix::sys::socket::sockopt::RcvBufForce,
            &(64 << 20),
        )
        .expect("root may");
        receiver
    });
    receiver
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("not zero");
    // One GSO frame of 20 datagrams, which the receiver leaves where it is, then more frames than any ring has slots.
    let mut frame = datagram(Mac([2, 0, 0, 0, 0, 0x11]), 7, 0);
    frame.truncate(14 + 28);
    frame.resize(14 + 28 + 20_000, 0x5a);
    frame[16..18].copy_from_slice(&20_028u16.to_be_bytes());
    frame[26..34].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    let sum = dataplane::packet::checksum::ipv4_header(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[36..40].copy_from_slice(&[0, 9, 0x4e, 0x28]);
    let offload = Offload {
        partial_checksum: true,
        checksum_start: 34,
        checksum_offset: 6,
        gso: Gso::Udp,
        segment_len: 1000,
        header_len: 42,
    };
    assert!(port.send(&frame, &offload));
    port.flush();
    for number in 0..2000 {
        assert!(port.send(&numbered(port.info().mac, 1500, number), &Offload::NONE));
        port.flush();
    }
    let mut buffer = [0; 2000];
    for number in 0..20 {
        let len = receiver.recv(&mut buffer).expect("nothing is lost");
        assert!(
            len == 1000 && buffer[..len].iter().all(|byte| *byte == 0x5a),
            "datagram {number} of {len} bytes has become {:x?}…",
            &buffer[..32]
        );
    }
}

#[test]
fn frames_longer_than_a_slot_come_whole_and_keep_their_place() {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    let (mut sender, mut port) = (open_one(&left, "left0"), open_one(&right, "right0"));
    left.ip("link set left0 mtu 9000");
    right.ip("link set right0 mtu 9000");
    std::thread::sleep(Duration::from_millis(50));
    let to = port.info().mac;
    let len_of = |number: u32| match number % 3 {
        0 => 60,
        1 => 9014,
        _ => 1900 + number as usize % 200,
    };
    for round in 0..50 {
        let numbers = round * 30..(round + 1) * 30;
        for number in numbers.clone() {
            assert!(sender.send(&numbered(to, len_of(number), number), &Offload::NONE));
        }
        sender.flush();
        let (mut expected, mut burst) = (numbers, Burst::new());
        let deadline = Instant::now() + Duration::from_secs(5);
        while !expected.is_empty() {
            assert!(Instant::now() < deadline, "{expected:?} did not arrive");
            port.receive(&mut burst);
            for frame in burst.drain(..) {
                if let Some(number) = number_of(frame.bytes()) {
                    assert_eq!(expected.next(), Some(number));
                    assert!(frame.bytes() == numbered(to, len_of(number), number));
                    assert!(frame.headroom() >= 128);
                }
                port.release(frame);
            }
        }
    }
    assert_eq!(port.counters().receive_missed, 0);
}

/// A worker that holds more long frames than it has room for gets the others later.
#[test]
fn long_frames_wait_while_there_is_no_buffer_for_them() {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    let (mut sender, mut port) = (open_one(&left, "left0"), open_one(&right, "right0"));
    left.ip("link set left0 mtu 9000");
    right.ip("link set right0 mtu 9000");
    let to = port.info().mac;
    for number in 0..100 {
        assert!(sender.send(&numbered(to, 9014, number), &Offload::NONE));
    }
    sender.flush();
    std::thread::sleep(Duration::from_millis(50));
    let (mut held, mut burst) = (Vec::new(), Burst::new());
    while port.receive(&mut burst) > 0 {
        held.extend(burst.drain(..));
    }
    let held_numbers = held
        .iter()
        .filter(|frame| number_of(frame.bytes()).is_some());
    assert_eq!(held_numbers.count(), 40);
    for frame in held {
        port.release(frame);
    }
    assert!(receive_numbers(&mut port, 60).into_iter().eq(40..100));
    assert_eq!(port.counters().receive_missed, 0);
}

/// Without leave for a long queue every slot has room for a GSO frame.
#[test]
fn without_cap_net_admin_slots_are_long_enough_for_any_frame() {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    let modes = left.run(|| {
        let mode = || {
            let opened = af_packet::open(Config::new(PortId(0), "left0"));
            opened.expect("CAP_NET_RAW will do").handle.state().mode
        };
        let with = mode();
        // Of this thread alone, and it is the last thing that it does.
        let sets = CapabilitySets {
            effective: CapabilitySet::NET_RAW,
            permitted: CapabilitySet::NET_RAW,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).expect("root may give up what it has");
        [with, mode()]
    });
    assert_eq!(
        modes,
        [
            "TPACKET_V2, 1024 slots of 2048 bytes per worker",
            "TPACKET_V2, 510 slots of 65824 bytes per worker"
        ]
    );
}

#[test]
fn frames_for_which_a_queueing_discipline_has_no_room_are_counted() {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    let (mut port, handle) = open_with_handle(&left, "left0");
    left.command(
        "tc",
        "qdisc replace dev left0 root tbf rate 8kbit burst 1600 limit 3000",
    );
    for number in 0..20 {
        assert!(port.send(
            &numbered(Mac([2, 0, 0, 0, 0, 0x11]), 1000, number),
            &Offload::NONE
        ));
    }
    port.flush();
    let lost = port.counters().transmit_errors;
    // One has left, and two or three wait to.
    assert!((15..20).contains(&lost), "{lost}");
    assert_eq!(statistic(&handle, "transmit_queue_full"), lost);
}
