//! Ports of DPDK, in a build that has it.

use crate::config::{Configuration, DpdkDevice, PortSettings};
use dataplane::port::PortId;
use dataplane::port::any::AnyPort;
use dataplane::port::handle::Opened;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Opens a port; the first one begins DPDK itself.
#[cfg(feature = "dpdk")]
pub(super) fn open(
    id: PortId,
    port: &PortSettings,
    device: &DpdkDevice,
    configuration: &Configuration,
) -> Result<Opened<AnyPort>, Failure> {
    use crate::config::{DpdkSettings, Driver};
    use dataplane::port::dpdk::{self, Config, Settings};
    use dataplane::port::dpdk_settings::pci_address;
    use dataplane::port::exception;

    let DpdkSettings {
        huge_pages,
        memory_mib,
        arguments,
        receive_descriptors,
        transmit_descriptors,
        mbufs,
    } = configuration.dpdk.clone();
    let of_all = configuration
        .ports
        .iter()
        .filter_map(|port| match &port.driver {
            Driver::Dpdk(device) => pci_address(&device.device),
            _ => None,
        });
    dpdk::start(&Settings {
        huge_pages,
        memory_mib,
        pci: of_all.collect(),
        arguments,
    })?;
    let exception = device.exception.clone();
    let opened = dpdk::open(&Config {
        name: port.name.clone(),
        workers: configuration.director.workers,
        receive_descriptors,
        transmit_descriptors,
        mbufs,
        mtu: device.mtu,
        spread: device.spread,
        exception: exception.map(|interface| exception::Config { interface }),
        ..Config::new(id, &device.device)
    })?;
    Ok(Opened {
        queues: opened.queues.into_iter().map(AnyPort::Dpdk).collect(),
        handle: opened.handle,
    })
}

/// Says that this build has none.
#[cfg(not(feature = "dpdk"))]
pub(super) fn open(
    _: PortId,
    _: &PortSettings,
    _: &DpdkDevice,
    _: &Configuration,
) -> Result<Opened<AnyPort>, Failure> {
    Err("driver \"dpdk\": this uvsd was built without it; build with --features dpdk (it needs libdpdk 22.11 or later), \
         or use driver \"af_packet\""
        .into())
}
