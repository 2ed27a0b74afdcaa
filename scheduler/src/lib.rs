//! Which real server gets a new flow.
//!
//! One algorithm per file, one registry line each. No I/O, no `unsafe`, no clock: a scheduler sees a flow and the
//! servers of its service, and names one of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Names a real server for as long as any connection refers to it. Dense, so that it can index arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RealServerId(pub u32);

/// A server's share, 0 to 65535. Zero means: no new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(pub u16);

/// How busy a server is: shared by all workers, changed only when a connection is made, changes its activity or ends.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Load {
    active: AtomicU32,
    inactive: AtomicU32,
    persistent: AtomicU32,
    overloaded: AtomicBool,
}

impl Load {
    /// Connections that count as active (ActiveConn).
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Connections that count as inactive (InActConn).
    #[must_use]
    pub fn inactive(&self) -> u32 {
        self.inactive.load(Relaxed)
    }

    /// Persistence templates that point at the server.
    #[must_use]
    pub fn persistent(&self) -> u32 {
        self.persistent.load(Relaxed)
    }

    /// Whether the upper connection threshold was reached and the lower not yet left.
    #[must_use]
    pub fn overloaded(&self) -> bool {
        self.overloaded.load(Relaxed)
    }

    /// Sets or clears the overloaded mark.
    pub fn set_overloaded(&self, overloaded: bool) {
        self.overloaded.store(overloaded, Relaxed);
    }

    /// Counts a connection that begins (`from` is `None`), ends (`to` is `None`) or changes its activity.
    pub fn shift(&self, from: Option<Activity>, to: Option<Activity>) {
        if from == to {
            return;
        }
        if let Some(counter) = to.map(|activity| self.counter(activity)) {
            counter.fetch_add(1, Relaxed);
        }
        if let Some(counter) = from.map(|activity| self.counter(activity)) {
            counter.fetch_sub(1, Relaxed);
        }
    }

    fn counter(&self, activity: Activity) -> &AtomicU32 {
        match activity {
            Activity::Active => &self.active,
            Activity::Inactive => &self.inactive,
            Activity::Persistent => &self.persistent,
        }
    }
}

/// Under which of a server's counts a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// ActiveConn.
    Active,
    /// InActConn.
    Inactive,
    /// A persistence template.
    Persistent,
}

/// A real server as its service's scheduler sees it.
#[derive(Clone, Debug)]
pub struct RealServer {
    /// Its name in counters and connections.
    pub id: RealServerId,
    /// Its address (RIP).
    pub address: IpAddr,
    /// Its port, host byte order.
    pub port: u16,
    /// Its share of new flows.
    pub weight: Weight,
    /// How busy it is.
    pub load: Arc<Load>,
}

impl RealServer {
    /// Whether a new flow may go there: weight above zero and not overloaded.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.weight.0 > 0 && !self.load.overloaded()
    }
}

/// What a scheduler may know of a new flow. Addresses and ports as on the wire of the client's packet, host byte order.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Client address (CIP).
    pub client: IpAddr,
    /// Client port.
    pub client_port: u16,
    /// Virtual address (VIP).
    pub virtual_address: IpAddr,
    /// Virtual port.
    pub virtual_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// A scheduling algorithm with its state for one service on one worker.
pub trait Scheduler: Send {
    /// The index in `servers` of the server for `flow`, or `None` where none is usable.
    ///
    /// `servers` is the list last given to [`servers_changed`](Self::servers_changed): newest first, as the kernel
    /// keeps it. Runs on the packet path: no allocation.
    fn pick(&mut self, flow: &Flow, servers: &[RealServer]) -> Option<usize>;

    /// Called after each change of the list or of a weight, and once at the start. May allocate.
    fn servers_changed(&mut self, servers: &[RealServer]);
}
