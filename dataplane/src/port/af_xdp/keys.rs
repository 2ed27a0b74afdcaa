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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::Helper;
    use crate::mark::Network;
    use crate::neighbour::NeighbourId;
    use crate::path_mtu::PathMtu;
    use crate::snapshot::{NextHop, ServiceKey};
    use scheduler::{Load, Options};
    use std::sync::Arc;

    const PORT: PortId = PortId(1);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn service(id: u32, key: ServiceKey) -> Service {
        Service {
            id: ServiceId(id),
            key,
            scheduler: "rr".to_owned(),
            scheduler_options: Options::default(),
            servers: Vec::new(),
            edits: 0,
            local_addresses: Vec::new(),
            one_packet: false,
            helper: None,
            persistence: None,
        }
    }

    fn key(protocol: u8, of: &str, port: u16) -> ServiceKey {
        ServiceKey {
            protocol,
            address: address(of),
            port,
        }
    }

    fn server(id: u32, service: u32, method: Method, present: bool) -> Option<Arc<Server>> {
        Some(Arc::new(Server {
            id: RealServerId(id),
            service: ServiceId(service),
            address: address("10.0.0.11"),
            port: 8080,
            method,
            load: Arc::new(Load::default()),
            next_hop: NextHop {
                port: PORT,
                address: address("10.0.0.11"),
                neighbour: NeighbourId::NONE,
            },
            tunnel: None,
            path_mtu: Arc::new(PathMtu::default()),
            present,
        }))
    }

    fn snapshot(services: Vec<Service>, owned: &[(&str, Owned)]) -> Snapshot {
        Snapshot {
            services: services
                .into_iter()
                .map(|service| (service.key, Arc::new(service)))
                .collect(),
            owned: owned.iter().map(|(of, why)| (address(of), *why)).collect(),
            ..Snapshot::default()
        }
    }

    fn assert_keys(keys: &HashSet<Key>, expected: &[Key]) {
        let expected: HashSet<Key> = expected.iter().copied().collect();
        assert_eq!(*keys, expected);
    }

    #[test]
    fn a_service_is_its_port_alone_so_that_the_kernel_keeps_the_others() {
        let vip = "192.0.2.100";
        let mut snapshot = snapshot(
            vec![service(0, key(TCP, vip, 80))],
            &[(vip, Owned::Virtual)],
        );
        let to = |protocol, port| Key::to(address(vip), protocol, port);
        let expected = [to(TCP, 80), to(PIECES, 0), to(ICMP, 0)];
        assert_keys(&Keys::default().of(&snapshot, PORT), &expected);
        // What the kernel answers for it answers for: ping, too.
        snapshot.owned.insert(address(vip), Owned::Kernel);
        assert_keys(&Keys::default().of(&snapshot, PORT), &expected[..2]);
    }

    #[test]
    fn services_of_all_ports_of_ftp_and_with_a_helper_are_all_ports() {
        let vip = "2001:db8::100";
        for (of, helper) in [(0, None), (FTP_PORT, None), (2121, Some(Helper::Ftp))] {
            let of = Service {
                helper,
                ..service(0, key(TCP, vip, of))
            };
            let keys = Keys::default().of(&snapshot(vec![of], &[]), PORT);
            let to = |protocol| Key::to(address(vip), protocol, 0);
            assert_keys(&keys, &[to(TCP), to(PIECES)]);
        }
    }

    #[test]
    fn a_local_address_is_all_of_its_ports() {
        let lip = "10.0.0.200";
        let keys = Keys::default().of(&snapshot(Vec::new(), &[(lip, Owned::Local)]), PORT);
        let expected = [TCP, UDP, SCTP, ICMP, PIECES].map(|one| Key::to(address(lip), one, 0));
        assert_keys(&keys, &expected);
    }

    #[test]
    fn servers_by_nat_are_known_by_what_they_say_and_others_not() {
        let of_service = |method, present| {
            let mut of = snapshot(vec![service(0, key(UDP, "192.0.2.100", 53))], &[]);
            of.servers = vec![None, server(1, 0, method, present)];
            of
        };
        let from = |keys: &HashSet<Key>| {
            let mut said: Vec<_> = keys.iter().filter(|key| key.0[16] == 1).copied().collect();
            said.sort_by_key(|key| key.0);
            said
        };
        let said = |protocol, port| Key::from(address("10.0.0.11"), protocol, port);
        let mut keys = Keys::default();
        let by_dr = keys.of(&of_service(Method::Dr, true), PORT);
        assert_eq!(from(&by_dr), []);
        let by_nat = keys.of(&of_service(Method::Nat, true), PORT);
        assert_eq!(from(&by_nat), [said(UDP, 8080), said(PIECES, 0)]);
        // Its connections by NAT live on when its method changes.
        let changed = keys.of(&of_service(Method::Dr, true), PORT);
        assert_eq!(from(&changed), from(&by_nat));
        // Of a removed one, whose service may be gone, any protocol may speak.
        let removed = keys.of(&of_service(Method::Nat, false), PORT);
        let any = [TCP, UDP, SCTP].map(|protocol| said(protocol, 8080));
        assert_eq!(from(&removed), [&any[..], &[said(PIECES, 0)]].concat());
        // Once it has no connections any more it is forgotten.
        keys.of(&snapshot(Vec::new(), &[]), PORT);
        assert_eq!(from(&keys.of(&of_service(Method::Dr, true), PORT)), []);
    }

    #[test]
    fn a_server_of_a_service_of_all_ports_speaks_from_any() {
        let mut of = snapshot(vec![service(0, key(TCP, "192.0.2.100", 21))], &[]);
        of.servers = vec![server(0, 0, Method::Nat, true)];
        let keys = Keys::default().of(&of, PORT);
        assert!(keys.contains(&Key::from(address("10.0.0.11"), TCP, 0)));
        assert!(!keys.contains(&Key::from(address("10.0.0.11"), TCP, 8080)));
    }

    #[test]
    fn marks_choose_among_own_addresses_by_protocol_port_and_interface() {
        let rule = MarkRule {
            mark: 1,
            port: Some(PORT),
            source: None,
            destination: Some(Network::new(address("192.0.2.96"), 28)),
            protocol: Some(TCP),
            source_ports: 0..=u16::MAX,
            destination_ports: 443..=443,
            ipv6: Some(false),
        };
        let mut of = snapshot(
            vec![service(0, ServiceKey::of_mark(1, false))],
            &[("192.0.2.1", Owned::Kernel), ("192.0.2.100", Owned::Kernel)],
        );
        of.marks = vec![rule.clone()];
        let to = |protocol, port| Key::to(address("192.0.2.100"), protocol, port);
        assert_keys(
            &Keys::default().of(&of, PORT),
            &[to(TCP, 443), to(PIECES, 0)],
        );
        assert_keys(&Keys::default().of(&of, PortId(0)), &[]);
        of.marks[0].destination_ports = 443..=444;
        of.marks[0].protocol = None;
        let any = [TCP, UDP, SCTP, PIECES].map(|protocol| to(protocol, 0));
        assert_keys(&Keys::default().of(&of, PORT), &any);
    }

    #[test]
    fn a_key_is_laid_out_as_the_program_writes_it() {
        let Key(bytes) = Key::from(address("192.0.2.100"), UDP, 0x1234);
        let mut expected = [0; KEY_LEN];
        expected[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 100]);
        expected[16..].copy_from_slice(&[1, UDP, 0x12, 0x34]);
        assert_eq!(bytes, expected);
    }
}
