//! TUN in GRE and GUE, against what the kernel sent and against a receiver's view.

use super::tunnelling::{encapsulated, over_v4, over_v6};
use super::vectors::Vector;
use crate::frame::Offload;
use crate::packet::sample::{
    Sample, any_payload, any_tuple, client_v4, client_v6, hex, of_protocol, reference_l4,
    reference_sum,
};
use crate::packet::wire::{SCTP, TCP, UDP, read_u16};
use crate::packet::{Fragment, Packet, Tuple, V4, V6};
use crate::reason::Reason;
use crate::rewrite::tunnel::{Encapsulation, LARGEST_OVERHEAD, Tunnel};
use proptest::prelude::*;

/// Each one, with and without checksum.
pub(super) const ENCAPSULATIONS: [Encapsulation; 5] = [
    Encapsulation::Ipip,
    Encapsulation::Gre { checksum: false },
    Encapsulation::Gre { checksum: true },
    Encapsulation::Gue {
        port: 6080,
        checksum: false,
    },
    Encapsulation::Gue {
        port: 6080,
        checksum: true,
    },
];

/// What the kernel sent, as in [`vectors`](super::vectors). Chosen at random are here also the source port of GUE and the
/// UDP checksum over it. The servers 10.2.0.15 and 10.2.0.14 (of an IPv6 service), and fd00:2::12 of 10.0.0.105, had
/// the remote checksum.
pub(super) const ENCAPSULATED: &[Vector] = &[
    Vector {
        about: "tun-gre-gue: 10.2.0.1 > 10.2.0.11 gre",
        before: "02000000010102040a0100fe08004500002810014000400616250a4000070a0000649c410050000003e8000000005002faf0ffcd0000",
        after: "02040a02000b020000000201080045000040000040003f2f27800a0200010a02000b0000080045000028100140003f0617250a4000070a0000649c410050000003e8000000005002faf0ffcd0000",
    },
    Vector {
        about: "tun-gre-gue: 10.2.0.1 > 10.2.0.12 gre",
        before: "02000000010102040a0100fe08004500002810024000400616230a4000070a0000659c410050000003e8000000005002faf0ffcc0000",
        after: "02040a02000c020000000201080045000044000040003f2f277b0a0200010a02000c800008008cc5000045000028100240003f0617230a4000070a0000659c410050000003e8000000005002faf0ffcc0000",
    },
    Vector {
        about: "tun-gre-gue: 10.2.0.1 > 10.2.0.13:6080 udp",
        before: "02000000010102040a0100fe08004500002810034000400616210a4000070a0000669c410050000003e8000000005002faf0ffcb0000",
        after: "02040a02000d020000000201080045000048000040003f1127940a0200010a02000d....17c0003400000004000045000028100340003f0617210a4000070a0000669c410050000003e8000000005002faf0ffcb0000",
    },
    Vector {
        about: "tun-gre-gue: 10.2.0.1 > 10.2.0.14:6080 udp",
        before: "02000000010102040a0100fe080045000028100440004006161f0a4000070a0000679c410050000003e8000000005002faf0ffca0000",
        after: "02040a02000e020000000201080045000048000040003f1127930a0200010a02000e....17c00034....0004000045000028100440003f06171f0a4000070a0000679c410050000003e8000000005002faf0ffca0000",
    },
    Vector {
        about: "tun-gre-gue: 10.2.0.1 > 10.2.0.15:6080 udp",
        before: "02000000010102040a0100fe080045000028100540004006161d0a4000070a0000689c410050000003e8000000005002faf0ffc90000",
        after: "02040a02000f020000000201080045000048000040003f1127920a0200010a02000f....17c00034....0004000045000028100540003f06171d0a4000070a0000689c410050000003e8000000005002faf0ffc90000",
    },
    Vector {
        about: "tun-gre-gue: fd00:2::1 > fd00:2::11 gre",
        before: "0200000001010206000000fe86dd6000000000140640fd000064000000000000000000000007fd00000a0000000000000000000001009c410050000003e8000000005002faf019020000",
        after: "02060000001102000000020186dd6000000000402f3ffd000002000000000000000000000001fd000002000000000000000000000011000086dd600000000014063ffd000064000000000000000000000007fd00000a0000000000000000000001009c410050000003e8000000005002faf019020000",
    },
    Vector {
        about: "tun-gre-gue: fd00:2::1 > [fd00:2::12]:6080 udp",
        before: "0200000001010206000000fe86dd6000000000140640fd000064000000000000000000000007fd00000a0000000000000000000001019c410050000003e8000000005002faf019010000",
        after: "02060000001202000000020186dd600000000048113ffd000002000000000000000000000001fd000002000000000000000000000012....17c00048....00290000600000000014063ffd000064000000000000000000000007fd00000a0000000000000000000001019c410050000003e8000000005002faf019010000",
    },
    Vector {
        about: "tun-gre-gue-families: fd00:2::1 > fd00:2::11 gre",
        before: "02000000010102040a0100fe08004500002810014000400616250a4000070a0000649c410050000003e8000000005002faf0ffcd0000",
        after: "02060000001102000000020186dd6000000000302f3ffd000002000000000000000000000001fd000002000000000000000000000011800008008cc4000045000028100140003f0617250a4000070a0000649c410050000003e8000000005002faf0ffcd0000",
    },
    Vector {
        about: "tun-gre-gue-families: fd00:2::1 > [fd00:2::12]:6080 udp",
        before: "02000000010102040a0100fe08004500002810024000400616230a4000070a0000659c410050000003e8000000005002faf0ffcc0000",
        after: "02060000001202000000020186dd600000000034113ffd000002000000000000000000000001fd000002000000000000000000000012....17c0003400000004000045000028100240003f0617230a4000070a0000659c410050000003e8000000005002faf0ffcc0000",
    },
    Vector {
        about: "tun-gre-gue-families: fd00:2::1 > [fd00:2::12]:6080 udp",
        before: "02000000010102040a0100fe080045000028100340004006161e0a4000070a0000699c410050000003e8000000005002faf0ffc80000",
        after: "02060000001202000000020186dd600000000034113ffd000002000000000000000000000001fd000002000000000000000000000012....17c00034....0004000045000028100340003f06171e0a4000070a0000699c410050000003e8000000005002faf0ffc80000",
    },
    Vector {
        about: "tun-gre-gue-families: 10.2.0.1 > 10.2.0.12 gre",
        before: "0200000001010206000000fe86dd6000000000140640fd000064000000000000000000000007fd00000a0000000000000000000001009c410050000003e8000000005002faf019020000",
        after: "02040a02000c020000000201080045000054....00003f2f....0a0200010a02000c000086dd600000000014063ffd000064000000000000000000000007fd00000a0000000000000000000001009c410050000003e8000000005002faf019020000",
    },
    Vector {
        about: "tun-gre-gue-families: 10.2.0.1 > 10.2.0.13:6080 udp",
        before: "0200000001010206000000fe86dd6000000000140640fd000064000000000000000000000007fd00000a0000000000000000000001019c410050000003e8000000005002faf019010000",
        after: "02040a02000d02000000020108004500005c....00003f11....0a0200010a02000d....17c00048....00290000600000000014063ffd000064000000000000000000000007fd00000a0000000000000000000001019c410050000003e8000000005002faf019010000",
    },
    Vector {
        about: "tun-gre-gue-families: 10.2.0.1 > 10.2.0.14:6080 udp",
        before: "0200000001010206000000fe86dd6000000000140640fd000064000000000000000000000007fd00000a0000000000000000000001029c410050000003e8000000005002faf019000000",
        after: "02040a02000e02000000020108004500005c....00003f11....0a0200010a02000e....17c00048....00290000600000000014063ffd000064000000000000000000000007fd00000a0000000000000000000001029c410050000003e8000000005002faf019000000",
    },
    Vector {
        about: "tun-gre-gue-families: fd00:2::1 > [fd00:2::11]:6080 udp",
        before: "0200000001010206000000fe86dd6000000000140640fd000064000000000000000000000007fd00000a0000000000000000000001039c410050000003e8000000005002faf018ff0000",
        after: "02060000001102000000020186dd600000000048113ffd000002000000000000000000000001fd000002000000000000000000000011....17c00048000000290000600000000014063ffd000064000000000000000000000007fd00000a0000000000000000000001039c410050000003e8000000005002faf018ff0000",
    },
    Vector {
        about: "tun-gre-gue-families: 10.2.0.1 > 10.2.0.13:6080 udp",
        before: "02000000010102040a0100fe08004500001f100800004011561a0a4000070a0000669c410050000b8a37616263",
        after: "02040a02000d02000000020108004500003f....00003f11....0a0200010a02000d....17c0002b....000400004500001f100800003f11571a0a4000070a0000669c410050000b8a37616263",
    },
    Vector {
        about: "tun-gre-gue-families: 10.2.0.1 > 10.2.0.14 gre",
        before: "02000000010102040a0100fe08004500001f10090000401156180a4000070a0000679c410050000b8a36616263",
        after: "02040a02000e02000000020108004500003b....00003f2f....0a0200010a02000e800008008cc900004500001f100900003f1157180a4000070a0000679c410050000b8a36616263",
    },
    Vector {
        about: "tun-gre-gue-families: 10.2.0.1 > 10.2.0.15:6080 udp",
        before: "02000000010102040a0100fe08004500001f100a0000401156160a4000070a0000689c410050000b8a35616263",
        after: "02040a02000f02000000020108004500003f....00003f11....0a0200010a02000f....17c0002b....000400004500001f100a00003f1157160a4000070a0000689c410050000b8a35616263",
    },
    Vector {
        about: "tun-gre-gue-families: 10.2.0.1 > 10.2.0.13:6080 udp",
        before: "02000000010102040a0100fe08004500001f100b0000401156170a4000070a0000669c410050000bdf62616263",
        after: "02040a02000d02000000020108004500003f....00003f11....0a0200010a02000d....17c0002b....000400004500001f100b00003f1157170a4000070a0000669c410050000bdf62616263",
    },
    Vector {
        about: "tun-gre-gue-families: 10.2.0.1 > 10.2.0.13:6080 udp",
        before: "02000000010102040a0100fe08004500001f100c0000401156160a4000070a0000669c410050000b0000616263",
        after: "02040a02000d02000000020108004500003f....00003f11....0a0200010a02000d....17c0002b....000400004500001f100c00003f1157160a4000070a0000669c410050000b0000616263",
    },
];

/// Where the transport of a vector's frame begins.
fn transport_at(frame: &[u8]) -> usize {
    if frame[12..14] == [8, 0] { 34 } else { 54 }
}

/// The encapsulation that a frame of the kernel's has. A checksum that the vector leaves open is one.
pub(super) fn encapsulation(after: &str) -> Encapsulation {
    let frame = hex(&after.replace('.', "f"));
    let at = transport_at(&frame);
    match frame[if at == 34 { 23 } else { 20 }] {
        47 => Encapsulation::Gre {
            checksum: frame[at] == 0x80,
        },
        17 => Encapsulation::Gue {
            port: read_u16(&frame, at + 2),
            checksum: read_u16(&frame, at + 6) != 0,
        },
        _ => Encapsulation::Ipip,
    }
}

#[test]
fn the_recorded_frames_are_of_every_kind() {
    for wanted in &ENCAPSULATIONS[1..] {
        for outer in ["0800", "86dd"] {
            let found = ENCAPSULATED.iter().any(|vector| {
                encapsulation(vector.after) == *wanted && vector.after[24..28] == *outer
            });
            assert!(found, "{wanted:?} in {outer}");
        }
    }
}

/// The packet that a real server finds in a frame of the tunnel, which must be right in every byte.
fn received<O: Sample>(frame: &[u8], expected: Encapsulation) -> (u16, &[u8]) {
    let packet = O::packet(frame, &Offload::NONE);
    assert_eq!(packet.end(), frame.len());
    let transport = &frame[packet.l4()..];
    let tuple = &packet.tuple;
    match (tuple.protocol, expected) {
        (4, Encapsulation::Ipip) => (0x0800, transport),
        (41, Encapsulation::Ipip) => (0x86dd, transport),
        (47, Encapsulation::Gre { checksum: false }) => {
            assert_eq!(transport[..2], [0, 0]);
            (read_u16(transport, 2), &transport[4..])
        }
        (47, Encapsulation::Gre { checksum: true }) => {
            assert_eq!(
                (&transport[..2], &transport[6..8]),
                (&[0x80, 0][..], &[0, 0][..])
            );
            assert_eq!(reference_sum(transport), 0xffff);
            (read_u16(transport, 2), &transport[8..])
        }
        (UDP, Encapsulation::Gue { port, checksum }) => {
            assert!(tuple.source_port >= 0xc000);
            assert_eq!(tuple.destination_port, port);
            assert_eq!(usize::from(read_u16(transport, 4)), transport.len());
            if checksum {
                let addresses = O::octets(tuple.source, tuple.destination);
                assert_ne!(read_u16(transport, 6), 0);
                assert_eq!(reference_l4(&addresses, UDP, transport), 0);
            } else {
                assert_eq!(read_u16(transport, 6), 0);
            }
            let ether_type = match transport[8..12] {
                [0, 4, 0, 0] => 0x0800,
                [0, 41, 0, 0] => 0x86dd,
                ref other => panic!("not a GUE header: {other:02x?}"),
            };
            (ether_type, &transport[12..])
        }
        other => panic!("protocol and encapsulation are {other:?}"),
    }
}

/// What goes in comes out, by every encapsulation in either family.
fn there_and_out<F: Sample>(tuple: &Tuple<F>, payload: &[u8]) {
    let frame = of_protocol(tuple, payload);
    let packet = F::packet(&frame, &Offload::NONE);
    for encapsulation in ENCAPSULATIONS {
        for tunnel in [over_v4(), over_v6()] {
            let tunnel = Tunnel {
                encapsulation,
                ..tunnel
            };
            let outer = encapsulated(&frame, &packet, &tunnel, 0xabcd).unwrap();
            assert_eq!(outer.len(), frame.len() + tunnel.overhead());
            assert_eq!(outer[..12], frame[..12]);
            let (ether_type, inner) = if outer[12..14] == [8, 0] {
                received::<V4>(&outer, encapsulation)
            } else {
                received::<V6>(&outer, encapsulation)
            };
            assert_eq!((ether_type, inner), (F::ETHER_TYPE, &frame[14..]));
        }
    }
}

proptest! {
    #[test]
    fn a_real_server_unwraps_the_ipv4_packet_that_went_in(
        tuple in any_tuple::<V4>(&[TCP, UDP, SCTP]), payload in any_payload(),
    ) {
        there_and_out(&tuple, &payload);
    }

    #[test]
    fn a_real_server_unwraps_the_ipv6_packet_that_went_in(
        tuple in any_tuple::<V6>(&[TCP, UDP, SCTP]), payload in any_payload(),
    ) {
        there_and_out(&tuple, &payload);
    }
}

#[test]
fn the_overhead_is_what_the_kernel_reckons_with() {
    for (encapsulation, over_v4_len) in ENCAPSULATIONS.into_iter().zip([20, 24, 28, 32, 32]) {
        let overhead = |tunnel: Tunnel| {
            Tunnel {
                encapsulation,
                ..tunnel
            }
            .overhead()
        };
        assert_eq!(overhead(over_v4()), over_v4_len);
        assert_eq!(overhead(over_v6()), over_v4_len + 20);
        assert!(overhead(over_v6()) <= LARGEST_OVERHEAD);
    }
}

const GUE: Encapsulation = ENCAPSULATIONS[4];

/// The source port that GUE gives a packet.
fn port_of<F: Sample>(frame: &[u8], packet: &Packet<F>) -> u16 {
    let tunnel = Tunnel {
        encapsulation: GUE,
        ..over_v4()
    };
    read_u16(&encapsulated(frame, packet, &tunnel, 0).unwrap(), 34)
}

#[test]
fn flows_differ_in_their_source_ports_and_a_flow_keeps_its_own() {
    let mut seen = std::collections::BTreeSet::new();
    let (v4, v6) = (client_v4(TCP), client_v6(TCP));
    for source_port in 1024..2048 {
        let (v4, v6) = (Tuple { source_port, ..v4 }, Tuple { source_port, ..v6 });
        let port = |payload: &[u8]| {
            let frame = of_protocol(&v4, payload);
            port_of(&frame, &V4::packet(&frame, &Offload::NONE))
        };
        let frame = of_protocol(&v6, b"");
        assert_eq!(port(b""), port(b"of the same flow"));
        seen.insert(port(b""));
        seen.insert(port_of(&frame, &V6::packet(&frame, &Offload::NONE)));
    }
    assert!(seen.len() > 1800, "{} ports for 2048 flows", seen.len());
}

#[test]
fn all_fragments_of_a_datagram_have_one_source_port() {
    let frame = of_protocol(&client_v4(UDP), b"fragmented");
    let whole = V4::packet(&frame, &Offload::NONE);
    let first = Packet {
        fragment: Fragment::First,
        ..whole
    };
    let mut later = Packet {
        fragment: Fragment::Later,
        ..whole
    };
    (later.tuple.source_port, later.tuple.destination_port) = (0, 0);
    assert_eq!(port_of(&frame, &first), port_of(&frame, &later));
}

#[test]
fn the_headers_between_count_for_the_length_field() {
    for encapsulation in ENCAPSULATIONS {
        let tunnel = Tunnel {
            encapsulation,
            ..over_v4()
        };
        let most = 65535 - tunnel.overhead() - 40;
        for (len, expected) in [(most, Ok(())), (most + 1, Err(Reason::TooBig))] {
            let frame = crate::packet::sample::tcp(
                &client_v4(TCP),
                crate::packet::TcpFlags(2),
                &vec![0; len],
            );
            let packet = V4::packet(&frame, &Offload::NONE);
            assert_eq!(
                encapsulated(&frame, &packet, &tunnel, 0).map(|_| ()),
                expected
            );
        }
    }
}
