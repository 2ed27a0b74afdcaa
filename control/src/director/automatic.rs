//! Ports whose driver is chosen here: the first that can be had.

use super::ports::{Failure, open_as};
use crate::config::{Configuration, Driver, PortSettings};
use dataplane::port::PortId;
use dataplane::port::any::AnyPort;
use dataplane::port::handle::{Opened, PortHandle, PortState};
use dataplane::snapshot::Snapshot;
use std::io;
use std::sync::Arc;

/// None of the drivers can be had.
#[derive(Debug, thiserror::Error)]
#[error("no driver can be had: {}", .0.join("; "))]
struct NoDriver(Vec<String>);

/// Opens a port by DPDK, by AF_XDP or by AF_PACKET, and says why not by those before.
pub(super) fn open(
    id: PortId,
    port: &PortSettings,
    configuration: &Configuration,
) -> Result<Opened<AnyPort>, Failure> {
    let mut passed_over = Vec::new();
    for (name, candidate) in candidates(&port.driver) {
        let opened = match candidate {
            Err(why) => Err(why.to_owned()),
            Ok(driver) => {
                open_as(&driver, id, port, configuration).map_err(|error| error.to_string())
            }
        };
        match opened {
            Err(why) => passed_over.push(format!("not {name}: {why}")),
            Ok(Opened { queues, handle }) => {
                let why = passed_over.join("; ");
                tracing::info!(
                    "port {}: driver {name:?} was chosen{}{why}",
                    port.name,
                    if why.is_empty() { "" } else { "; " },
                );
                let handle = Arc::new(Chosen { handle, why });
                return Ok(Opened { queues, handle });
            }
        }
    }
    Err(NoDriver(passed_over).into())
}

/// The drivers in the order of trying; or why one is not tried.
fn candidates(driver: &Driver) -> [(&'static str, Result<Driver, &'static str>); 3] {
    let Driver::Automatic {
        device,
        interface,
        checksums,
    } = driver
    else {
        unreachable!("only ports of driver \"auto\" come here");
    };
    let by_interface = |make: &dyn Fn(String) -> Driver| {
        let interface = interface.clone().ok_or("no `interface` is configured");
        interface.map(make)
    };
    let device = device.clone().ok_or("no `device` is configured");
    [
        ("dpdk", device.map(Driver::Dpdk)),
        (
            "af_xdp",
            by_interface(&|interface| Driver::AfXdp {
                interface,
                checksums: *checksums,
            }),
        ),
        (
            "af_packet",
            by_interface(&|interface| Driver::AfPacket { interface }),
        ),
    ]
}

/// A port that says why it has this driver.
struct Chosen {
    handle: Arc<dyn PortHandle>,
    why: String,
}

impl PortHandle for Chosen {
    fn state(&self) -> PortState {
        let state = self.handle.state();
        let parts = ["chosen automatically", &self.why, &state.mode];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        PortState {
            mode: parts.join("; "),
            ..state
        }
    }

    fn statistics(&self) -> Vec<(String, u64)> {
        self.handle.statistics()
    }

    fn adopt(&self, snapshot: &Snapshot) -> io::Result<()> {
        self.handle.adopt(snapshot)
    }
}
