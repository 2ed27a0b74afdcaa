//! RSTs in the name of either end of a TCP connection, made of a segment of it: nothing else is known of sequence numbers.

use super::wire::{ETHERNET_LEN, IPV4_LEN, TCP, TCP_LEN, Wire, read_u32, write_u16, write_u32};
use super::{Packet, TcpFlags, checksum};

/// TTL and hop limit of what the director sends.
const TTL: u8 = 64;
/// Bytes of the longest RST, Ethernet header included.
pub const RESET_LEN: usize = ETHERNET_LEN + 40 + TCP_LEN;

/// Builds in `scratch` the RST that answers a segment, back to where it came from; returns the frame's length.
///
/// Source: RFC 9293 §3.10.7.1.
///
/// # Panics
/// When `scratch` is shorter than [`RESET_LEN`], or `packet` is not what `parse` made of this frame: a whole TCP segment.
pub fn answer<F: Wire>(scratch: &mut [u8], frame: &[u8], packet: &Packet<F>) -> usize {
    let l3 = ETHERNET_LEN;
    let l4 = l3 + F::HEADER_LEN;
    let len = l4 + TCP_LEN;
    let reply = &mut scratch[..len];
    reply.fill(0);
    reply[..6].copy_from_slice(&frame[6..12]);
    reply[6..12].copy_from_slice(&frame[..6]);
    write_u16(reply, 12, F::ETHER_TYPE);
    if F::HEADER_LEN == IPV4_LEN {
        reply[l3] = 0x45;
        // It fits everywhere.
        write_u16(reply, l3 + 6, 0x4000);
        reply[l3 + 9] = TCP;
    } else {
        write_u32(reply, l3, 0x6000_0000);
        reply[l3 + 6] = TCP;
    }
    reply[l3 + F::TTL] = TTL;
    let (source, destination) = (packet.tuple.destination, packet.tuple.source);
    F::write_address(reply, l3 + F::SOURCE, source);
    F::write_address(reply, l3 + F::DESTINATION, destination);
    F::resize(reply, l3, len - l3, 0);
    write_u16(reply, l4, packet.tuple.destination_port);
    write_u16(reply, l4 + 2, packet.tuple.source_port);
    let (asked, flags) = (packet.l4(), packet.tcp_flags);
    if flags.has(TcpFlags::ACK) {
        write_u32(reply, l4 + 4, read_u32(frame, asked + 8));
        reply[l4 + 13] = TcpFlags::RST.0;
    } else {
        let header = usize::from(frame[asked + 12] >> 4) * 4;
        let payload = packet.end() - asked - header;
        let counted = u32::from(flags.has(TcpFlags::SYN)) + u32::from(flags.has(TcpFlags::FIN));
        let end = u32::try_from(payload).expect("a packet is shorter than 4 GiB") + counted;
        let acknowledged = read_u32(frame, asked + 4).wrapping_add(end);
        write_u32(reply, l4 + 8, acknowledged);
        reply[l4 + 13] = TcpFlags::RST.0 | TcpFlags::ACK.0;
    }
    finish::<F>(reply, l4, source, destination);
    len
}

/// Makes a segment, in place, the RST that its sender would send in its stead; returns what it is then. The caller cuts the
/// frame to the packet's end, and it is complete.
///
/// # Panics
/// When `packet` is not what `parse` made of this frame: a whole TCP segment.
pub fn instead<F: Wire>(frame: &mut [u8], packet: &Packet<F>) -> Packet<F> {
    let (l3, l4) = (packet.l3(), packet.l4());
    let end = l4 + TCP_LEN;
    let mut flags = TcpFlags::RST;
    if packet.tcp_flags.has(TcpFlags::ACK) {
        flags.0 |= TcpFlags::ACK.0;
    } else {
        write_u32(frame, l4 + 8, 0);
    }
    frame[l4 + 13] = flags.0;
    write_u32(frame, l4 + 14, 0);
    write_u16(frame, l4 + 18, 0);
    F::resize(frame, l3, end - l3, 0);
    let (source, destination) = (packet.tuple.source, packet.tuple.destination);
    finish::<F>(&mut frame[..end], l4, source, destination);
    Packet {
        end: u32::try_from(end).expect("the frame was longer"),
        tcp_flags: flags,
        ..*packet
    }
}

/// A header without options, and its checksum.
fn finish<F: Wire>(frame: &mut [u8], l4: usize, source: F::Address, destination: F::Address) {
    frame[l4 + 12] = 5 << 4;
    write_u16(frame, l4 + 16, 0);
    let checksum = checksum::l4::<F>(source, destination, TCP, &frame[l4..]);
    write_u16(frame, l4 + 16, checksum);
}
