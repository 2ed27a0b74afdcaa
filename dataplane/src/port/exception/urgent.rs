//! Which frames the kernel must not miss: without them the machine is off the network, or another takes its place.

use crate::packet::wire::{
    ETHER_TYPE_ARP, ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET_LEN, IPV6_LEN, TCP, read_u16,
};

/// Source: RFC 5798 §5.1.1.4.
const VRRP: u8 = 112;
/// Source: RFC 4443 §2.1.
const ICMPV6: u8 = 58;
/// Router and neighbour solicitations and advertisements, redirects. Source: RFC 4861 §4.
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;
/// Source: RFC 4271 §8.2.1.
const BGP: u16 = 179;

/// Whether a frame is of ARP, neighbour discovery, VRRP or BGP.
pub(super) fn is_urgent(frame: &[u8]) -> bool {
    let byte = |at: usize| frame.get(at).copied().unwrap_or(0);
    if frame.len() < ETHERNET_LEN {
        return false;
    }
    let (protocol, l4) = match read_u16(frame, ETHERNET_LEN - 2) {
        ETHER_TYPE_ARP => return true,
        ETHER_TYPE_IPV4 => (
            byte(ETHERNET_LEN + 9),
            ETHERNET_LEN + usize::from(byte(ETHERNET_LEN) & 15) * 4,
        ),
        ETHER_TYPE_IPV6 => (byte(ETHERNET_LEN + 6), ETHERNET_LEN + IPV6_LEN),
        _ => return false,
    };
    match protocol {
        VRRP => true,
        ICMPV6 => NEIGHBOUR_DISCOVERY.contains(&byte(l4)),
        TCP if frame.len() >= l4 + 4 => {
            read_u16(frame, l4) == BGP || read_u16(frame, l4 + 2) == BGP
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, ports: [u16; 2]) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[23] = protocol;
        frame[34..36].copy_from_slice(&ports[0].to_be_bytes());
        frame[36..38].copy_from_slice(&ports[1].to_be_bytes());
        frame
    }

    #[test]
    fn arp_vrrp_bgp_and_neighbour_discovery_are_urgent_and_nothing_else() {
        let mut arp = vec![0; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        let mut solicitation = vec![0; 86];
        solicitation[12..14].copy_from_slice(&[0x86, 0xdd]);
        solicitation[20] = 58;
        solicitation[54] = 135;
        let mut echo = solicitation.clone();
        echo[54] = 128;
        let cases = [
            (arp, true),
            (ipv4(112, [0, 0]), true),
            (ipv4(6, [179, 40_000]), true),
            (ipv4(6, [40_000, 179]), true),
            (ipv4(6, [40_000, 22]), false),
            (ipv4(17, [179, 179]), false),
            (solicitation, true),
            (echo, false),
            (vec![0; 10], false),
            (ipv4(6, [179, 179])[..36].to_vec(), false),
        ];
        for (number, (frame, expected)) in cases.iter().enumerate() {
            assert_eq!(is_urgent(frame), *expected, "case {number}");
        }
    }
}
