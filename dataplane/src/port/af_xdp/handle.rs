//! What control keeps of the port: it tells the XDP program what is ours, and says how the port is.

use super::bpf::{Link as Attached, Map, Program};
use super::keys::{Key, Keys};
use super::socket::{Inquiry, XdpSocket};
use crate::port::handle::{Link, PortHandle, PortState};
use crate::port::{Mac, PortId};
use crate::snapshot::Snapshot;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Ends that the program can know at once: one for each service, four for each local address, two for each server by NAT.
pub(super) const KEYS_MAX: u32 = 131_072;

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
    pub(super) mac: Mac,
    pub(super) mode: String,
    pub(super) queues: Vec<Queue>,
    pub(super) keys: Map,
    pub(super) inquiry: Inquiry,
    pub(super) adopted: Mutex<Adopted>,
    pub(super) _attached: Attached,
    pub(super) _program: Program,
    pub(super) _sockets: Map,
}

/// What the program has been told.
#[derive(Default)]
pub(super) struct Adopted {
    keys: Keys,
    /// In the map.
    known: HashSet<Key>,
    /// Of them, those of the snapshot that was adopted last.
    current: HashSet<Key>,
}

impl PortHandle for Handle {
    fn state(&self) -> PortState {
        let interface = self.inquiry.interface(&self.interface);
        let interface = interface
            .ok()
            .filter(|interface| interface.index == self.index);
        PortState {
            mac: self.mac,
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
            "rx_dropped",
            "rx_invalid_descs",
            "tx_invalid_descs",
            "rx_ring_full",
            "rx_fill_ring_empty_descs",
            "tx_ring_empty_descs",
            "checksums_completed",
            "given_back_to_kernel",
            "not_given_back_to_kernel",
        ];
        names.map(str::to_owned).into_iter().zip(sums).collect()
    }

    /// New ends first, so that no packet of what goes on misses the worker; those that are no more go last, and stay while
    /// removed servers have connections. Whatever the worker does not want goes back to the kernel anyway.
    fn adopt(&self, snapshot: &Snapshot) -> io::Result<()> {
        let mut adopted = self.adopted.lock();
        let wanted = adopted.keys.of(snapshot, self.id);
        if wanted.len() > KEYS_MAX as usize {
            return Err(io::Error::other(format!(
                "interface {:?}: the services, local addresses and servers by NAT are {} ends of packets; the XDP program \
                 can know {KEYS_MAX}; have fewer of them, or `driver = \"af_packet\"`",
                self.interface,
                wanted.len()
            )));
        }
        let draining = snapshot
            .servers
            .iter()
            .flatten()
            .any(|server| !server.present);
        let room = KEYS_MAX as usize - wanted.difference(&adopted.known).count();
        if adopted.known.len() > room {
            // Those that merely linger make room.
            let Adopted { known, current, .. } = &mut *adopted;
            self.forget(known, |key| !current.contains(key) && !wanted.contains(key));
        }
        let mut added = Vec::new();
        for key in wanted.difference(&adopted.known) {
            if let Err(error) = self.keys.insert(&key.0, &[1]) {
                for key in added {
                    let _: io::Result<()> = self.keys.remove(key);
                }
                let said = format!(
                    "interface {:?}: cannot tell its XDP program of {} more ends of packets (it can know {KEYS_MAX} and knows {}): {error}",
                    self.interface,
                    wanted.difference(&adopted.known).count(),
                    adopted.known.len(),
                );
                return Err(io::Error::new(error.kind(), said));
            }
            added.push(&key.0);
        }
        adopted.known.extend(&wanted);
        if !draining {
            self.forget(&mut adopted.known, |key| !wanted.contains(key));
        }
        adopted.current = wanted;
        Ok(())
    }
}

impl Handle {
    /// Takes keys out of the map. One that the kernel keeps stays known, and is tried again next time.
    fn forget(&self, known: &mut HashSet<Key>, is_over: impl Fn(&Key) -> bool) {
        known.retain(|key| !is_over(key) || self.keys.remove(&key.0).is_err());
    }
}
