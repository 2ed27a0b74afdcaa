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
    code.set(R3, PASS);
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
