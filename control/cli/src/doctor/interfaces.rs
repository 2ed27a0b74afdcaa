//! The kernel's interfaces that the configuration names.

use super::machine::Machine;
use super::report::Report;
use conntrack::Method;
use control::config::{Configuration, PortSettings};

/// Bytes that a tunnel may add: an IPv6 header, and GUE with its checksum's option.
const TUNNEL_BYTES: i64 = 40 + 8 + 8;

/// The kernel's interface of a port, if it has one.
pub(super) fn interface(port: &PortSettings) -> Option<&str> {
    port.driver.interface()
}

/// Each of them.
pub(super) fn all(machine: &Machine, configuration: &Configuration, report: &mut Report) {
    for port in &configuration.ports {
        if let Some(interface) = interface(port) {
            one(machine, configuration, &port.name, interface, report);
        }
    }
}

fn one(
    machine: &Machine,
    configuration: &Configuration,
    port: &str,
    interface: &str,
    report: &mut Report,
) {
    let check = format!("port {port}");
    let folder = format!("sys/class/net/{interface}");
    if !machine.exists(&folder) {
        let mut names = machine.names("sys/class/net");
        names.retain(|name| name != "lo");
        let advice = format!("port.{port}.interface: one of {}", names.join(", "));
        report.fail(&check, format!("no interface \"{interface}\""), &advice);
        return;
    }
    let driver = machine.link(&format!("{folder}/device/driver"));
    let queues = machine.names(&format!("{folder}/queues"));
    let count = |kind: &str| queues.iter().filter(|name| name.starts_with(kind)).count();
    report.ok(
        &check,
        format!(
            "{interface}: driver {}, {} receive and {} transmit queues",
            driver.as_deref().unwrap_or("none (virtual)"),
            count("rx-"),
            count("tx-")
        ),
    );
    state(machine, &folder, &check, interface, report);
    mtu(machine, configuration, &folder, &check, report);
    filter(machine, &check, interface, report);
}

/// Up, with a link?
fn state(machine: &Machine, folder: &str, check: &str, interface: &str, report: &mut Report) {
    let flags = machine.read(&format!("{folder}/flags")).unwrap_or_default();
    let flags = i64::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
    // IFF_UP. Source: Linux include/uapi/linux/if.h.
    if flags & 1 == 0 {
        let advice = format!("ip link set {interface} up");
        report.fail(check, format!("{interface} is down"), &advice);
    } else if machine.number(&format!("{folder}/carrier")) == Some(0) {
        let advice = "look at the cable, the other end, and the switch's port";
        report.warn(check, format!("{interface} has no link"), advice);
    } else {
        report.ok(check, format!("{interface} is up"));
    }
}

/// Is there room for tunnels?
fn mtu(
    machine: &Machine,
    configuration: &Configuration,
    folder: &str,
    check: &str,
    report: &mut Report,
) {
    let Some(mtu) = machine.number(&format!("{folder}/mtu")) else {
        return;
    };
    let services = configuration.services.iter();
    let tunnels = services
        .flat_map(|service| &service.servers)
        .any(|server| server.method == Method::Tun);
    if tunnels && mtu < 1500 + TUNNEL_BYTES {
        let advice = "an MTU of 1600 towards the servers, or clients' packets of full size are cut or refused with \"too big\"";
        report.warn(
            check,
            format!("MTU {mtu}: too small for a packet of 1500 bytes in a tunnel"),
            advice,
        );
    } else {
        report.ok(check, format!("MTU {mtu}"));
    }
}

/// Does the kernel drop what it takes for spoofed? That concerns what is its own alone: the director's packets pass it by.
fn filter(machine: &Machine, check: &str, interface: &str, report: &mut Report) {
    let value = |of: &str| machine.number(&format!("proc/sys/net/ipv4/conf/{of}/rp_filter"));
    // The larger of the two holds. Source: Linux Documentation/networking/ip-sysctl.rst.
    let strict = [value("all"), value(interface)].into_iter().flatten().max() == Some(1);
    if strict {
        report.note(
            check,
            format!("rp_filter of {interface} is strict: of no effect on the director's packets, but on the kernel's own"),
        );
    }
}
