//! What becomes of the ports while a director runs: links that go down, vanish and come back, other hardware addresses,
//! other MTUs.

use super::{ApplyError, Current, Director};
use crate::compile::Before;
use dataplane::port::handle::{Link, PortHandle, PortState};
use dataplane::port::{PortId, PortInfo};
use dataplane::worker;
use std::sync::Arc;

/// How the ports were when they were looked at last.
#[derive(Default)]
pub(crate) struct Watch {
    states: Vec<PortState>,
    /// The workers were not told all of it: the driver of a port refused.
    is_behind: bool,
}

impl Watch {
    /// Of ports as they were opened.
    pub(super) fn new(infos: &[PortInfo], handles: &[Arc<dyn PortHandle>]) -> Watch {
        let states = infos.iter().zip(handles).map(|(info, handle)| PortState {
            mac: info.mac,
            mtu: info.mtu,
            link: Link::Up,
            mode: handle.state().mode,
        });
        Watch {
            states: states.collect(),
            is_behind: false,
        }
    }
}

impl Director {
    /// Looks at the ports and tells the log and the workers what has changed.
    pub(super) fn watch_ports(&self) {
        let mut watch = self.watch.lock();
        let Watch { states, is_behind } = &mut *watch;
        let (mut came_back, mut is_due) = (Vec::new(), *is_behind);
        let ports = (0u16..).map(PortId).zip(&self.ports);
        for (((id, info), handle), before) in ports.zip(&self.handles).zip(states) {
            let now = handle.state();
            if now == *before {
                continue;
            }
            log_change(&info.name, before, &now);
            let compiler = &mut self.current.lock().compiler;
            if now.mtu != before.mtu && now.mtu > 0 {
                compiler.set_mtu(id, now.mtu);
                is_due = true;
            }
            if now.mac != before.mac {
                compiler.set_mac(id, now.mac);
                is_due = true;
            }
            let is_another = before.link != Link::Up || now.mac != before.mac;
            if now.link == Link::Up && is_another {
                compiler.link_is_back(id);
                came_back.push(id);
                is_due = true;
            }
            *before = now;
        }
        if is_due {
            let published = self.publish_again();
            if let (Err(error), false) = (&published, *is_behind) {
                tracing::error!("the workers are not told how the ports are now: {error}");
            }
            *is_behind = published.is_err();
        }
        let now = worker::ticks_since(self.epoch);
        for port in came_back {
            self.neighbours.doubt(port, now);
        }
    }

    /// How the ports were when they were looked at last; none without handles.
    pub(crate) fn port_states(&self) -> Vec<PortState> {
        self.watch.lock().states.clone()
    }

    /// Compiles and publishes what holds, with the ports as they are now.
    fn publish_again(&self) -> Result<(), ApplyError> {
        let mut current = self.current.lock();
        let configuration = current.configuration.clone();
        let Current {
            compiler, snapshot, ..
        } = &mut *current;
        let before = Before {
            configuration: Some(&configuration),
            snapshot,
            seen_by_all: self.publisher.seen_by_all(),
        };
        let snapshot =
            compiler.compile(&configuration, &before, worker::ticks_since(self.epoch))?;
        self.tell_ports(&snapshot)?;
        self.publish(&mut current, snapshot);
        Ok(())
    }
}

/// One line for each thing that is another now.
fn log_change(port: &str, before: &PortState, now: &PortState) {
    if now.link != before.link {
        match now.link {
            Link::Up => tracing::info!("port {port}: the link is up again"),
            Link::Down => tracing::warn!("port {port}: the link is down"),
            Link::Gone => tracing::error!(
                "port {port}: its interface is gone; the other ports go on, and so does this one when it is back"
            ),
        }
    }
    if now.mac != before.mac {
        tracing::info!(
            "port {port}: the hardware address is {} now, and was {}",
            now.mac,
            before.mac
        );
    }
    if now.mtu != before.mtu {
        tracing::info!(
            "port {port}: the MTU is {} now, and was {}",
            now.mtu,
            before.mtu
        );
    }
    if now.mode != before.mode {
        tracing::info!("port {port}: {}", now.mode);
    }
}
