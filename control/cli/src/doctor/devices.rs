//! NICs on the PCI bus, and who has them: the kernel's own drivers, or those that hand them to DPDK.

use super::machine::Machine;
use super::report::Report;
use control::config::{Configuration, Driver};

/// Drivers that give a device to user space.
const USER_SPACE: [&str; 3] = ["vfio-pci", "igb_uio", "uio_pci_generic"];

/// Drivers of the kernel's beside which DPDK drives the same device. Source: DPDK Network Interface Controller Drivers, MLX4, MLX5.
const SHARED: [&str; 2] = ["mlx4_core", "mlx5_core"];
const DEVICES: &str = "sys/bus/pci/devices";

/// Can DPDK have the devices of the configuration?
pub(super) fn of_dpdk(machine: &Machine, configuration: &Configuration, report: &mut Report) {
    for port in &configuration.ports {
        let Driver::Dpdk(device) = &port.driver else {
            continue;
        };
        let check = format!("port {}", port.name);
        let address = device.device.split(',').next().unwrap_or_default();
        if !is_pci_address(address) {
            report.note(&check, format!("{address} is a virtual device"));
            continue;
        }
        let folder = format!("{DEVICES}/{address}");
        if !machine.exists(&folder) {
            let mut there = machine.names(DEVICES);
            there.retain(|address| is_network(machine, address));
            let advice = format!("port.{}.device: one of {}", port.name, there.join(", "));
            report.fail(&check, format!("no PCI device {address}"), &advice);
            continue;
        }
        let driver = machine.link(&format!("{folder}/driver"));
        let driver = driver.as_deref().unwrap_or("none");
        if USER_SPACE.contains(&driver) || SHARED.contains(&driver) {
            report.ok(&check, format!("{address}: driver {driver}"));
        } else {
            report.fail(
                &check,
                format!("{address} is not given to user space: driver {driver}"),
                &format!("modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci {address}"),
            );
        }
    }
}

/// Such as "0000:01:00.0".
fn is_pci_address(text: &str) -> bool {
    let (places, hexadecimal): (Vec<_>, Vec<_>) = text
        .char_indices()
        .partition(|(_, sign)| ":.".contains(*sign));
    text.len() == 12
        && places == [(4, ':'), (7, ':'), (10, '.')]
        && hexadecimal.iter().all(|(_, sign)| sign.is_ascii_hexdigit())
}

/// A network controller? Source: PCI Code and ID Assignment Specification §1.3.
fn is_network(machine: &Machine, address: &str) -> bool {
    let class = machine.read(&format!("{DEVICES}/{address}/class"));
    class.is_some_and(|class| class.starts_with("0x02"))
}

/// Which NIC is bound to what?
pub(super) fn pci(machine: &Machine, report: &mut Report) {
    const CHECK: &str = "NIC";
    let has_iommu = !machine.names("sys/class/iommu").is_empty();
    for address in machine.names(DEVICES) {
        let folder = format!("{DEVICES}/{address}");
        if !is_network(machine, &address) {
            continue;
        }
        let Some(driver) = machine.link(&format!("{folder}/driver")) else {
            report.note(CHECK, format!("{address} has no driver"));
            continue;
        };
        if !USER_SPACE.contains(&driver.as_str()) {
            report.ok(CHECK, format!("{address} is the kernel's ({driver})"));
        } else if driver == "vfio-pci" && !has_iommu {
            report.warn(
                CHECK,
                format!("{address} is given to user space (vfio-pci) without an IOMMU"),
                "switch VT-d or AMD-Vi on in the BIOS, and intel_iommu=on or amd_iommu=on iommu=pt on the kernel's command line",
            );
        } else {
            report.ok(
                CHECK,
                format!("{address} is given to user space ({driver})"),
            );
        }
    }
}
