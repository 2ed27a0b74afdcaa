//! What DPDK and its ports are told. Known to builds without DPDK, too, so that a configuration can be checked anywhere.

/// What DPDK is begun with, once a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Memory in huge pages; without, of ordinary ones.
    pub huge_pages: bool,
    /// How much of it is taken at once, MiB; `None`: with huge pages as much as needed, otherwise 512.
    pub memory_mib: Option<u32>,
    /// PCI addresses of the devices that are to be found.
    pub pci: Vec<String>,
    /// More arguments, as the user gives them.
    pub arguments: Vec<String>,
}

/// By what a NIC chooses a frame's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// By both ends; the two directions of a flow meet.
    #[default]
    Flow,
    /// By the source alone: on the clients' side, where the servers' side goes by the destination, both directions of a
    /// NAT connection meet.
    Source,
    /// By the destination alone.
    Destination,
}

/// The whole PCI address of a device that is named by one ("01:00.0" is in domain 0000); arguments may follow.
#[must_use]
pub fn pci_address(device: &str) -> Option<String> {
    let name = device.split(',').next().unwrap_or_default();
    let parts: Vec<&str> = name.split(':').collect();
    let (domain, bus, rest) = match parts[..] {
        [bus, rest] => ("0000", bus, rest),
        [domain, bus, rest] => (domain, bus, rest),
        _ => return None,
    };
    let (slot, function) = rest.split_once('.')?;
    let is_hex = |text: &str, lens: std::ops::RangeInclusive<usize>| {
        lens.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let is_address = is_hex(domain, 4..=8)
        && is_hex(bus, 2..=2)
        && is_hex(slot, 2..=2)
        && is_hex(function, 1..=1);
    is_address.then(|| format!("{domain}:{bus}:{slot}.{function}").to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_told_from_virtual_devices() {
        assert_eq!(pci_address("0000:01:00.0").as_deref(), Some("0000:01:00.0"));
        assert_eq!(pci_address("0A:1f.1,x=1").as_deref(), Some("0000:0a:1f.1"));
        for other in [
            "net_null0",
            "net_af_packet0,iface=eth0",
            "",
            "01:00",
            "1:00.0",
            "01:0g.0",
        ] {
            assert_eq!(pci_address(other), None, "{other}");
        }
    }
}
