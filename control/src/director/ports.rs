//! The ports of a director: opened, or handed over and looked at.

use super::{StartError, automatic, dpdk};
use crate::config::{Configuration, Driver, PortSettings};
use dataplane::port::any::AnyPort;
use dataplane::port::handle::{Fixed, Opened};
use dataplane::port::{Mac, Port, PortId, PortInfo, af_packet, af_xdp, memory::MemoryPort, pcap};
use std::sync::Arc;

/// Buffers of a memory port, and bytes of each.
const MEMORY_BUFFERS: (u32, u32) = (256, 2048);
/// Largest IP packet of a port without a device.
const DEVICELESS_MTU: u32 = 1500;

/// What a driver says.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Opens a port of the configuration.
pub(super) fn open(
    id: PortId,
    port: &PortSettings,
    configuration: &Configuration,
) -> Result<Opened<AnyPort>, StartError> {
    let opened = match &port.driver {
        Driver::Automatic { .. } => automatic::open(id, port, configuration),
        driver => open_as(driver, id, port, configuration),
    };
    opened.map_err(|error| StartError::Port {
        port: port.name.clone(),
        error,
    })
}

/// Opens a port by this driver.
pub(super) fn open_as(
    driver: &Driver,
    id: PortId,
    port: &PortSettings,
    configuration: &Configuration,
) -> Result<Opened<AnyPort>, Failure> {
    let workers = configuration.director.workers;
    match driver {
        Driver::Automatic { .. } => unreachable!("it was chosen already"),
        Driver::AfPacket { interface } => {
            let config = af_packet::Config {
                name: port.name.clone(),
                workers,
                ..af_packet::Config::new(id, interface)
            };
            let opened = af_packet::open(config)?;
            Ok(Opened {
                queues: opened.queues.into_iter().map(AnyPort::AfPacket).collect(),
                handle: opened.handle,
            })
        }
        Driver::Pcap {
            file,
            infinite,
            output,
        } => {
            let config = pcap::Config {
                id,
                info: info_without_a_device(id, port, "pcap"),
                workers,
                file: file.clone(),
                infinite: *infinite,
                output: output.clone(),
            };
            let opened = pcap::open(config)?;
            Ok(Opened {
                queues: opened.queues.into_iter().map(AnyPort::Pcap).collect(),
                handle: opened.handle,
            })
        }
        Driver::AfXdp {
            interface,
            checksums,
        } => {
            let config = af_xdp::Config {
                name: port.name.clone(),
                workers,
                checksums: *checksums,
                native_only: matches!(port.driver, Driver::Automatic { .. }),
                ..af_xdp::Config::new(id, interface)
            };
            let Opened { queues, handle } = af_xdp::open(&config)?;
            Ok(Opened {
                queues: queues.into_iter().map(AnyPort::AfXdp).collect(),
                handle,
            })
        }
        Driver::Dpdk(device) => dpdk::open(id, port, device, configuration),
        Driver::Memory => {
            let info = info_without_a_device(id, port, "memory");
            let (buffers, buffer_len) = MEMORY_BUFFERS;
            let queue =
                |_| AnyPort::Memory(MemoryPort::new(id, info.clone(), buffers, buffer_len).0);
            Ok(fixed((0..workers).map(queue).collect()))
        }
    }
}

/// A hardware address and an MTU where there is nothing to have them.
fn info_without_a_device(id: PortId, port: &PortSettings, driver: &'static str) -> PortInfo {
    let [high, low] = id.0.to_be_bytes();
    PortInfo {
        name: port.name.clone(),
        mac: Mac([0x02, 0, 0, 0, high, low]),
        mtu: DEVICELESS_MTU,
        driver,
    }
}

/// Queues of a port about which control has nothing to learn later.
pub(super) fn fixed<P: Port>(queues: Vec<P>) -> Opened<P> {
    let info = queues.first().map(|queue| queue.info().clone());
    let info = info.unwrap_or(PortInfo {
        name: String::new(),
        mac: Mac([0; 6]),
        mtu: 0,
        driver: "none",
    });
    Opened {
        queues,
        handle: Arc::new(Fixed(info)),
    }
}

/// What the ports say of themselves, if they are as many as the configuration wants.
pub(super) fn infos<P: Port>(
    configuration: &Configuration,
    ports: &[Opened<P>],
) -> Result<Vec<PortInfo>, StartError> {
    let workers = usize::from(configuration.director.workers);
    let queues: Vec<_> = ports.iter().map(|port| &port.queues).collect();
    let wrong = queues.iter().find(|queues| queues.len() != workers);
    if ports.len() != configuration.ports.len() || wrong.is_some() {
        let queues = wrong.or(queues.first()).map_or(0, |queues| queues.len());
        return Err(StartError::Ports {
            given: ports.len(),
            queues,
            ports: configuration.ports.len(),
            workers,
        });
    }
    Ok(queues
        .iter()
        .filter_map(|queues| queues.first())
        .map(|queue| queue.info().clone())
        .collect())
}
