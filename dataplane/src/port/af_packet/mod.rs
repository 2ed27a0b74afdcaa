//! A port on any Linux network interface: packet sockets with a memory-mapped ring to receive.
//!
//! The kernel's own stack receives the same frames; what is not for the director is simply left to it.
//! Frames of local senders come as those hand them over, with partial checksums and up to 64 KiB long (GSO), and are
//! sent likewise: the interface, or the kernel for it, completes and cuts them. The ring's slots are as long as the
//! interface's MTU needs; longer frames are taken from the socket's queue, where the kernel puts them in the same order.

mod handle;
mod open;
mod ring;
mod socket;
mod transmit;
mod vnet;

use super::handle::Opened;
use super::pool::Pool;
use super::{BURST, Burst, Port, PortCounters, PortInfo, Sent};
use crate::frame::{Frame, Offload};
use handle::{Loss, QueueState, Shared};
use open::{Group, Queue};
use ring::Waiting;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

pub use open::{Config, Fanout, OpenError};

/// Calls of `receive` without a frame between two looks at the link: a system call each.
const LINK_CHECK_INTERVAL: u32 = 256;

/// Frames longer than a slot that one worker may hold: a burst, and some that it keeps longer.
const LARGE_FRAMES: u32 = 40;
/// Bytes of such a frame, and of the header in front.
#[allow(clippy::cast_possible_truncation, reason = "66 thousand")]
const LARGE_LEN: u32 = (transmit::FRAME_LEN_MAX + vnet::LEN) as u32;

/// One worker's socket on an interface.
///
/// When the port's handle has seen the interface change, and without frames to receive at each 256th call of `receive`,
/// the socket looks at its interface; when that is gone and comes back, the socket is made anew once the ring's frames are back
/// (then [`Port::info`] may have another MAC). While a frame is held that was received last, [`Port::wait_on`] is ready
/// all the time: copy what is kept for long.
pub struct AfPacketPort {
    info: PortInfo,
    queue: Queue,
    /// For frames longer than a slot.
    large: Pool,
    config: Arc<Config>,
    group: Arc<Group>,
    shared: Arc<Shared>,
    worker: usize,
    link_up: bool,
    idle: u32,
    /// [`Shared::look`] when it was last heeded.
    looked: u32,
    /// The interface for which the socket could not be made anew, until the handle asks to try again.
    failed: Option<i32>,
}

/// Opens an interface: a port for each worker, and what tells how it is.
///
/// # Errors
/// When the configuration is out of range, the interface is missing, down or not Ethernet, or the process may not.
pub fn open(config: Config) -> Result<Opened<AfPacketPort>, OpenError> {
    open::check(&config)?;
    let shared = Arc::new(Shared::new(config.workers));
    let (config, group) = (Arc::new(config), Arc::new(Group::default()));
    let queues: Result<Vec<Queue>, _> = (0..config.workers)
        .map(|_| Queue::open(&config, &group))
        .collect();
    let port = |(worker, mut queue): (usize, Queue)| {
        if config.workers > 1 {
            // What came before the last socket had joined the group came several times.
            queue.discard();
        }
        shared.queues[worker].set_bound(true);
        AfPacketPort {
            info: info(&config, &queue),
            queue,
            large: Pool::new(config.id, LARGE_FRAMES, LARGE_LEN),
            config: Arc::clone(&config),
            group: Arc::clone(&group),
            shared: Arc::clone(&shared),
            worker,
            link_up: true,
            idle: 0,
            looked: shared.look(),
            failed: None,
        }
    };
    let queues: Vec<_> = queues?.into_iter().enumerate().map(port).collect();
    let handle = open::handle(&config, &queues[0].info, &queues[0].queue, &shared)?;
    Ok(Opened {
        queues,
        handle: Arc::new(handle),
    })
}

fn info(config: &Config, queue: &Queue) -> PortInfo {
    PortInfo {
        name: config.name.clone(),
        mac: queue.interface.mac,
        mtu: queue.interface.mtu,
        driver: "af_packet",
    }
}

impl AfPacketPort {
    /// Takes the frame at the head of the ring; `None` when it is not for us.
    #[inline]
    fn accept(&mut self, waiting: &Waiting) -> Option<Frame> {
        let ours = matches!(
            waiting.packet_type,
            libc::PACKET_HOST | libc::PACKET_BROADCAST | libc::PACKET_MULTICAST
        );
        let whole = waiting.is_whole();
        let offload = if ours && (whole || waiting.is_beside()) {
            vnet::decode(waiting.vnet)
        } else {
            None
        };
        let Some(offload) = offload else {
            if ours {
                let is_here = whole || waiting.is_beside();
                let loss = if is_here {
                    Loss::OffloadUnknown
                } else {
                    Loss::TooLong
                };
                self.state().count(loss, 1);
            }
            self.queue.skip(waiting);
            return None;
        };
        let mut frame = if whole {
            self.queue.receive.take(waiting, offload)
        } else {
            self.take_large(waiting, offload)?
        };
        if waiting.status & libc::TP_STATUS_VLAN_VALID != 0 {
            insert_vlan_tag(&mut frame, waiting);
        }
        Some(frame)
    }

    /// Takes a frame that is longer than a slot from the socket's queue.
    #[cold]
    fn take_large(&mut self, waiting: &Waiting, offload: Offload) -> Option<Frame> {
        self.queue.receive.skip();
        let Some(mut frame) = self.large.lend(offload) else {
            unreachable!("`receive` has looked whether a buffer is free")
        };
        let expected = vnet::LEN + waiting.original_len as usize;
        let received = self.queue.socket.receive(frame.bytes_mut());
        // Longer than any buffer (BIG TCP), or not there.
        if received.is_ok_and(|len| len == expected && len <= frame.bytes().len()) {
            frame.truncate(expected);
            frame.trim_front(vnet::LEN);
            return Some(frame);
        }
        self.large.give_back(frame);
        self.state().count(Loss::TooLong, 1);
        None
    }

    fn give_back(&mut self, frame: Frame) {
        if self.queue.receive.owns(&frame) {
            self.queue.receive.give_back(frame);
        } else {
            self.large.give_back(frame);
        }
    }

    fn state(&self) -> &QueueState {
        &self.shared.queues[self.worker]
    }

    /// Looks whether the interface is there and up, and makes the socket anew when it was replaced.
    #[cold]
    fn check_link(&mut self) {
        if self.queue.socket.take_error().is_some() {
            self.link_up = false;
        }
        let look = self.shared.look();
        if self.looked != look {
            self.looked = look;
            self.failed = None;
        } else if self.link_up {
            return;
        }
        let Ok(interface) = self.queue.socket.interface(&self.config.interface) else {
            self.link_up = false;
            self.state().set_bound(false);
            return;
        };
        let bound_to = self.queue.socket.bound_to();
        if bound_to.is_ok_and(|index| index == interface.index) {
            self.link_up = interface.up;
            self.info.mac = interface.mac;
            self.info.mtu = interface.mtu;
            self.state().set_bound(true);
            return;
        }
        self.link_up = false;
        self.state().set_bound(false);
        // What came before the old interface went is still to be forwarded.
        let is_empty = self.queue.receive.held() == 0 && self.queue.receive.peek().is_none();
        if interface.up && is_empty && self.failed != Some(interface.index) {
            self.reopen(interface.index);
        }
    }

    /// Makes the socket anew for the interface that has the name now.
    #[cold]
    fn reopen(&mut self, index: i32) {
        let mut queue = match Queue::open(&self.config, &self.group) {
            Ok(queue) => queue,
            Err(error) => {
                // Not before the handle has looked again: it may be that there is no memory.
                self.failed = Some(index);
                self.shared.set_problem(Some(with_causes(&error)));
                return;
            }
        };
        self.abandon();
        let dropped = self.take_dropped();
        self.state().count(Loss::RingFull, dropped);
        if self.config.workers > 1 {
            queue.discard();
        }
        self.info = info(&self.config, &queue);
        self.queue = queue;
        self.link_up = true;
        self.shared.set_problem(None);
        self.state().count_reopened();
        self.state().set_bound(true);
    }

    /// Forgets what was to be sent.
    fn abandon(&mut self) {
        let frames = self.queue.transmit.queued();
        self.queue.transmit.advance(frames);
        self.state().count(Loss::LinkDown, frames as u64);
    }

    /// Frames that found the receive ring full since this was last asked (`struct tpacket_stats`).
    fn take_dropped(&self) -> u64 {
        match self.queue.socket.get::<8>(libc::PACKET_STATISTICS) {
            Ok([_, _, _, _, dropped @ ..]) => u64::from(u32::from_ne_bytes(dropped)),
            Err(_) => 0,
        }
    }

    /// Heeds why the first frame that waits was not sent. False when the others are to wait for the next flush.
    #[cold]
    fn send_failed(&mut self, error: &io::Error) -> bool {
        let loss = match error.raw_os_error() {
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => {
                self.abandon();
                self.link_up = false;
                return false;
            }
            // As much is in flight as may be.
            Some(libc::EAGAIN | libc::EINTR) => return false,
            Some(libc::ENOBUFS | libc::ENOMEM) => Loss::QueueFull,
            _ => Loss::Refused,
        };
        self.state().count(loss, 1);
        self.queue.transmit.advance(1);
        true
    }
}

/// An error with what it came of.
fn with_causes(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(with_causes);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Puts the tag that the kernel has taken out back behind the addresses: `{TPID, TCI}`.
#[cold]
fn insert_vlan_tag(frame: &mut Frame, waiting: &Waiting) {
    const ADDRESSES_LEN: usize = 12;
    let tpid = match waiting.status & libc::TP_STATUS_VLAN_TPID_VALID {
        0 => 0x8100,
        _ => waiting.vlan_tpid,
    };
    if frame.bytes().len() < ADDRESSES_LEN || !frame.prepend(4) {
        unreachable!("the kernel checks the length, and a received frame has more headroom");
    }
    let bytes = frame.bytes_mut();
    bytes.copy_within(4..4 + ADDRESSES_LEN, 0);
    bytes[ADDRESSES_LEN..ADDRESSES_LEN + 2].copy_from_slice(&tpid.to_be_bytes());
    bytes[ADDRESSES_LEN + 2..ADDRESSES_LEN + 4].copy_from_slice(&waiting.vlan_tci.to_be_bytes());
    frame.offload = vnet::shifted(frame.offload, 4);
}

impl Port for AfPacketPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    #[inline]
    fn receive(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        // Frames that are not for us take time, too.
        for _ in 0..BURST {
            if burst.is_full() {
                break;
            }
            let Some(waiting) = self.queue.receive.peek() else {
                break;
            };
            if waiting.is_beside() && self.large.is_exhausted() {
                break;
            }
            burst.extend(self.accept(&waiting));
        }
        let received = burst.len() - before;
        if received == 0 {
            self.idle += 1;
        }
        if self.idle == LINK_CHECK_INTERVAL || self.looked != self.shared.look() {
            self.idle = 0;
            self.check_link();
        }
        received
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Sent {
        if !self.queue.transmit.push(frame.bytes(), &frame.offload) {
            return Sent::Refused(frame);
        }
        if frame.port != self.config.id {
            return Sent::Copied(frame);
        }
        self.give_back(frame);
        Sent::Taken
    }

    fn send(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        self.queue.transmit.push(bytes, offload)
    }

    /// One system call for 64 frames that are queued; another one for each frame that the kernel refuses, at most 32.
    #[inline]
    fn flush(&mut self) {
        let mut refused = 0;
        while self.queue.transmit.queued() > 0 && refused < BURST {
            let Queue {
                socket, transmit, ..
            } = &mut self.queue;
            match socket.send_many((0..).map_while(|place| transmit.waiting(place))) {
                Ok(sent) => transmit.advance(sent),
                Err(error) if self.send_failed(&error) => refused += 1,
                Err(_) => return,
            }
        }
    }

    #[inline]
    fn release(&mut self, frame: Frame) {
        self.give_back(frame);
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.socket.as_fd())
    }

    fn counters(&mut self) -> PortCounters {
        let dropped = self.take_dropped();
        self.state().count(Loss::RingFull, dropped);
        PortCounters {
            receive_missed: self.state().receive_missed(),
            transmit_errors: self.state().transmit_errors(),
        }
    }
}
