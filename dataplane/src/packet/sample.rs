//! Frames for the tests, built from the RFCs' field lists and without the code under test, checksums excepted (their own
//! tests use a plain reference).

use super::wire::{self, ETHERNET_LEN};
use super::{Fragment, Packet, Parsed, TcpFlags, Tuple, V4, V6, parse};
use crate::frame::Offload;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const TO: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub(crate) const FROM: [u8; 6] = [2, 4, 10, 1, 0, 0xfe];

/// The bytes of hexadecimal digits.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .bytes()
        .filter(|digit| !digit.is_ascii_whitespace())
        .collect();
    let value = |digit: u8| {
        u8::try_from(char::from(digit).to_digit(16).expect("a hexadecimal digit")).unwrap()
    };
    digits
        .chunks(2)
        .map(|pair| value(pair[0]) << 4 | value(pair[1]))
        .collect()
}

/// The sum as RFC 1071 §1 defines it, word by word.
pub(crate) fn reference_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// The checksum over pseudo-header and transport, by the reference.
pub(crate) fn reference_l4(addresses: &[u8], protocol: u8, bytes: &[u8]) -> u16 {
    let mut all = addresses.to_vec();
    all.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    all.extend([0, 0, 0, protocol]);
    all.extend(bytes);
    !reference_sum(&all)
}

/// Addresses that differ between the families.
pub(crate) trait Sample: super::icmp::Quote + PartialEq {
    /// An Ethernet frame of an IP packet with TTL 64 and this transport.
    fn frame(
        source: Self::Address,
        destination: Self::Address,
        protocol: u8,
        transport: &[u8],
    ) -> Vec<u8>;
    /// Both addresses as bytes.
    fn octets(source: Self::Address, destination: Self::Address) -> Vec<u8>;
    /// The packet of a frame that must be valid.
    fn packet(frame: &[u8], offload: &Offload) -> Packet<Self>;
    /// Any address that may be a source.
    fn any_address() -> BoxedStrategy<Self::Address>;
    /// `error_v4` or `error_v6`.
    fn error(
        scratch: &mut [u8],
        kind: super::icmp::ErrorKind,
        frame: &[u8],
        from: Self::Address,
    ) -> Option<usize>;
}

impl Sample for V4 {
    fn frame(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, transport: &[u8]) -> Vec<u8> {
        let mut frame = [TO, FROM].concat();
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend(u16::try_from(20 + transport.len()).unwrap().to_be_bytes());
        frame.extend([0x12, 0x34, 0, 0, 64, protocol, 0, 0]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        let checksum = !reference_sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(transport);
        frame
    }

    fn octets(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        [source.octets(), destination.octets()].concat()
    }

    fn packet(frame: &[u8], offload: &Offload) -> Packet<V4> {
        match parse(frame, offload) {
            Parsed::Ipv4(packet) => packet,
            other => panic!("not IPv4: {other:?}"),
        }
    }

    fn any_address() -> BoxedStrategy<Ipv4Addr> {
        (1u8..=126, any::<[u8; 3]>())
            .prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d))
            .boxed()
    }

    fn error(
        scratch: &mut [u8],
        kind: super::icmp::ErrorKind,
        frame: &[u8],
        from: Ipv4Addr,
    ) -> Option<usize> {
        super::icmp::error_v4(
            scratch,
            kind,
            frame,
            &V4::packet(frame, &Offload::NONE),
            from,
            0,
        )
    }
}

impl Sample for V6 {
    fn frame(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, transport: &[u8]) -> Vec<u8> {
        let mut frame = [TO, FROM].concat();
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(u16::try_from(transport.len()).unwrap().to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend(transport);
        frame
    }

    fn octets(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        [source.octets(), destination.octets()].concat()
    }

    fn packet(frame: &[u8], offload: &Offload) -> Packet<V6> {
        match parse(frame, offload) {
            Parsed::Ipv6(packet) => packet,
            other => panic!("not IPv6: {other:?}"),
        }
    }

    fn any_address() -> BoxedStrategy<Ipv6Addr> {
        any::<[u8; 16]>()
            .prop_map(|mut octets| {
                octets[0] = 0x20 | (octets[0] & 0x1f);
                Ipv6Addr::from(octets)
            })
            .boxed()
    }

    fn error(
        scratch: &mut [u8],
        kind: super::icmp::ErrorKind,
        frame: &[u8],
        from: Ipv6Addr,
    ) -> Option<usize> {
        super::icmp::error_v6(
            scratch,
            kind,
            frame,
            &V6::packet(frame, &Offload::NONE),
            from,
        )
    }
}

/// A TCP segment with a correct checksum.
pub(crate) fn tcp<F: Sample>(tuple: &Tuple<F>, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
    let mut segment = [
        tuple.source_port.to_be_bytes(),
        tuple.destination_port.to_be_bytes(),
    ]
    .concat();
    segment.extend([
        0, 0, 3, 0xe8, 0, 0, 7, 0xd0, 0x50, flags.0, 0xfa, 0xf0, 0, 0, 0, 0,
    ]);
    segment.extend(payload);
    let checksum = reference_l4(
        &F::octets(tuple.source, tuple.destination),
        wire::TCP,
        &segment,
    );
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    F::frame(tuple.source, tuple.destination, wire::TCP, &segment)
}

/// A UDP datagram with a correct checksum.
pub(crate) fn udp<F: Sample>(tuple: &Tuple<F>, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let mut datagram = [tuple.source_port, tuple.destination_port, len, 0]
        .map(u16::to_be_bytes)
        .concat();
    datagram.extend(payload);
    let checksum = reference_l4(
        &F::octets(tuple.source, tuple.destination),
        wire::UDP,
        &datagram,
    );
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    F::frame(tuple.source, tuple.destination, wire::UDP, &datagram)
}

/// An SCTP packet with a correct checksum.
pub(crate) fn sctp<F: Sample>(tuple: &Tuple<F>, payload: &[u8]) -> Vec<u8> {
    let mut packet = [
        tuple.source_port.to_be_bytes(),
        tuple.destination_port.to_be_bytes(),
    ]
    .concat();
    packet.extend([1, 2, 3, 4, 0, 0, 0, 0]);
    packet.extend(payload);
    super::crc32c::write(&mut packet);
    F::frame(tuple.source, tuple.destination, wire::SCTP, &packet)
}

/// A frame of the tuple's protocol.
pub(crate) fn of_protocol<F: Sample>(tuple: &Tuple<F>, payload: &[u8]) -> Vec<u8> {
    match tuple.protocol {
        wire::TCP => tcp(tuple, TcpFlags(0x18), payload),
        wire::UDP => udp(tuple, payload),
        wire::SCTP => sctp(tuple, payload),
        protocol => F::frame(tuple.source, tuple.destination, protocol, payload),
    }
}

/// Makes a complete TCP or UDP frame one whose sender left the checksum to the NIC.
pub(crate) fn make_partial<F: Sample>(frame: &mut [u8]) -> Offload {
    let packet = F::packet(frame, &Offload::NONE);
    let offset = wire::checksum_offset(packet.tuple.protocol).expect("TCP or UDP");
    let mut pseudo = F::octets(packet.tuple.source, packet.tuple.destination);
    pseudo.extend(
        u32::try_from(packet.end() - packet.l4())
            .unwrap()
            .to_be_bytes(),
    );
    pseudo.extend([0, 0, 0, packet.tuple.protocol]);
    let field = packet.l4() + offset;
    frame[field..field + 2].copy_from_slice(&reference_sum(&pseudo).to_be_bytes());
    Offload {
        partial_checksum: true,
        checksum_start: packet.l4,
        checksum_offset: u16::try_from(offset).unwrap(),
        ..Offload::NONE
    }
}

/// What every frame that goes out must be: parseable, with right checksums.
pub(crate) fn assert_valid<F: Sample>(frame: &[u8]) -> Packet<F> {
    let packet = F::packet(frame, &Offload::NONE);
    let tuple = &packet.tuple;
    if packet.fragment != Fragment::None {
        return packet;
    }
    let bytes = &frame[packet.l4()..packet.end()];
    let addresses = F::octets(tuple.source, tuple.destination);
    match tuple.protocol {
        wire::TCP | wire::UDP | wire::ICMPV6 => {
            assert_eq!(reference_l4(&addresses, tuple.protocol, bytes), 0)
        }
        wire::ICMP => assert_eq!(!reference_sum(bytes), 0),
        wire::SCTP => {
            let mut again = bytes.to_vec();
            super::crc32c::write(&mut again);
            assert_eq!(again, bytes);
        }
        _ => {}
    }
    packet
}

/// A tuple of one of the protocols.
pub(crate) fn any_tuple<F: Sample>(protocols: &'static [u8]) -> impl Strategy<Value = Tuple<F>> {
    let protocol = prop::sample::select(protocols);
    (
        F::any_address(),
        F::any_address(),
        any::<u16>(),
        any::<u16>(),
        protocol,
    )
        .prop_map(
            |(source, destination, source_port, destination_port, protocol)| Tuple {
                source,
                destination,
                source_port,
                destination_port,
                protocol,
            },
        )
}

pub(crate) fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

/// A tuple by its parts.
pub(crate) fn tuple<F: Sample>(
    source: (&str, u16),
    destination: (&str, u16),
    protocol: u8,
) -> Tuple<F>
where
    F::Address: std::str::FromStr<Err: std::fmt::Debug>,
{
    Tuple {
        source: source.0.parse().unwrap(),
        destination: destination.0.parse().unwrap(),
        source_port: source.1,
        destination_port: destination.1,
        protocol,
    }
}

/// A TCP tuple from a client to a virtual address.
pub(crate) fn client_v4(protocol: u8) -> Tuple<V4> {
    tuple(("10.64.0.7", 40001), ("10.0.0.100", 80), protocol)
}

pub(crate) fn client_v6(protocol: u8) -> Tuple<V6> {
    tuple(("fd00:64::7", 40001), ("fd00:a::100", 80), protocol)
}

/// Makes the IPv4 header checksum right after a change of the header.
pub(crate) fn fix_header(frame: &mut [u8]) {
    let end = ETHERNET_LEN + usize::from(frame[14] & 15) * 4;
    frame[24..26].fill(0);
    let checksum = !reference_sum(&frame[14..end]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// Whether `bytes` are what `pattern` says, in which dots are wild.
pub(crate) fn assert_matches(about: &str, bytes: &[u8], pattern: &str) {
    let got: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let masked: String = got
        .chars()
        .zip(pattern.chars())
        .map(|(got, want)| if want == '.' { '.' } else { got })
        .collect();
    assert_eq!(got.len(), pattern.len(), "{about}");
    assert_eq!(masked, pattern, "{about}");
}
