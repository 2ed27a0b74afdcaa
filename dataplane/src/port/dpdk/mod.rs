//! A port on a device of DPDK: a NIC that its poll-mode drivers have taken from the kernel, or a virtual one.
//!
//! A received frame is a window into its mbuf, in which it is sent, by this or another DPDK port; nothing is copied.
//! The kernel sees none of the frames: those that are its own reach it by the exception path, if there is one.

mod device;
mod eal;
mod errors;
mod handle;
mod queue;
mod software;
#[cfg(test)]
mod tests;

use super::exception::{self, Exception};
use super::handle::Opened;
use super::{Burst, Port, PortCounters, PortId, PortInfo, Sent};
use crate::frame::{Frame, Offload};
use device::Device;
use queue::Queue;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub use super::dpdk_settings::{Settings, Spread, pci_address};
pub use eal::{EalError, start};
pub use errors::OpenError;

/// How to open a device. [`Config::new`] has the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which port it will be.
    pub id: PortId,
    /// What the configuration calls it.
    pub name: String,
    /// A PCI address, or a virtual device: its driver's name with a number, and arguments behind commas.
    pub device: String,
    /// How many workers will use it, each with a queue pair of its own: 1 to 64.
    pub workers: u16,
    /// Frames that may wait for a worker: 32 to 32,768; the device may take another number close to it.
    pub receive_descriptors: u16,
    /// Frames that may wait to be sent, likewise.
    pub transmit_descriptors: u16,
    /// Buffers of each worker, for frames that are received, held, or wait to be sent: 1024 to 16,777,216.
    pub mbufs: u32,
    /// Largest IP packet, 576 to 9216; `None`: as the device has it.
    pub mtu: Option<u16>,
    /// How frames are spread over several workers, where the device can.
    pub spread: Spread,
    /// Where the kernel's frames go.
    pub exception: Option<exception::Config>,
}

impl Config {
    /// The device for one worker, under its own name, without exception path.
    #[must_use]
    pub fn new(id: PortId, device: &str) -> Config {
        Config {
            id,
            name: device.to_owned(),
            device: device.to_owned(),
            workers: 1,
            receive_descriptors: 1024,
            transmit_descriptors: 1024,
            mbufs: 8192,
            mtu: None,
            spread: Spread::default(),
            exception: None,
        }
    }
}

/// One worker's queue pair of a device.
pub struct DpdkPort {
    info: PortInfo,
    id: PortId,
    queue: Queue,
    device: Arc<Device>,
    /// Of all workers; the first one's queue sends what the kernel says.
    exception: Option<Exception>,
    /// The first worker tells the device's own losses, too.
    is_first: bool,
}

/// Opens a device: one port for each worker. [`start`] comes before.
///
/// # Errors
/// When the configuration is out of range, the device is missing or not DPDK's, or has too little of something.
pub fn open(config: &Config) -> Result<Opened<DpdkPort>, OpenError> {
    check(config)?;
    let device = Device::open(config)?;
    let info = PortInfo {
        name: config.name.clone(),
        mac: device.facts.mac,
        mtu: device.facts.mtu,
        driver: "dpdk",
    };
    let path = config.exception.as_ref().map(|wish| {
        exception::open(wish, config.workers, info.mac, info.mtu).map_err(|error| {
            OpenError::Exception {
                device: config.device.clone(),
                error,
            }
        })
    });
    let (mut paths, path) = path.transpose()?.map_or_else(
        || (Vec::new().into_iter(), None),
        |(queues, handle)| (queues.into_iter(), Some(handle)),
    );
    let port = |index| DpdkPort {
        info: info.clone(),
        id: config.id,
        queue: device.queue(index),
        device: Arc::clone(&device),
        exception: paths.next(),
        is_first: index == 0,
    };
    let queues = (0..config.workers).map(port).collect();
    let handle = handle::Handle::new(Arc::clone(&device), path);
    Ok(Opened {
        queues,
        handle: Arc::new(handle),
    })
}

/// Checks what can be checked without DPDK.
fn check(config: &Config) -> Result<(), OpenError> {
    let descriptors = (32, 32_768, "32 to 32768");
    let values = [
        ("workers", u64::from(config.workers), (1, 64, "1 to 64")),
        (
            "receive_descriptors",
            config.receive_descriptors.into(),
            descriptors,
        ),
        (
            "transmit_descriptors",
            config.transmit_descriptors.into(),
            descriptors,
        ),
        (
            "mbufs",
            config.mbufs.into(),
            (1024, 1 << 24, "1024 to 16777216"),
        ),
        (
            "mtu",
            config.mtu.unwrap_or(1500).into(),
            (576, 9216, "576 to 9216"),
        ),
    ];
    for (field, value, (low, high, accepted)) in values {
        if !(low..=high).contains(&value) {
            return Err(OpenError::OutOfRange {
                field,
                value,
                accepted,
            });
        }
    }
    Ok(())
}

impl DpdkPort {
    /// Sends what the kernel has to say, as much as a burst.
    #[cold]
    fn send_exceptions(&mut self) {
        let Some(exception) = &mut self.exception else {
            return;
        };
        let queue = &mut self.queue;
        exception.take(|bytes| queue.copy(bytes));
    }
}

impl Port for DpdkPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    #[inline]
    fn receive(&mut self, burst: &mut Burst) -> usize {
        self.queue.receive(burst, self.id)
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Sent {
        if !frame.offload.is_done() {
            return if software::send(&mut self.queue, &self.device, frame.bytes(), &frame.offload) {
                Sent::Copied(frame)
            } else {
                Sent::Refused(frame)
            };
        }
        match self.queue.transmit(frame) {
            None => Sent::Taken,
            Some((frame, true)) => Sent::Copied(frame),
            Some((frame, false)) => Sent::Refused(frame),
        }
    }

    fn send(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        software::send(&mut self.queue, &self.device, bytes, offload)
    }

    #[inline]
    fn flush(&mut self) {
        if self.exception.as_ref().is_some_and(Exception::has_frames) {
            self.send_exceptions();
        }
        self.queue.flush();
    }

    #[inline]
    fn release(&mut self, frame: Frame) {
        Queue::free(frame);
    }

    fn leave(&mut self, frame: Frame) {
        if let Some(exception) = &mut self.exception {
            exception.give(frame.bytes());
        }
        Queue::free(frame);
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&mut self) -> PortCounters {
        let (missed, failed) = if self.is_first {
            self.device.losses()
        } else {
            (0, 0)
        };
        PortCounters {
            receive_missed: missed + self.queue.lost,
            transmit_errors: failed + self.queue.refused,
        }
    }
}
