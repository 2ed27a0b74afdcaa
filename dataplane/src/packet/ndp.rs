//! IPv6 neighbour discovery: solicitations and advertisements.
//!
//! Source: RFC 4861.

use super::wire::{ETHER_TYPE_IPV6, ETHERNET_LEN, ICMPV6, IPV6_LEN, Wire, read_array, write_u16};
use super::{Fragment, Packet, V6, checksum};
use crate::port::Mac;
use crate::reason::Reason;
use std::net::Ipv6Addr;

/// Bytes of a frame that is made here: all carry a link-layer address option.
pub const FRAME_LEN: usize = L4 + MESSAGE_LEN + OPTION_LEN;

const L4: usize = ETHERNET_LEN + IPV6_LEN;
/// Header, flags and target.
const MESSAGE_LEN: usize = 24;
const OPTION_LEN: usize = 8;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A neighbour discovery message about one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has `target`?
    Solicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// Who asks; absent in duplicate address detection, which comes from `::` and is answered to all nodes.
        source_mac: Option<Mac>,
    },
    /// The sender has `target`.
    Advertisement {
        /// The address told of.
        target: Ipv6Addr,
        /// Where it is; may be absent in the answer to a unicast question.
        target_mac: Option<Mac>,
        /// The sender is a router.
        router: bool,
        /// It answers a question; an announcement does not.
        solicited: bool,
        /// A known MAC is to be replaced.
        replace: bool,
    },
}

/// Reads a neighbour solicitation or advertisement, with all the checks of RFC 4861 §7.1.
///
/// # Errors
/// `IcmpUnsupported`: another ICMPv6 message. `BadIcmpChecksum`. `Malformed`: from beyond the link (hop limit not 255),
/// fragmented or behind extension headers (RFC 6980), or contents that §7.1 forbids.
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
pub fn parse(frame: &[u8], packet: &Packet<V6>) -> Result<Message, Reason> {
    let message = &frame[packet.l4()..packet.end()];
    let is_ours = packet.tuple.protocol == ICMPV6
        && packet.fragment != Fragment::Later
        && matches!(message[0], SOLICITATION | ADVERTISEMENT);
    if !is_ours {
        return Err(Reason::IcmpUnsupported);
    }
    let plain = packet.fragment == Fragment::None && packet.l4() == packet.l3() + IPV6_LEN;
    if !plain || packet.ttl != 255 || message[1] != 0 || message.len() < MESSAGE_LEN {
        return Err(Reason::Malformed);
    }
    let (source, destination) = (packet.tuple.source, packet.tuple.destination);
    if checksum::icmp::<V6>(source, destination, message) != 0 {
        return Err(Reason::BadIcmpChecksum);
    }
    let target = Ipv6Addr::from(read_array::<16>(message, 8));
    if target.is_multicast() {
        return Err(Reason::Malformed);
    }
    let options = &message[MESSAGE_LEN..];
    if message[0] == SOLICITATION {
        let source_mac = mac_option(options, SOURCE_MAC)?;
        let from_nowhere = source.is_unspecified();
        if from_nowhere && (source_mac.is_some() || !is_solicited_node(destination)) {
            return Err(Reason::Malformed);
        }
        return Ok(Message::Solicitation { target, source_mac });
    }
    let target_mac = mac_option(options, TARGET_MAC)?;
    let solicited = message[4] & SOLICITED != 0;
    if solicited && destination.is_multicast() {
        return Err(Reason::Malformed);
    }
    Ok(Message::Advertisement {
        target,
        target_mac,
        router: message[4] & ROUTER != 0,
        solicited,
        replace: message[4] & OVERRIDE != 0,
    })
}

/// The MAC in the first option of this kind. Every option must have a length, in units of eight bytes.
fn mac_option(mut options: &[u8], kind: u8) -> Result<Option<Mac>, Reason> {
    let mut mac = None;
    while !options.is_empty() {
        let header = options
            .first_chunk::<OPTION_LEN>()
            .ok_or(Reason::Malformed)?;
        let len = usize::from(header[1]) * 8;
        if len == 0 || len > options.len() {
            return Err(Reason::Malformed);
        }
        if header[0] == kind && mac.is_none() {
            mac = Some(Mac(read_array(header, 2)));
        }
        options = &options[len..];
    }
    Ok(mac)
}

/// The multicast group on which `address` is asked for. Source: RFC 4291 §2.7.1.
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

fn is_solicited_node(group: Ipv6Addr) -> bool {
    group == solicited_node(group)
}

/// The MAC of a multicast group. Source: RFC 2464 §7.
#[must_use]
pub fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// Asks for the MAC of `target`: its solicited-node group, or only `to` when it is merely to be confirmed.
#[must_use]
pub fn solicitation(
    mac: Mac,
    address: Ipv6Addr,
    target: Ipv6Addr,
    to: Option<Mac>,
) -> [u8; FRAME_LEN] {
    let destination = if to.is_some() {
        target
    } else {
        solicited_node(target)
    };
    let to = to.unwrap_or_else(|| multicast_mac(destination));
    build(
        &Envelope {
            to,
            mac,
            source: address,
            destination,
        },
        SOLICITATION,
        0,
        target,
    )
}

/// Answers a solicitation for `target`, which `mac` has; `asker` and `to` are the solicitation's source address and MAC.
/// One from `::` (duplicate address detection) is answered to all nodes, whatever `to` is.
#[must_use]
pub fn advertisement(mac: Mac, target: Ipv6Addr, asker: Ipv6Addr, to: Mac) -> [u8; FRAME_LEN] {
    if asker.is_unspecified() {
        return unsolicited(mac, target);
    }
    let envelope = Envelope {
        to,
        mac,
        source: target,
        destination: asker,
    };
    build(&envelope, ADVERTISEMENT, SOLICITED | OVERRIDE, target)
}

/// Tells all nodes that `mac` has `target`. Source: RFC 4861 §7.2.6.
#[must_use]
pub fn unsolicited(mac: Mac, target: Ipv6Addr) -> [u8; FRAME_LEN] {
    let destination = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let envelope = Envelope {
        to: multicast_mac(destination),
        mac,
        source: target,
        destination,
    };
    build(&envelope, ADVERTISEMENT, OVERRIDE, target)
}

/// From whom to whom.
struct Envelope {
    to: Mac,
    mac: Mac,
    source: Ipv6Addr,
    destination: Ipv6Addr,
}

fn build(envelope: &Envelope, kind: u8, flags: u8, target: Ipv6Addr) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&envelope.to.0);
    frame[6..12].copy_from_slice(&envelope.mac.0);
    write_u16(&mut frame, 12, ETHER_TYPE_IPV6);
    frame[ETHERNET_LEN] = 0x60;
    frame[ETHERNET_LEN + 5] = 32;
    frame[ETHERNET_LEN + 6] = ICMPV6;
    frame[ETHERNET_LEN + 7] = 255;
    V6::write_address(&mut frame, ETHERNET_LEN + V6::SOURCE, envelope.source);
    V6::write_address(
        &mut frame,
        ETHERNET_LEN + V6::DESTINATION,
        envelope.destination,
    );
    frame[L4] = kind;
    frame[L4 + 4] = flags;
    V6::write_address(&mut frame, L4 + 8, target);
    frame[L4 + MESSAGE_LEN] = if kind == SOLICITATION {
        SOURCE_MAC
    } else {
        TARGET_MAC
    };
    frame[L4 + MESSAGE_LEN + 1] = 1;
    frame[L4 + MESSAGE_LEN + 2..].copy_from_slice(&envelope.mac.0);
    let checksum = checksum::icmp::<V6>(envelope.source, envelope.destination, &frame[L4..]);
    write_u16(&mut frame, L4 + 2, checksum);
    frame
}
