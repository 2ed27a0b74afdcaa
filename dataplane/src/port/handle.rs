//! What control keeps of a port whose queues the workers have.

use super::{Mac, PortInfo};
use crate::snapshot::Snapshot;
use std::io;
use std::sync::Arc;

/// Whether frames come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// They do.
    #[default]
    Up,
    /// The device is there, without a carrier or switched off.
    Down,
    /// There is no such device (any more).
    Gone,
}

/// How a port is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortState {
    /// Its hardware address.
    pub mac: Mac,
    /// Largest IP packet it sends, bytes.
    pub mtu: u32,
    /// Whether frames come and go.
    pub link: Link,
    /// How the driver runs, in words for people ("native, copy"); empty where there is nothing to say.
    pub mode: String,
}

/// A port as control sees it, beside the workers and outliving their queues. Its calls may take long and allocate: they are
/// never made from a packet's way.
pub trait PortHandle: Send + Sync {
    /// How the port is now.
    fn state(&self) -> PortState;

    /// The device's own counters since it was opened, by the driver's names for them.
    fn statistics(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Takes note of what the workers forward and answer from now on, so that the driver can leave all the rest to the kernel.
    /// Called before the snapshot is published, and again whenever there is another one.
    ///
    /// # Errors
    /// When the system refuses; what was forwarded before still is.
    fn adopt(&self, snapshot: &Snapshot) -> io::Result<()> {
        let _ = snapshot;
        Ok(())
    }
}

/// Of a port that never changes.
#[derive(Clone, Debug)]
pub struct Fixed(pub PortInfo);

impl PortHandle for Fixed {
    fn state(&self) -> PortState {
        PortState {
            mac: self.0.mac,
            mtu: self.0.mtu,
            link: Link::Up,
            mode: String::new(),
        }
    }
}

/// A port that was opened: a queue for each worker, and what control keeps.
pub struct Opened<P> {
    /// By worker.
    pub queues: Vec<P>,
    /// For control.
    pub handle: Arc<dyn PortHandle>,
}
