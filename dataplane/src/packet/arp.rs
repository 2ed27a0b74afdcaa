//! ARP for IPv4 over Ethernet.
//!
//! Source: RFC 826, RFC 5227.

use super::wire::{ETHER_TYPE_ARP, ETHER_TYPE_IPV4, ETHERNET_LEN, read_array, read_u16, write_u16};
use crate::port::Mac;
use crate::reason::Reason;
use std::net::Ipv4Addr;

/// Bytes of a frame that is made here; the NIC pads it.
pub const FRAME_LEN: usize = ETHERNET_LEN + 28;

const ETHERNET: u16 = 1;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// What an ARP packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has.
    Reply,
}

/// An ARP packet's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Asking or telling.
    pub operation: Operation,
    /// Who sent it.
    pub sender_mac: Mac,
    /// Its address; 0.0.0.0 in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// Whom it is for; without meaning in a request.
    pub target_mac: Mac,
    /// The address asked for, or that of whom it is for.
    pub target: Ipv4Addr,
}

impl Arp {
    /// An announcement: the sender tells of its own address, as request or as reply.
    #[must_use]
    pub fn is_gratuitous(&self) -> bool {
        self.sender == self.target
    }

    /// The frame that carries it to `to`.
    #[must_use]
    pub fn build(&self, to: Mac) -> [u8; FRAME_LEN] {
        let mut frame = [0; FRAME_LEN];
        frame[..6].copy_from_slice(&to.0);
        frame[6..12].copy_from_slice(&self.sender_mac.0);
        write_u16(&mut frame, 12, ETHER_TYPE_ARP);
        write_u16(&mut frame, 14, ETHERNET);
        write_u16(&mut frame, 16, ETHER_TYPE_IPV4);
        frame[18] = 6;
        frame[19] = 4;
        let operation = match self.operation {
            Operation::Request => REQUEST,
            Operation::Reply => REPLY,
        };
        write_u16(&mut frame, 20, operation);
        frame[22..28].copy_from_slice(&self.sender_mac.0);
        frame[28..32].copy_from_slice(&self.sender.octets());
        frame[32..38].copy_from_slice(&self.target_mac.0);
        frame[38..42].copy_from_slice(&self.target.octets());
        frame
    }
}

/// Reads an ARP frame; padding behind it is ignored.
///
/// # Errors
/// `Truncated`: shorter than an ARP packet. `Malformed`: not IPv4 over Ethernet, neither request nor reply, or a group
/// address as sender's MAC. `BadSource`: a multicast, broadcast or loopback address as sender.
///
/// # Panics
/// Never.
pub fn parse(frame: &[u8]) -> Result<Arp, Reason> {
    let frame = frame.first_chunk::<FRAME_LEN>().ok_or(Reason::Truncated)?;
    let ethernet_ipv4 = read_u16(frame, 14) == ETHERNET
        && read_u16(frame, 16) == ETHER_TYPE_IPV4
        && frame[18] == 6
        && frame[19] == 4;
    let operation = match read_u16(frame, 20) {
        REQUEST => Operation::Request,
        REPLY => Operation::Reply,
        _ => return Err(Reason::Malformed),
    };
    let sender_mac = Mac(read_array(frame, 22));
    if !ethernet_ipv4 || sender_mac.0[0] & 1 != 0 {
        return Err(Reason::Malformed);
    }
    let sender = Ipv4Addr::from(read_array::<4>(frame, 28));
    if sender.is_multicast() || sender.is_broadcast() || sender.is_loopback() {
        return Err(Reason::BadSource);
    }
    Ok(Arp {
        operation,
        sender_mac,
        sender,
        target_mac: Mac(read_array(frame, 32)),
        target: Ipv4Addr::from(read_array::<4>(frame, 38)),
    })
}

/// Asks for the MAC of `target`: everybody, or only `to` when it is merely to be confirmed.
#[must_use]
pub fn request(mac: Mac, address: Ipv4Addr, target: Ipv4Addr, to: Option<Mac>) -> [u8; FRAME_LEN] {
    let arp = Arp {
        operation: Operation::Request,
        sender_mac: mac,
        sender: address,
        target_mac: Mac([0; 6]),
        target,
    };
    arp.build(to.unwrap_or(Mac([0xff; 6])))
}

/// Answers `request` for the address it asks for, which `mac` has.
#[must_use]
pub fn reply(mac: Mac, request: &Arp) -> [u8; FRAME_LEN] {
    let arp = Arp {
        operation: Operation::Reply,
        sender_mac: mac,
        sender: request.target,
        target_mac: request.sender_mac,
        target: request.sender,
    };
    arp.build(request.sender_mac)
}

/// Tells everybody that `mac` has `address` (a gratuitous ARP, in the form of a request, which all hosts take in).
///
/// Source: RFC 5227 §2.3 and §3.
#[must_use]
pub fn gratuitous(mac: Mac, address: Ipv4Addr) -> [u8; FRAME_LEN] {
    request(mac, address, address, None)
}
