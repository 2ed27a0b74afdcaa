//! The XDP program: which frames of an interface are the director's, and which the kernel's.
//!
//! ```text
//!   not to our MAC, a VLAN tag, neither IPv4 nor IPv6 ──────────────────────────────▶ kernel
//!   TCP, UDP, SCTP:   destination and port, destination, source and port, source ─▶┐
//!   echo request:     destination ───────────────────────────────────────────────▶├─ known? ─ yes ─▶ socket of the queue
//!   fragment, IPv6 extension header: destination, source ────────────────────────▶┘    └──── no ──▶ kernel
//!   anything else (ARP, neighbour discovery, ICMP errors, …) ───────────────────────▶ kernel
//! ```
//! What is known stands in one hash map of [`Key`](super::keys::Key)s. A frame of a queue without a socket is the kernel's.
//!
//! Source: Linux Documentation/networking/af_xdp.rst, include/uapi/linux/bpf.h (`xdp_md`, `xdp_action`).

use super::assembler::Register::{R0, R1, R2, R3, R6, R7, R8, R9, R10};
use super::assembler::{Assembler, If, Instruction, Label, Size};
use super::keys::{KEY_LEN, PIECES};
use crate::packet::wire::{
    ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET_LEN, ICMP, ICMPV6, IPV4_LEN, IPV6_LEN, SCTP, TCP,
    UDP,
};
use crate::port::Mac;

/// `XDP_PASS`: the frame is the kernel's.
const PASS: i32 = 2;
/// `bpf_map_lookup_elem` and `bpf_redirect_map`.
const LOOKUP: i32 = 1;
const REDIRECT_MAP: i32 = 51;

// Fields of `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE_INDEX: i16 = 16;

// Offsets in a frame.
const ETHER_TYPE: i16 = 12;
const L3: i16 = 14;
const V4_FRAGMENT: i16 = L3 + 6;
const V4_PROTOCOL: i16 = L3 + 9;
const V4_SOURCE: i16 = L3 + 12;
const V4_DESTINATION: i16 = L3 + 16;
const V6_NEXT_HEADER: i16 = L3 + 6;
const V6_SOURCE: i16 = L3 + 8;
const V6_DESTINATION: i16 = L3 + 24;
const _: () = assert!(L3 as usize == ETHERNET_LEN);

// Requests of ICMP and ICMPv6 echo.
const V4_ECHO: i32 = 8;
const V6_ECHO: i32 = 128;
/// IPv6 headers behind which the transport header may be: hop-by-hop, routing, fragment, destination options.
const V6_EXTENSIONS: [i32; 4] = [0, 43, 44, 60];

/// The two keys on the stack, each as [`Key`](super::keys::Key) has it.
const DESTINATION_KEY: i16 = -24;
const SOURCE_KEY: i16 = -48;
// Within a key.
const SIDE: i16 = 16;
const PROTOCOL: i16 = 17;
const PORT: i16 = 18;
const _: () = assert!(PORT as usize + 2 == KEY_LEN && KEY_LEN <= 24);

/// Where the parts of the program meet.
struct Places {
    transport: Label,
    ports: Label,
    pieces: Label,
    echo: Label,
    ours: Label,
    kernels: Label,
}

/// The program for an interface with the address `mac`, with the maps behind two file descriptors: what is ours, and the
/// sockets by queue.
pub(super) fn program(mac: Mac, ours: i32, sockets: i32) -> Vec<Instruction> {
    program_or(mac, ours, sockets, PASS)
}

/// The same with the verdict for a frame of ours whose queue has no socket.
fn program_or(mac: Mac, ours: i32, sockets: i32, without_socket: i32) -> Vec<Instruction> {
    let mut code = Assembler::default();
    let places = Places {
        transport: code.label(),
        ports: code.label(),
        pieces: code.label(),
        echo: code.label(),
        ours: code.label(),
        kernels: code.label(),
    };
    link_layer(&mut code, mac, &places);
    transport(&mut code, &places);

    // TCP, UDP, SCTP: R9 is where the ports are.
    code.place(places.ports);
    needs(&mut code, R9, 4, &places);
    code.load(Size::Half, R1, R9, 0);
    code.store(Size::Half, R10, SOURCE_KEY + PORT, R1);
    code.load(Size::Half, R1, R9, 2);
    code.store(Size::Half, R10, DESTINATION_KEY + PORT, R1);
    for key in [DESTINATION_KEY, SOURCE_KEY] {
        look_up(&mut code, ours, key, &places);
        // The same for all ports.
        code.store_value(Size::Half, R10, key + PORT, 0);
        look_up(&mut code, ours, key, &places);
    }
    code.jump(places.kernels);

    code.place(places.pieces);
    for key in [DESTINATION_KEY, SOURCE_KEY] {
        code.store_value(Size::Byte, R10, key + PROTOCOL, PIECES.into());
        look_up(&mut code, ours, key, &places);
    }
    code.jump(places.kernels);

    code.place(places.echo);
    look_up(&mut code, ours, DESTINATION_KEY, &places);

    code.place(places.kernels);
    code.set(R0, PASS);
    code.exit();

    // The frame goes to the socket of its queue; without one it is the kernel's.
    code.place(places.ours);
    code.set_map(R1, sockets);
    code.load(Size::Word, R2, R6, RX_QUEUE_INDEX);
    code.set(R3, without_socket);
    code.call(REDIRECT_MAP);
    code.exit();
    code.finish()
}

/// The program that leaves every frame to the kernel: what is run on frames that go back to it.
pub(super) fn pass_all() -> Vec<Instruction> {
    let mut code = Assembler::default();
    code.set(R0, PASS);
    code.exit();
    code.finish()
}

/// Addresses and protocol into the keys; leaves R7 at the frame, R8 at its end, R9 at the transport header.
fn link_layer(code: &mut Assembler, mac: Mac, places: &Places) {
    let ipv6 = code.label();
    let network_order = |value: u16| i32::from(value.to_be());
    code.copy(R6, R1);
    code.load(Size::Word, R7, R6, DATA);
    code.load(Size::Word, R8, R6, DATA_END);
    needs(code, R7, ETHERNET_LEN + IPV4_LEN, places);
    // Halves, because on some machines a frame's words are where no word can be loaded.
    let [a, b, c, d, e, f] = mac.0;
    for (offset, half) in [(0, [a, b]), (2, [c, d]), (4, [e, f])] {
        code.load(Size::Half, R1, R7, offset);
        let half = i32::from(u16::from_ne_bytes(half));
        code.jump_if(R1, If::NotEqual, half, places.kernels);
    }
    // Neither side has ports yet; whoever is asked is side 0, whoever speaks is side 1.
    for (key, side) in [(DESTINATION_KEY, 0), (SOURCE_KEY, 1)] {
        code.store_value(Size::Byte, R10, key + SIDE, side);
        code.store_value(Size::Half, R10, key + PORT, 0);
    }
    code.load(Size::Half, R1, R7, ETHER_TYPE);
    code.jump_if(R1, If::Equal, network_order(ETHER_TYPE_IPV6), ipv6);
    code.jump_if(
        R1,
        If::NotEqual,
        network_order(ETHER_TYPE_IPV4),
        places.kernels,
    );

    // IPv4, as ::ffff:a.b.c.d.
    for (key, address) in [(DESTINATION_KEY, V4_DESTINATION), (SOURCE_KEY, V4_SOURCE)] {
        code.store_value(Size::Double, R10, key, 0);
        code.store_value(
            Size::Word,
            R10,
            key + 8,
            i32::from_ne_bytes([0, 0, 0xff, 0xff]),
        );
        code.load(Size::Word, R1, R7, address);
        code.store(Size::Word, R10, key + 12, R1);
    }
    code.load(Size::Half, R1, R7, V4_FRAGMENT);
    code.and(R1, network_order(0x3fff));
    code.jump_if(R1, If::NotEqual, 0, places.pieces);
    code.load(Size::Byte, R2, R7, V4_PROTOCOL);
    // The header's length, in words.
    code.load(Size::Byte, R1, R7, L3);
    code.and(R1, 0x0f);
    code.jump_if(R1, If::Less, 5, places.kernels);
    code.shift_left(R1, 2);
    code.copy(R9, R7);
    code.add_register(R9, R1);
    code.add(R9, L3.into());
    // What has another meaning in IPv6.
    code.jump_if(R2, If::Equal, ICMPV6.into(), places.kernels);
    code.jump(places.transport);

    code.place(ipv6);
    needs(code, R7, ETHERNET_LEN + IPV6_LEN, places);
    for (key, address) in [(DESTINATION_KEY, V6_DESTINATION), (SOURCE_KEY, V6_SOURCE)] {
        for word in [0, 4, 8, 12] {
            code.load(Size::Word, R1, R7, address + word);
            code.store(Size::Word, R10, key + word, R1);
        }
    }
    code.copy(R9, R7);
    code.add(R9, i32::from(L3) + 40);
    code.load(Size::Byte, R2, R7, V6_NEXT_HEADER);
    for extension in V6_EXTENSIONS {
        code.jump_if(R2, If::Equal, extension, places.pieces);
    }
    code.jump_if(R2, If::Equal, ICMP.into(), places.kernels);
}

/// By the protocol in R2, whose header is at R9.
fn transport(code: &mut Assembler, places: &Places) {
    let (icmp, icmpv6) = (code.label(), code.label());
    code.place(places.transport);
    for key in [DESTINATION_KEY, SOURCE_KEY] {
        code.store(Size::Byte, R10, key + PROTOCOL, R2);
    }
    for protocol in [TCP, UDP, SCTP] {
        code.jump_if(R2, If::Equal, protocol.into(), places.ports);
    }
    code.jump_if(R2, If::Equal, ICMP.into(), icmp);
    code.jump_if(R2, If::Equal, ICMPV6.into(), icmpv6);
    code.jump(places.kernels);
    for (place, request) in [(icmp, V4_ECHO), (icmpv6, V6_ECHO)] {
        code.place(place);
        needs(code, R9, 1, places);
        code.load(Size::Byte, R1, R9, 0);
        code.jump_if(R1, If::Equal, request, places.echo);
        code.jump(places.kernels);
    }
}

/// Leaves a frame to the kernel that has fewer than `len` bytes behind `from`.
fn needs(code: &mut Assembler, from: super::assembler::Register, len: usize, places: &Places) {
    code.copy(R1, from);
    code.add(R1, i32::try_from(len).expect("headers are short"));
    code.jump_if_register(R1, If::Greater, R8, places.kernels);
}

/// Goes on at `ours` if the key on the stack is known.
fn look_up(code: &mut Assembler, map: i32, key: i16, places: &Places) {
    code.set_map(R1, map);
    code.copy(R2, R10);
    code.add(R2, key.into());
    code.call(LOOKUP);
    code.jump_if(R0, If::NotEqual, 0, places.ours);
}

#[cfg(test)]
mod tests {
    use super::super::bpf::{Map, Program};
    use super::super::keys::Key;
    use super::*;
    use std::net::IpAddr;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const DROP: i32 = 1;

    /// An Ethernet header, an IP header and `rest`.
    fn frame(source: &str, destination: &str, protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut frame = MAC.0.to_vec();
        frame.extend([2, 0, 0, 0, 0, 9]);
        match (source.parse().unwrap(), destination.parse().unwrap()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            _ => panic!("one family"),
        }
        frame.extend(rest);
        frame
    }

    fn ports(source: u16, destination: u16) -> Vec<u8> {
        let mut header = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        header.extend([0; 16]);
        header
    }

    fn changed(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    }

    /// Description, frame, whether it is ours.
    fn cases() -> Vec<(&'static str, Vec<u8>, bool)> {
        let asked = |protocol, port| {
            frame(
                "198.51.100.1",
                "192.0.2.100",
                protocol,
                &ports(40_000, port),
            )
        };
        let asked6 = |protocol, port| {
            frame(
                "2001:db8::1",
                "2001:db8::100",
                protocol,
                &ports(40_000, port),
            )
        };
        let says =
            |source, protocol, port| frame(source, "198.51.100.1", protocol, &ports(port, 40_000));
        let with_options = {
            // Ports where those of a header without options would be, and others behind it.
            let plain = frame(
                "198.51.100.1",
                "192.0.2.100",
                TCP,
                &[&ports(1, 443)[..4], &ports(40_000, 80)].concat(),
            );
            changed(plain, 14, &[0x46])
        };
        let tagged = {
            let mut tagged = asked(TCP, 80);
            tagged.splice(12..12, [0x81, 0, 0, 5]);
            tagged
        };
        vec![
            ("the service", asked(TCP, 80), true),
            ("another port", asked(TCP, 22), false),
            ("another protocol", asked(UDP, 80), false),
            (
                "another address",
                frame("198.51.100.1", "192.0.2.101", TCP, &ports(40_000, 80)),
                false,
            ),
            ("a service of all ports", asked(SCTP, 9), true),
            ("the service of IPv6", asked6(TCP, 80), true),
            ("another port of IPv6", asked6(TCP, 81), false),
            ("a server's reply", says("10.0.0.11", TCP, 8080), true),
            ("the server's ssh", says("10.0.0.11", TCP, 22), false),
            (
                "the address of the service as a source",
                says("192.0.2.100", TCP, 80),
                false,
            ),
            ("behind IPv4 options", with_options, true),
            (
                "a header shorter than any",
                changed(asked(TCP, 80), 14, &[0x44]),
                false,
            ),
            (
                "an echo request",
                frame("198.51.100.1", "192.0.2.100", ICMP, &[8, 0]),
                true,
            ),
            (
                "an echo reply",
                frame("198.51.100.1", "192.0.2.100", ICMP, &[0, 0]),
                false,
            ),
            (
                "an ICMP error",
                frame("198.51.100.1", "192.0.2.100", ICMP, &[3, 4]),
                false,
            ),
            (
                "an echo request of IPv6",
                frame("2001:db8::1", "2001:db8::100", ICMPV6, &[128, 0]),
                true,
            ),
            (
                "neighbour discovery",
                frame("2001:db8::1", "2001:db8::100", ICMPV6, &[135, 0]),
                false,
            ),
            (
                "ICMPv6 in IPv4",
                frame("198.51.100.1", "192.0.2.100", ICMPV6, &[128, 0]),
                false,
            ),
            (
                "a first fragment",
                changed(asked(TCP, 22), 20, &[0x20, 0]),
                true,
            ),
            (
                "a later fragment",
                changed(asked(TCP, 22), 20, &[0, 9]),
                true,
            ),
            (
                "don't fragment",
                changed(asked(TCP, 22), 20, &[0x40, 0]),
                false,
            ),
            (
                "a server's fragment",
                changed(says("10.0.0.11", UDP, 1), 20, &[0, 9]),
                true,
            ),
            (
                "a stranger's fragment",
                changed(says("10.0.0.12", UDP, 1), 20, &[0, 9]),
                false,
            ),
            ("an IPv6 fragment", asked6(44, 1), true),
            ("another tunnel's packet", asked(47, 1), false),
            ("to another MAC", changed(asked(TCP, 80), 5, &[8]), false),
            ("to all", changed(asked(TCP, 80), 0, &[0xff; 6]), false),
            ("a VLAN tag", tagged, false),
            ("ARP", changed(asked(TCP, 80), 12, &[8, 6]), false),
            ("cut within the ports", asked(TCP, 80)[..37].to_vec(), false),
            (
                "cut within the IP header",
                asked(TCP, 80)[..33].to_vec(),
                false,
            ),
            (
                "cut within the IPv6 header",
                asked6(TCP, 80)[..53].to_vec(),
                false,
            ),
        ]
    }

    /// Runs in the kernel. Needs root.
    #[test]
    fn the_kernel_finds_ours_and_nothing_else() {
        let ours = Map::hash("test", KEY_LEN, 64).expect("needs root");
        let sockets = Map::sockets("test", 1).unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (vip, vip6, server) = ("192.0.2.100", "2001:db8::100", "10.0.0.11");
        for key in [
            Key::to(address(vip), TCP, 80),
            Key::to(address(vip), SCTP, 0),
            Key::to(address(vip), ICMP, 0),
            Key::to(address(vip), PIECES, 0),
            Key::to(address(vip6), TCP, 80),
            Key::to(address(vip6), ICMPV6, 0),
            Key::to(address(vip6), PIECES, 0),
            Key::from(address(server), TCP, 8080),
            Key::from(address(server), PIECES, 0),
        ] {
            ours.insert(&key.0, &[1]).unwrap();
        }
        // There is no socket, so that what goes to one is dropped instead.
        let code = program_or(MAC, ours.fd(), sockets.fd(), DROP);
        let program = Program::load("test", &code).unwrap();
        for (description, frame, is_ours) in cases() {
            let verdict = program.verdict(&frame).unwrap();
            let expected = if is_ours { DROP } else { PASS };
            assert_eq!(verdict, expected.cast_unsigned(), "{description}");
        }
        let pass = Program::load("test", &pass_all()).unwrap();
        assert_eq!(pass.verdict(&cases()[0].1).unwrap(), PASS.cast_unsigned());
    }

    #[test]
    fn a_program_that_the_verifier_refuses_is_refused_with_its_words() {
        let mut code = Assembler::default();
        code.load(Size::Word, R0, R1, 4096);
        code.exit();
        let Err(error) = Program::load("test", &code.finish()) else {
            panic!("it reads beyond its context");
        };
        assert!(
            error.to_string().contains("invalid bpf_context access"),
            "{error}"
        );
    }
}
