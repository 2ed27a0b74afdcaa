//! Why a device cannot be opened, and what to do.

use super::Config;
use super::eal::EalError;
use dpdk_sys as dpdk;
use std::path::Path;

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no environment.
    #[error(transparent)]
    Environment(#[from] EalError),
    /// A value of the configuration is out of its range.
    #[error("{field} = {value}: accepted are {accepted}")]
    OutOfRange {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
        /// What it may say.
        accepted: &'static str,
    },
    /// The machine has no such device.
    #[error(
        "device {device:?} does not exist; `dpdk-devbind.py --status` lists PCI devices, and a virtual one begins with its \
         driver's name, such as \"net_af_packet0,iface=eth0\""
    )]
    NoSuchDevice {
        /// Which.
        device: String,
    },
    /// The kernel drives it.
    #[error(
        "device {device:?} is bound to the kernel driver {driver:?}: give it to DPDK by `modprobe vfio-pci` and \
         `dpdk-devbind.py --bind=vfio-pci {device}` (the kernel's interface of it goes away), or use driver \"af_packet\""
    )]
    BoundToKernel {
        /// Which.
        device: String,
        /// Of the kernel.
        driver: String,
    },
    /// No driver at all has it.
    #[error(
        "device {device:?} is bound to no driver: `modprobe vfio-pci` and `dpdk-devbind.py --bind=vfio-pci {device}` (the \
         IOMMU must be on: intel_iommu=on or amd_iommu=on on the kernel's command line)"
    )]
    Unbound {
        /// Which.
        device: String,
    },
    /// Another port has it.
    #[error("device {device:?} is used already; each port needs a device of its own")]
    Used {
        /// Which.
        device: String,
    },
    /// No driver of DPDK took the device.
    #[error(
        "device {device:?}: DPDK does not open it ({error}): its driver (PMD) may be missing (Debian: the packages \
         librte-net-*), or what is behind the device. DPDK says: {}",
        said(words)
    )]
    Refused {
        /// Which.
        device: String,
        /// What the error number means.
        error: String,
        /// What DPDK logged.
        words: String,
    },
    /// It has fewer queue pairs than there are workers.
    #[error(
        "device {device:?} has {queues} RX/TX queue pair(s), and there are {workers} workers, each of which needs one: set \
         `workers = {queues}` in [director]{hint}"
    )]
    TooFewQueues {
        /// Which.
        device: String,
        /// What it has.
        queues: u16,
        /// What there should be.
        workers: u16,
        /// How to get more, where that is known.
        hint: &'static str,
    },
    /// There is no memory for mbufs.
    #[error(
        "device {device:?}: no memory for {mbufs} mbufs ({mib} MiB) for each worker ({error}): set more huge pages aside, \
         raise `memory_mib` or lower `mbufs` in [dpdk]. DPDK says: {}",
        said(words)
    )]
    NoMemory {
        /// Which.
        device: String,
        /// Of one worker.
        mbufs: u32,
        /// What they take.
        mib: u64,
        /// What the error number means.
        error: String,
        /// What DPDK logged.
        words: String,
    },
    /// The device does not take what it is told.
    #[error(
        "device {device:?}: cannot {action} ({error}). DPDK says: {}",
        said(words)
    )]
    Step {
        /// Which.
        device: String,
        /// What was tried.
        action: String,
        /// What the error number means.
        error: String,
        /// What DPDK logged.
        words: String,
    },
    /// There is no exception path.
    #[error("device {device:?}: its exception path: {error}")]
    Exception {
        /// Which.
        device: String,
        /// Why.
        error: crate::port::exception::OpenError,
    },
}

fn said(words: &str) -> &str {
    if words.is_empty() { "nothing" } else { words }
}

/// The error of a step of `uvs_open`.
pub(super) fn of_step(
    config: &Config,
    step: u32,
    queues: u16,
    error: String,
    words: String,
) -> OpenError {
    let action = match step {
        dpdk::UVS_STEP_QUEUES => {
            let is_af_packet = config.device.starts_with("net_af_packet");
            return OpenError::TooFewQueues {
                device: config.device.clone(),
                queues,
                workers: config.workers,
                hint: if is_af_packet {
                    ", or give it more by the device argument qpairs=N"
                } else {
                    ""
                },
            };
        }
        dpdk::UVS_STEP_INFO => "ask what it is".to_owned(),
        dpdk::UVS_STEP_CONFIGURE => format!("configure {} queue pair(s)", config.workers),
        dpdk::UVS_STEP_DESCRIPTORS => format!(
            "have {} receive and {} transmit descriptors",
            config.receive_descriptors, config.transmit_descriptors
        ),
        dpdk::UVS_STEP_RX_QUEUE => format!(
            "set up a receive queue of {} descriptors and {} mbufs",
            config.receive_descriptors, config.mbufs
        ),
        dpdk::UVS_STEP_TX_QUEUE => {
            format!(
                "set up a transmit queue of {} descriptors",
                config.transmit_descriptors
            )
        }
        dpdk::UVS_STEP_MTU => format!("set mtu = {}", config.mtu.unwrap_or(0)),
        dpdk::UVS_STEP_START => "start it".to_owned(),
        _ => "read its address or MTU".to_owned(),
    };
    OpenError::Step {
        device: config.device.clone(),
        action,
        error,
        words,
    }
}

/// Drivers of the kernel that leave a device to DPDK, or share it.
const DPDK_DRIVERS: [&str; 9] = [
    "vfio-pci",
    "uio_pci_generic",
    "igb_uio",
    "uio_hv_generic",
    "mlx4_core",
    "mlx5_core",
    "mana",
    "pci-pf-stub",
    "nfp",
];

/// Whether a PCI device can be opened, as far as the kernel knows. Others may.
pub(super) fn check_pci(device: &str) -> Result<(), OpenError> {
    check_pci_in(Path::new("/sys/bus/pci/devices"), device)
}

fn check_pci_in(devices: &Path, device: &str) -> Result<(), OpenError> {
    let Some(address) = super::pci_address(device) else {
        return Ok(());
    };
    let (folder, device) = (devices.join(&address), address);
    if !folder.exists() {
        return Err(OpenError::NoSuchDevice { device });
    }
    let driver = std::fs::read_link(folder.join("driver"));
    let name = driver
        .as_deref()
        .ok()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned());
    match name {
        None => Err(OpenError::Unbound { device }),
        Some(driver) if DPDK_DRIVERS.contains(&driver.as_str()) => Ok(()),
        Some(driver) => Err(OpenError::BoundToKernel { device, driver }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_device_that_the_kernel_drives_is_told_with_what_to_do() {
        let root = std::env::temp_dir().join(format!("uvs-pci-{}", std::process::id()));
        let device = |address: &str, driver: Option<&str>| {
            let folder = root.join(address);
            std::fs::create_dir_all(&folder).unwrap();
            if let Some(driver) = driver {
                symlink(
                    format!("../../../bus/pci/drivers/{driver}"),
                    folder.join("driver"),
                )
                .unwrap();
            }
        };
        device("0000:01:00.0", Some("e1000e"));
        device("0000:01:00.1", Some("vfio-pci"));
        device("0000:01:00.2", None);
        let told = |device| {
            let result = check_pci_in(&root, device);
            result.map_err(|error| error.to_string())
        };
        let bound = told("0000:01:00.0").unwrap_err();
        assert!(
            bound.contains("\"e1000e\"") && bound.contains("--bind=vfio-pci 0000:01:00.0"),
            "{bound}"
        );
        assert!(
            told("01:00.0,some=argument")
                .unwrap_err()
                .contains("e1000e")
        );
        assert_eq!(told("0000:01:00.1"), Ok(()));
        assert!(
            told("0000:01:00.2")
                .unwrap_err()
                .contains("bound to no driver")
        );
        assert!(told("0000:01:00.3").unwrap_err().contains("does not exist"));
        assert_eq!(told("net_null0"), Ok(()));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
