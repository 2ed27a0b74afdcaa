//! Marks: what a packet is, by where it came in, whose it is and whom it asks, so that one service can be many addresses,
//! ports and protocols. Asked only where a packet has no connection yet.
//!
//! Differs from IPVS: there, netfilter's rules mark every packet, and the last rule that matches holds. Here the first one
//! holds, and only packets without a connection are looked at.

use crate::packet::wire::{SCTP, TCP, UDP};
use crate::port::PortId;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// An address and its bits that count, both families in one form: IPv4 as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    mask: u128,
}

impl Network {
    /// The addresses that share the first `len` bits with `address`. A length beyond the family's means all bits.
    #[must_use]
    pub fn new(address: IpAddr, len: u8) -> Network {
        // An IPv4 address in this form has 96 bits before it, which always count.
        let len = if address.is_ipv4() {
            u32::from(len.min(32)) + 96
        } else {
            u32::from(len.min(128))
        };
        let mask = u128::MAX.checked_shl(128 - len).unwrap_or(0);
        Network {
            bits: bits(address) & mask,
            mask,
        }
    }

    /// Whether an address is one of them.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.bits
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Marks the packets that are all of what it says; what it does not say, they may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRule {
    /// The mark; not 0.
    pub mark: u32,
    /// The port that packets come in by.
    pub port: Option<PortId>,
    /// Addresses of clients.
    pub source: Option<Network>,
    /// Addresses that are asked.
    pub destination: Option<Network>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Ports of clients, host byte order.
    pub source_ports: RangeInclusive<u16>,
    /// Ports that are asked, host byte order.
    pub destination_ports: RangeInclusive<u16>,
    /// Of IPv4 (`false`) or IPv6 (`true`) alone.
    pub ipv6: Option<bool>,
}

/// What a rule looks at in a packet.
#[derive(Clone, Copy, Debug)]
pub struct Marked {
    /// The port that it came in by.
    pub port: PortId,
    /// Who sent it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
}

impl MarkRule {
    /// Whether the rule marks the packet.
    #[must_use]
    pub fn matches(&self, packet: &Marked) -> bool {
        let has_ports = matches!(packet.protocol, TCP | UDP | SCTP);
        let all = 0..=u16::MAX;
        let ports = |wanted: &RangeInclusive<u16>, port: u16| {
            *wanted == all || (has_ports && wanted.contains(&port))
        };
        self.port.is_none_or(|port| port == packet.port)
            && self
                .ipv6
                .is_none_or(|ipv6| ipv6 == packet.destination.is_ipv6())
            && self
                .protocol
                .is_none_or(|protocol| protocol == packet.protocol)
            && ports(&self.destination_ports, packet.destination_port)
            && ports(&self.source_ports, packet.source_port)
            && self
                .destination
                .is_none_or(|network| network.contains(packet.destination))
            && self
                .source
                .is_none_or(|network| network.contains(packet.source))
    }
}

/// The mark of the first rule that matches.
#[must_use]
pub fn mark_of(rules: &[MarkRule], packet: &Marked) -> Option<u32> {
    let rule = rules.iter().find(|rule| rule.matches(packet));
    rule.map(|rule| rule.mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: MarkRule = MarkRule {
        mark: 1,
        port: None,
        source: None,
        destination: None,
        protocol: None,
        source_ports: 0..=u16::MAX,
        destination_ports: 0..=u16::MAX,
        ipv6: None,
    };

    fn packet(source: &str, destination: &str) -> Marked {
        Marked {
            port: PortId(0),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: TCP,
            source_port: 40_000,
            destination_port: 80,
        }
    }

    fn network(address: &str, len: u8) -> Network {
        Network::new(address.parse().unwrap(), len)
    }

    #[test]
    fn every_word_of_a_rule_counts() {
        let asked = packet("10.64.0.7", "10.5.0.1");
        assert!(ANY.matches(&asked));
        let rules = [
            (
                MarkRule {
                    port: Some(PortId(1)),
                    ..ANY
                },
                false,
            ),
            (
                MarkRule {
                    port: Some(PortId(0)),
                    ..ANY
                },
                true,
            ),
            (
                MarkRule {
                    source: Some(network("10.64.0.0", 24)),
                    ..ANY
                },
                true,
            ),
            (
                MarkRule {
                    source: Some(network("10.64.1.0", 24)),
                    ..ANY
                },
                false,
            ),
            (
                MarkRule {
                    destination: Some(network("10.5.0.1", 32)),
                    ..ANY
                },
                true,
            ),
            (
                MarkRule {
                    destination: Some(network("10.5.0.2", 32)),
                    ..ANY
                },
                false,
            ),
            (
                MarkRule {
                    protocol: Some(UDP),
                    ..ANY
                },
                false,
            ),
            (
                MarkRule {
                    destination_ports: 80..=80,
                    ..ANY
                },
                true,
            ),
            (
                MarkRule {
                    destination_ports: 81..=65535,
                    ..ANY
                },
                false,
            ),
            (
                MarkRule {
                    source_ports: 0..=1023,
                    ..ANY
                },
                false,
            ),
            (
                MarkRule {
                    ipv6: Some(true),
                    ..ANY
                },
                false,
            ),
            (
                MarkRule {
                    ipv6: Some(false),
                    ..ANY
                },
                true,
            ),
        ];
        for (rule, matches) in rules {
            assert_eq!(rule.matches(&asked), matches, "{rule:?}");
        }
    }

    #[test]
    fn a_prefix_of_one_family_has_no_address_of_the_other() {
        let all4 = MarkRule {
            source: Some(network("0.0.0.0", 0)),
            ..ANY
        };
        assert!(all4.matches(&packet("10.64.0.7", "10.5.0.1")));
        assert!(!all4.matches(&packet("fd00::7", "fd00::1")));
        let some6 = MarkRule {
            source: Some(network("fd00::", 16)),
            ..ANY
        };
        assert!(some6.matches(&packet("fd00::7", "fd00::1")));
        assert!(!some6.matches(&packet("10.64.0.7", "10.5.0.1")));
        assert!(!some6.matches(&packet("fd01::7", "fd00::1")));
    }

    #[test]
    fn a_protocol_without_ports_matches_no_rule_with_ports() {
        let esp = Marked {
            protocol: 50,
            ..packet("10.64.0.7", "10.5.0.1")
        };
        assert!(ANY.matches(&esp));
        assert!(
            !MarkRule {
                destination_ports: 0..=80,
                ..ANY
            }
            .matches(&esp)
        );
    }

    #[test]
    fn the_first_rule_that_matches_holds() {
        let rules = [
            MarkRule {
                mark: 1,
                protocol: Some(UDP),
                ..ANY
            },
            MarkRule { mark: 2, ..ANY },
            MarkRule { mark: 3, ..ANY },
        ];
        let asked = packet("10.64.0.7", "10.5.0.1");
        assert_eq!(mark_of(&rules, &asked), Some(2));
        assert_eq!(mark_of(&rules[..1], &asked), None);
    }
}
