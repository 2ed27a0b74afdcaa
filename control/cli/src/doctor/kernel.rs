//! The kernel: its version, what it lets this process do, and what it must leave alone.

use super::interfaces::interface;
use super::machine::Machine;
use super::report::Report;
use control::config::{Configuration, Driver, PortSettings};

/// What packet sockets take, among the bits of a capability set. Source: Linux include/uapi/linux/capability.h.
const AF_PACKET: &[(&str, u32)] = &[("CAP_NET_RAW", 13)];
/// What AF_XDP takes: sockets, and a program on the interface.
const AF_XDP: &[(&str, u32)] = &[("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_BPF", 39)];
/// The first with all that drivers use: `BPF_LINK_CREATE` of XDP programs.
const RELEASE: (u32, u32) = (5, 9);

/// Is it new enough?
pub(super) fn version(machine: &Machine, report: &mut Report) {
    const CHECK: &str = "kernel";
    let Some(release) = machine.read("proc/sys/kernel/osrelease") else {
        let advice = "run uvs doctor on Linux, with /proc mounted";
        report.fail(CHECK, "/proc/sys/kernel/osrelease cannot be read", advice);
        return;
    };
    let mut numbers = release
        .split(['.', '-', '+'])
        .map(|part| part.parse::<u32>().ok());
    let numbers = (numbers.next().flatten(), numbers.next().flatten());
    if let (Some(major), Some(minor)) = numbers
        && (major, minor) < RELEASE
    {
        let finding = format!("Linux {release} is older than {}.{}", RELEASE.0, RELEASE.1);
        let advice = "AF_PACKET works; AF_XDP needs a newer kernel";
        report.warn(CHECK, finding, advice);
    } else {
        report.ok(CHECK, format!("Linux {release}"));
    }
}

/// May this process open the ports of the configuration?
pub(super) fn capabilities(machine: &Machine, configuration: &Configuration, report: &mut Report) {
    const CHECK: &str = "capabilities";
    let uses_xdp = |port: &PortSettings| matches!(port.driver, Driver::AfXdp { .. });
    let wanted = if configuration.ports.iter().any(uses_xdp) {
        AF_XDP
    } else if configuration
        .ports
        .iter()
        .any(|port| interface(port).is_some())
    {
        AF_PACKET
    } else {
        return;
    };
    let status = machine.read("proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()) else {
        return;
    };
    let names = |held: bool| {
        let named = wanted
            .iter()
            .filter(|(_, bit)| (effective >> bit & 1 == 1) == held);
        named.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    };
    let missing = names(false);
    if missing.is_empty() {
        report.ok(CHECK, names(true));
    } else {
        let advice = "uvsd needs it: run it as root, by uvsd.service, or with capabilities of its file (setcap)";
        report.warn(CHECK, format!("this process lacks {missing}"), advice);
    }
}

/// Does the kernel leave packets for virtual addresses alone?
pub(super) fn forwarding(machine: &Machine, configuration: &Configuration, report: &mut Report) {
    const CHECK: &str = "forwarding";
    for port in &configuration.ports {
        let Some(name) = interface(port) else {
            continue;
        };
        for (family, setting) in [("ipv4", "forwarding"), ("ipv6", "forwarding")] {
            let path = format!("net/{family}/conf/{name}/{setting}");
            if machine.number(&format!("proc/sys/{path}")) == Some(1) {
                report.warn(
                    CHECK,
                    format!("{} is 1: the kernel forwards what it gets on {name}", path.replace('/', ".")),
                    "set it to 0: else the kernel answers packets for virtual addresses, too (unreachable, redirects)",
                );
            } else if machine.exists(&format!("proc/sys/{path}")) {
                report.ok(CHECK, format!("{} is 0", path.replace('/', ".")));
            }
        }
    }
}
