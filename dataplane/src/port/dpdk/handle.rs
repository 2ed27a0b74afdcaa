//! What control keeps of a device.

use super::device::Device;
use crate::port::exception::Exceptions;
use crate::port::handle::{PortHandle, PortState};
use std::sync::Arc;

pub(super) struct Handle {
    device: Arc<Device>,
    exceptions: Option<Exceptions>,
}

impl Handle {
    pub(super) fn new(device: Arc<Device>, exceptions: Option<Exceptions>) -> Handle {
        Handle { device, exceptions }
    }
}

impl PortHandle for Handle {
    fn state(&self) -> PortState {
        let facts = &self.device.facts;
        let mut mode = vec![facts.driver.clone()];
        if facts.rss_fields != 0 {
            let key = if facts.rss_symmetric {
                "symmetric"
            } else {
                "its own key"
            };
            mode.push(format!("RSS over {} ({key})", facts.spread()));
        }
        if facts.tx_checksums {
            mode.push("checksums by the device".to_owned());
        }
        if !facts.promiscuous {
            mode.push("not promiscuous".to_owned());
        }
        if let Some(exceptions) = &self.exceptions {
            mode.push(format!("exceptions by {}", exceptions.interface()));
        }
        PortState {
            mac: facts.mac,
            mtu: facts.mtu,
            link: self.device.link(),
            mode: mode.join(", "),
        }
    }

    fn statistics(&self) -> Vec<(String, u64)> {
        let mut all = self.device.statistics();
        if let Some(exceptions) = &self.exceptions {
            all.extend(exceptions.statistics());
        }
        all
    }
}
