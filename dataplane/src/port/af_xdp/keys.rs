//! What of a snapshot the XDP program must know: whose packets are the director's.
//!
//! | packets | known by |
//! |---|---|
//! | clients' to a service | VIP, protocol, port; all ports of a service of port 0 or of FTP, and where marks choose |
//! | servers' to a FULLNAT source | LIP, protocol, all ports |
//! | servers' by NAT | source address, protocol, port; all ports where clients choose, and with a helper |
//! | echo requests, pieces | any address that the director answers for; pieces also of NAT servers |
//!
//! More than that may be known for a while: what the worker does not want goes back to the kernel.

use crate::mark::MarkRule;
use crate::packet::wire::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::port::PortId;
use crate::snapshot::{FTP_PORT, Owned, Server, Service, ServiceId, Snapshot};
use conntrack::Method;
use scheduler::RealServerId;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Bytes of a [`Key`].
pub(super) const KEY_LEN: usize = 20;
/// In the place of the protocol, for packets whose transport header the program does not look for: fragments, and IPv6
/// packets with extension headers. IANA keeps the number 255 reserved.
pub(super) const PIECES: u8 = 255;
const TRANSPORTS: [u8; 3] = [TCP, UDP, SCTP];

/// One end of packets.
/// ```text
///  0                           16     17         18
/// ┌───────────────────────────┬──────┬──────────┬──────┐
/// │ address, IPv4 as ::ffff:… │ side │ protocol │ port │  network byte order; side 0: destination, 1: source
/// └───────────────────────────┴──────┴──────────┴──────┘
/// ```
/// Port 0 is all ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) [u8; KEY_LEN]);

impl Key {
    fn new(address: IpAddr, side: u8, protocol: u8, port: u16) -> Key {
        let address = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut key = [0; KEY_LEN];
        key[..16].copy_from_slice(&address.octets());
        key[16] = side;
        key[17] = protocol;
        key[18..].copy_from_slice(&port.to_be_bytes());
        Key(key)
    }

    /// What is sent to an address.
    pub(super) fn to(address: IpAddr, protocol: u8, port: u16) -> Key {
        Key::new(address, 0, protocol, port)
    }

    /// What an address sends.
    pub(super) fn from(address: IpAddr, protocol: u8, port: u16) -> Key {
        Key::new(address, 1, protocol, port)
    }
}

/// Follows the snapshots.
#[derive(Default)]
pub(super) struct Keys {
    /// Servers that had connections by NAT, whatever their method is by now.
    by_nat: HashSet<RealServerId>,
}

impl Keys {
    /// The keys of a snapshot, as the port `port` sees it.
    pub(super) fn of(&mut self, snapshot: &Snapshot, port: PortId) -> HashSet<Key> {
        let mut keys = HashSet::new();
        for (key, service) in snapshot.services.iter().filter(|(key, _)| !key.is_mark()) {
            let wanted = if has_all_ports(service) { 0 } else { key.port };
            keys.insert(Key::to(key.address, key.protocol, wanted));
            keys.insert(Key::to(key.address, PIECES, 0));
        }
        for (&address, &owned) in &snapshot.owned {
            if owned != Owned::Kernel {
                let echo = if address.is_ipv4() { ICMP } else { ICMPV6 };
                keys.insert(Key::to(address, echo, 0));
                keys.insert(Key::to(address, PIECES, 0));
            }
            if owned == Owned::Local {
                keys.extend(TRANSPORTS.map(|protocol| Key::to(address, protocol, 0)));
            }
            let rules = snapshot
                .marks
                .iter()
                .filter(|rule| may_mark(rule, port, address));
            for rule in rules {
                marked(&mut keys, rule, address);
            }
        }
        self.servers(snapshot, &mut keys);
        keys
    }

    /// The servers by NAT.
    fn servers(&mut self, snapshot: &Snapshot, keys: &mut HashSet<Key>) {
        let services: HashMap<ServiceId, &Service> = snapshot
            .services
            .values()
            .map(|service| (service.id, &**service))
            .collect();
        let present = |id: &RealServerId| {
            let server = snapshot.servers.get(id.0 as usize);
            server.is_some_and(Option::is_some)
        };
        self.by_nat.retain(present);
        for server in snapshot.servers.iter().flatten() {
            if server.method == Method::Nat {
                self.by_nat.insert(server.id);
            }
            if self.by_nat.contains(&server.id) {
                let service = services.get(&server.service).copied();
                keys.extend(speaks(server, service.filter(|_| server.present)));
                keys.insert(Key::from(server.address, PIECES, 0));
            }
        }
    }
}

/// Whether clients may ask a service at other ports than its own: all of them, or those that FTP's transfers have.
fn has_all_ports(service: &Service) -> bool {
    let is_ftp = service.key.protocol == TCP && service.key.port == FTP_PORT;
    service.key.port == 0 || is_ftp || service.helper.is_some()
}

/// What a server by NAT sends for its service. Of a removed service not even the protocol is known.
fn speaks(server: &Server, service: Option<&Service>) -> impl Iterator<Item = Key> {
    let all_ports = service.is_none_or(|service| {
        has_all_ports(service) || (service.persistence.is_some() && service.key.is_of_all_ports())
    });
    let port = if all_ports && service.is_some() {
        0
    } else {
        server.port
    };
    let protocol = service
        .map(|service| service.key.protocol)
        .filter(|&protocol| protocol != 0);
    let protocols = TRANSPORTS
        .into_iter()
        .filter(move |one| protocol.is_none_or(|protocol| protocol == *one));
    let address = server.address;
    protocols.map(move |protocol| Key::from(address, protocol, port))
}

/// Whether a rule may mark what arrives at `port` for `address`.
fn may_mark(rule: &MarkRule, port: PortId, address: IpAddr) -> bool {
    rule.port.is_none_or(|of| of == port)
        && rule.ipv6.is_none_or(|ipv6| ipv6 == address.is_ipv6())
        && rule
            .destination
            .is_none_or(|network| network.contains(address))
}

/// What a rule may mark of the packets for `address`.
fn marked(keys: &mut HashSet<Key>, rule: &MarkRule, address: IpAddr) {
    let (low, high) = (
        *rule.destination_ports.start(),
        *rule.destination_ports.end(),
    );
    let port = if low == high { low } else { 0 };
    let protocols = TRANSPORTS.into_iter();
    let protocols = protocols.filter(|one| rule.protocol.is_none_or(|protocol| protocol == *one));
    keys.extend(protocols.map(|protocol| Key::to(address, protocol, port)));
    keys.insert(Key::to(address, PIECES, 0));
}
