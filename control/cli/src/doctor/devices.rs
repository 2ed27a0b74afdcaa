//! NICs on the PCI bus, and who has them: the kernel's own drivers, or those that hand them to DPDK.

use super::machine::Machine;
use super::report::Report;

/// Drivers that give a device to user space.
const USER_SPACE: [&str; 3] = ["vfio-pci", "igb_uio", "uio_pci_generic"];

/// Which NIC is bound to what?
pub(super) fn pci(machine: &Machine, report: &mut Report) {
    const CHECK: &str = "NIC";
    const DEVICES: &str = "sys/bus/pci/devices";
    let has_iommu = !machine.names("sys/class/iommu").is_empty();
    for address in machine.names(DEVICES) {
        let folder = format!("{DEVICES}/{address}");
        let class = machine.read(&format!("{folder}/class")).unwrap_or_default();
        // Network controllers. Source: PCI Code and ID Assignment Specification §1.3.
        if !class.starts_with("0x02") {
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
