//! What control keeps of the port: it tells the XDP program what is ours, and says how the port is.

use super::attributes;
use super::bpf::{Link as Attached, Map, Program};
use super::ours::Ours;
use super::program::program;
use super::socket::{Inquiry, Links, XdpSocket};
use crate::port::handle::{Link, PortHandle, PortState};
use crate::port::{Mac, PortId};
use crate::snapshot::Snapshot;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a worker counts beside the kernel, alone.
#[derive(Debug, Default)]
pub(super) struct QueueCounters {
    /// Checksums of local senders that were finished here.
    pub(super) checksums: AtomicU64,
    /// Frames that went back to the kernel.
    pub(super) given_back: AtomicU64,
    /// Frames that could not: more at a time than may, or the kernel would not have them.
    pub(super) not_given_back: AtomicU64,
}

/// A queue as control sees it.
pub(super) struct Queue {
    pub(super) socket: Arc<XdpSocket>,
    pub(super) counters: Arc<QueueCounters>,
}

/// What the process has of the interface. The program is on it as long as this is there.
pub(super) struct Handle {
    pub(super) id: PortId,
    pub(super) interface: String,
    pub(super) index: u32,
    /// For which the program is.
    pub(super) mac: Mutex<Mac>,
    pub(super) mode: String,
    pub(super) queues: Vec<Queue>,
    pub(super) ours: Mutex<Ours>,
    pub(super) inquiry: Inquiry,
    pub(super) links: Mutex<Links>,
    pub(super) attached: Attached,
    pub(super) sockets: Map,
}

impl Handle {
    /// The address whose frames are ours: the interface's, unless the kernel refuses a program for it.
    fn follow(&self, mac: Option<Mac>) -> Mac {
        let mut known = self.mac.lock();
        if let Some(mac) = mac.filter(|mac| *mac != *known) {
            let code = program(mac, self.ours.lock().map().fd(), self.sockets.fd());
            let replaced = Program::load("uvs", &code).and_then(|new| self.attached.replace(&new));
            if replaced.is_ok() {
                *known = mac;
            }
        }
        *known
    }
}

impl PortHandle for Handle {
    fn state(&self) -> PortState {
        let interface = self.inquiry.interface(&self.interface);
        let interface = interface
            .ok()
            .filter(|interface| interface.index == self.index);
        PortState {
            mac: self.follow(interface.as_ref().map(|interface| interface.mac)),
            mtu: interface.as_ref().map_or(0, |interface| interface.mtu),
            link: match &interface {
                None => Link::Gone,
                Some(interface) if interface.up && interface.running => Link::Up,
                Some(_) => Link::Down,
            },
            mode: self.mode.clone(),
        }
    }

    fn statistics(&self) -> Vec<(String, u64)> {
        let mut sums = [0u64; 9];
        for queue in &self.queues {
            let counters = &queue.counters;
            let own = [
                &counters.checksums,
                &counters.given_back,
                &counters.not_given_back,
            ];
            let own = own.map(|counter| counter.load(Relaxed));
            let kernels = queue.socket.statistics().map_or([0; 6], |kernels| {
                [
                    kernels.rx_dropped,
                    kernels.rx_invalid_descs,
                    kernels.tx_invalid_descs,
                    kernels.rx_ring_full,
                    kernels.rx_fill_ring_empty_descs,
                    kernels.tx_ring_empty_descs,
                ]
            });
            for (sum, count) in sums.iter_mut().zip(kernels.into_iter().chain(own)) {
                *sum += count;
            }
        }
        let names = [
            "xdp_rx_dropped",
            "xdp_rx_invalid_descs",
            "xdp_tx_invalid_descs",
            "xdp_rx_ring_full",
            "xdp_rx_fill_ring_empty_descs",
            "xdp_tx_ring_empty_descs",
            "checksums_completed",
            "given_back_to_kernel",
            "not_given_back_to_kernel",
        ];
        let of_interface = self.links.lock().attributes(self.index);
        let mut all = attributes::counters(&of_interface.unwrap_or_default());
        all.extend(names.map(str::to_owned).into_iter().zip(sums));
        all
    }

    fn adopt(&self, snapshot: &Snapshot) -> io::Result<()> {
        let adopted = self.ours.lock().adopt(snapshot, self.id);
        adopted.map_err(|error| {
            let said = format!("interface {:?}: {error}", self.interface);
            io::Error::new(error.kind(), said)
        })
    }
}
