use crate::frame::Offload;
use crate::packet::sample::{self, Sample, client_v4, client_v6, fix_header, tcp};
use crate::packet::wire::{TCP, Wire};
use crate::packet::{Packet, TcpFlags, V4, V6};
use crate::port::memory::MemoryPort;
use crate::port::{Burst, Mac, Port, PortId, PortInfo};
use crate::reason::Reason;
use crate::rewrite::tunnel::{Encapsulation, Outer, Tunnel, encapsulate, encapsulate_copy};

/// The encapsulated frame, in a buffer that is larger than it must be.
pub(super) fn encapsulated<F: Wire>(
    frame: &[u8],
    packet: &Packet<F>,
    tunnel: &Tunnel,
    id: u16,
) -> Result<Vec<u8>, Reason> {
    let mut out = vec![0xee; frame.len() + 100];
    let len = encapsulate_copy(frame, packet, tunnel, id, &mut out)?;
    out.truncate(len);
    Ok(out)
}

#[test]
fn a_buffer_that_is_too_short_is_no_headroom() {
    let frame = v4_frame(0, true);
    let packet = V4::packet(&frame, &Offload::NONE);
    let mut out = vec![0; frame.len() + 20];
    assert_eq!(
        encapsulate_copy(&frame, &packet, &over_v4(), 0, &mut out),
        Ok(frame.len() + 20)
    );
    out.pop();
    assert_eq!(
        encapsulate_copy(&frame, &packet, &over_v4(), 0, &mut out),
        Err(Reason::NoHeadroom)
    );
}

pub(super) fn over_v4() -> Tunnel {
    Tunnel {
        outer: Outer::V4 {
            source: [10, 2, 0, 1].into(),
            destination: [10, 3, 0, 21].into(),
        },
        copy_dont_fragment: true,
        encapsulation: Encapsulation::Ipip,
    }
}

pub(super) fn over_v6() -> Tunnel {
    Tunnel {
        outer: Outer::V6 {
            source: "fd00:2::1".parse().unwrap(),
            destination: "fd00:3::13".parse().unwrap(),
        },
        copy_dont_fragment: true,
        encapsulation: Encapsulation::Ipip,
    }
}

fn v4_frame(tos: u8, dont_fragment: bool) -> Vec<u8> {
    let mut frame = tcp(&client_v4(TCP), TcpFlags(2), b"data");
    (frame[15], frame[20]) = (tos, if dont_fragment { 0x40 } else { 0 });
    fix_header(&mut frame);
    frame
}

fn v6_frame(tos: u8) -> Vec<u8> {
    let mut frame = tcp(&client_v6(TCP), TcpFlags(2), b"data");
    (frame[14], frame[15]) = (0x60 | tos >> 4, tos << 4 | 0x0f);
    frame
}

fn tunnelled<F: Sample>(frame: &[u8], tunnel: &Tunnel) -> Vec<u8> {
    encapsulated(frame, &F::packet(frame, &Offload::NONE), tunnel, 0xabcd).unwrap()
}

/// In every combination the inner packet is unchanged and the Ethernet addresses stay in front.
fn assert_carries(outer: &[u8], inner: &[u8], overhead: usize, protocol: u8) {
    assert_eq!(outer.len(), inner.len() + overhead);
    assert_eq!(outer[..12], inner[..12]);
    assert_eq!(outer[14 + overhead..], inner[14..]);
    let found = if overhead == 20 {
        V4::packet(outer, &Offload::NONE).tuple.protocol
    } else {
        V6::packet(outer, &Offload::NONE).tuple.protocol
    };
    assert_eq!(found, protocol);
}

#[test]
fn either_family_goes_into_either() {
    let (v4, v6) = (v4_frame(0, true), v6_frame(0));
    assert_carries(&tunnelled::<V4>(&v4, &over_v4()), &v4, 20, 4);
    assert_carries(&tunnelled::<V6>(&v6, &over_v4()), &v6, 20, 41);
    assert_carries(&tunnelled::<V4>(&v4, &over_v6()), &v4, 40, 4);
    assert_carries(&tunnelled::<V6>(&v6, &over_v6()), &v6, 40, 41);
}

#[test]
fn the_outer_header_has_the_inners_ttl_as_it_is_in_the_frame() {
    let mut frame = v4_frame(0, true);
    let packet = V4::packet(&frame, &Offload::NONE);
    crate::rewrite::decrement_ttl(&mut frame, &packet).unwrap();
    assert_eq!(
        encapsulated(&frame, &packet, &over_v4(), 0).unwrap()[22],
        63
    );
    assert_eq!(
        encapsulated(&frame, &packet, &over_v6(), 0).unwrap()[21],
        63
    );
}

#[test]
fn dscp_and_ecn_are_copied_but_congestion_experienced_is_not() {
    for (inner, outer) in [
        (0x00, 0x00),
        (0xb9, 0xb9),
        (0xba, 0xba),
        (0xbb, 0xba),
        (0x03, 0x02),
    ] {
        let (v4, v6) = (v4_frame(inner, true), v6_frame(inner));
        for frame in [
            tunnelled::<V4>(&v4, &over_v4()),
            tunnelled::<V6>(&v6, &over_v4()),
        ] {
            assert_eq!(V4::packet(&frame, &Offload::NONE).tos, outer, "{inner:02x}");
        }
        for frame in [
            tunnelled::<V4>(&v4, &over_v6()),
            tunnelled::<V6>(&v6, &over_v6()),
        ] {
            assert_eq!(V6::packet(&frame, &Offload::NONE).tos, outer, "{inner:02x}");
            assert_eq!(
                (frame[15] & 15, frame[16], frame[17]),
                (0, 0, 0),
                "no flow label"
            );
        }
    }
}

#[test]
fn dont_fragment_is_copied_where_it_is_wanted() {
    let not_copied = Tunnel {
        copy_dont_fragment: false,
        ..over_v4()
    };
    let cases = [
        (
            "DF inside",
            tunnelled::<V4>(&v4_frame(0, true), &over_v4()),
            (true, 0),
        ),
        (
            "no DF inside",
            tunnelled::<V4>(&v4_frame(0, false), &over_v4()),
            (false, 0xabcd),
        ),
        (
            "DF inside, not to be copied",
            tunnelled::<V4>(&v4_frame(0, true), &not_copied),
            (false, 0xabcd),
        ),
        (
            "IPv6 inside",
            tunnelled::<V6>(&v6_frame(0), &over_v4()),
            (false, 0xabcd),
        ),
    ];
    for (about, frame, expected) in cases {
        let packet = sample::assert_valid::<V4>(&frame);
        assert_eq!(
            (packet.dont_fragment, packet.fragment_id),
            expected,
            "{about}"
        );
    }
}

#[test]
fn ethernet_padding_is_cut_off() {
    let frame = v4_frame(0, true);
    let padded = [&frame[..], &[0xaa; 6]].concat();
    assert_eq!(
        tunnelled::<V4>(&padded, &over_v4()),
        tunnelled::<V4>(&frame, &over_v4())
    );
}

#[test]
fn what_no_length_field_holds_is_too_big() {
    for (payload, over_v4_fits, over_v6_fits) in [
        (65495 - 20, true, true),
        (65495 - 19, false, true),
        (65495, false, true),
    ] {
        let frame = tcp(&client_v4(TCP), TcpFlags(2), &vec![0; payload]);
        let packet = V4::packet(&frame, &Offload::NONE);
        let fits = |tunnel| encapsulated(&frame, &packet, &tunnel, 0).map(|_| ());
        let expected = |fits: bool| if fits { Ok(()) } else { Err(Reason::TooBig) };
        assert_eq!(fits(over_v4()), expected(over_v4_fits), "{payload}");
        assert_eq!(fits(over_v6()), expected(over_v6_fits), "{payload}");
    }
    let frame = tcp(&client_v6(TCP), TcpFlags(2), &vec![0; 65535 - 40 - 19]);
    let packet = V6::packet(&frame, &Offload::NONE);
    assert_eq!(
        encapsulated(&frame, &packet, &over_v6(), 0),
        Err(Reason::TooBig)
    );
}

#[test]
fn in_its_own_buffer_a_frame_grows_at_the_front_while_there_is_room() {
    let info = PortInfo {
        name: "memory".into(),
        mac: Mac([2; 6]),
        mtu: 1500,
        driver: "memory",
    };
    let (mut port, wire) = MemoryPort::new(PortId(0), info, 1, 2048);
    let inner = v4_frame(0, true);
    wire.inject(&[&inner[..], &[0xaa; 6]].concat());
    let mut burst = Burst::new();
    assert_eq!(port.receive(&mut burst), 1);
    let mut frame = burst.pop().unwrap();
    let room = frame.headroom() / 40;
    let mut expected = inner;
    for depth in 0..=room {
        let result = if depth == 0 {
            let packet = V4::packet(frame.bytes(), &Offload::NONE);
            encapsulate(&mut frame, &packet, &over_v6(), 0)
        } else {
            let packet = V6::packet(frame.bytes(), &Offload::NONE);
            encapsulate(&mut frame, &packet, &over_v6(), 0)
        };
        if depth == room {
            assert_eq!(result, Err(Reason::NoHeadroom));
        } else {
            assert_eq!(result, Ok(()));
            expected = if depth == 0 {
                tunnelled::<V4>(&expected, &over_v6())
            } else {
                tunnelled::<V6>(&expected, &over_v6())
            };
        }
        assert_eq!(frame.bytes(), expected);
    }
    port.release(frame);
}

#[test]
fn the_overhead_is_the_outer_header() {
    assert_eq!((over_v4().overhead(), over_v6().overhead()), (20, 40));
}
