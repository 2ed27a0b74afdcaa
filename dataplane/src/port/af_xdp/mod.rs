//! A port on a network interface that the director shares with the kernel: AF_XDP sockets, one for each queue, and a program
//! on the interface that hands them the director's packets and leaves everything else to the kernel.
//!
//! ```text
//!   NIC ─▶ XDP program ── ours ──▶ socket of the queue ─▶ worker ── not ours after all ─▶ XDP_PASS ─┐
//!              └──── not ours ─▶ kernel's stack ◀──────────────────────────────────────────────────┘
//!                                   └─ copies of ARP, neighbour discovery, ICMP errors ─▶ packet socket ─▶ first worker
//! ```
//! All checksums of frames that are received here are final: those of local senders are finished on the way (`checksums.rs`).

mod assembler;
mod attributes;
mod beside;
mod bpf;
mod checksums;
mod errors;
mod handle;
mod keys;
mod open;
mod ours;
mod program;
mod ring;
mod socket;
mod umem;

use super::handle::Opened;
use super::{Burst, Port, PortCounters, PortId, PortInfo, Sent};
use crate::frame::{Frame, Gso, Offload};
use crate::packet::{Parsed, checksum, parse};
use crate::rewrite::{tcp_segments, udp_segments};
use crate::stats::add;
use beside::Beside;
use bpf::Program;
use handle::QueueCounters;
use open::{Parts, RING_LEN};
use ring::{Consumer, Producer};
use socket::XdpSocket;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use umem::Umem;

pub use errors::OpenError;
pub use open::{Checksums, Config};

/// Calls of `receive` between two looks at the packet socket: a system call each.
const BESIDE_INTERVAL: u32 = 8;
/// System calls of one `flush`: the kernel copies 32 frames with each.
const KICKS: u32 = RING_LEN / 32 + 2;
/// Frames that go back to the kernel between two calls of `receive`: each is a system call of some length.
const GIVEN_BACK_MAX: u32 = 16;
/// The longest frame of another driver, which has to be cut: an Ethernet header and a GSO packet.
const LARGEST_FRAME: usize = 14 + 65_535;

/// One worker's queue of an interface.
pub struct AfXdpPort {
    info: PortInfo,
    id: PortId,
    interface: u32,
    queue: u32,
    socket: Arc<XdpSocket>,
    umem: Umem,
    fill: Producer<u64>,
    receive: Consumer<libc::xdp_desc>,
    transmit: Producer<libc::xdp_desc>,
    completion: Consumer<u64>,
    /// Chunks in the kernel's hands to receive into.
    receiving: u32,
    zero_copy: bool,
    verifies: bool,
    beside: Option<(Beside, OwnedFd)>,
    pass: Arc<Program>,
    /// Calls of `receive`.
    rounds: u32,
    given_back: u32,
    own: Arc<QueueCounters>,
    counters: PortCounters,
    /// For what has to be cut.
    scratch: Box<[u8]>,
    /// The program is on the interface as long as anybody has this.
    _handle: Arc<handle::Handle>,
}

/// Opens an interface: one queue for each worker.
///
/// # Errors
/// When the interface is missing, down, not Ethernet, or has other queues than there are workers; when somebody else uses
/// XDP there; when the process may not.
pub fn open(config: &Config) -> Result<Opened<AfXdpPort>, OpenError> {
    let open = open::open(config)?;
    let info = PortInfo {
        name: config.name.clone(),
        mac: open.interface.mac,
        mtu: open.interface.mtu,
        driver: "af_xdp",
    };
    let (handle, pass) = (Arc::new(open.handle), Arc::new(open.pass));
    let port = |(queue, parts): (u32, Parts)| AfXdpPort {
        info: info.clone(),
        id: config.id,
        interface: open.interface.index,
        queue,
        socket: parts.socket,
        umem: parts.umem,
        fill: parts.rings.fill,
        receive: parts.rings.receive,
        transmit: parts.rings.transmit,
        completion: parts.rings.completion,
        receiving: RING_LEN,
        zero_copy: parts.zero_copy,
        verifies: open.verifies,
        beside: parts.beside,
        pass: Arc::clone(&pass),
        rounds: 0,
        given_back: 0,
        own: parts.counters,
        counters: PortCounters::default(),
        scratch: vec![0; LARGEST_FRAME].into_boxed_slice(),
        _handle: Arc::clone(&handle),
    };
    let queues = (0..).zip(open.parts).map(port).collect();
    Ok(Opened { queues, handle })
}

impl AfXdpPort {
    /// Takes back what was sent, and gives the kernel chunks to receive into.
    #[inline]
    fn turn_over(&mut self) {
        while let Some(address) = self.completion.take() {
            self.umem.sent(address);
        }
        self.completion.release();
        while self.receiving < RING_LEN
            && self.fill.room() > 0
            && let Some(address) = self.umem.take()
        {
            self.fill.push(address);
            self.receiving += 1;
        }
        self.fill.submit();
        if self.zero_copy && self.fill.needs_wakeup() {
            self.socket.kick_receive();
        }
    }

    /// Queues a copy of a frame, finished. False without room.
    #[inline]
    fn queue_copy(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        if offload.gso != Gso::None {
            return self.queue_cut(bytes, offload);
        }
        if bytes.len() > self.umem.frame_len_max() {
            self.counters.transmit_errors += 1;
            return true;
        }
        if self.transmit.room() == 0 {
            return false;
        }
        let composed = self.umem.compose(|room| {
            let to = &mut room[..bytes.len()];
            to.copy_from_slice(bytes);
            checksum::complete(to, offload);
            bytes.len()
        });
        let Some(descriptor) = composed else {
            return false;
        };
        self.transmit.push(descriptor);
        true
    }

    /// The same for a GSO frame, which only other drivers receive: cut here.
    #[cold]
    fn queue_cut(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut lost = 0;
        let mut emit = |segment: &mut [u8]| {
            lost += u64::from(!self.queue_copy(segment, &Offload::NONE));
        };
        let is_udp = offload.gso == Gso::Udp;
        let count = match &parse(bytes, offload) {
            Parsed::Ipv4(packet) if is_udp => {
                udp_segments(bytes, packet, offload, &mut scratch, &mut emit)
            }
            Parsed::Ipv4(packet) => tcp_segments(bytes, packet, offload, &mut scratch, &mut emit),
            Parsed::Ipv6(packet) if is_udp => {
                udp_segments(bytes, packet, offload, &mut scratch, &mut emit)
            }
            Parsed::Ipv6(packet) => tcp_segments(bytes, packet, offload, &mut scratch, &mut emit),
            _ => 0,
        };
        self.counters.transmit_errors += if count == 0 { 1 } else { lost };
        self.scratch = scratch;
        true
    }

    /// Hands a frame to the kernel's stack, as if the XDP program had passed it.
    #[cold]
    fn give_back(&mut self, frame: &Frame) {
        let allowed = self.given_back < GIVEN_BACK_MAX;
        self.given_back += 1;
        let is_done = allowed
            && self
                .pass
                .run_live(frame.bytes(), self.interface, self.queue)
                .is_ok();
        let counter = if is_done {
            &self.own.given_back
        } else {
            &self.own.not_given_back
        };
        add(counter, 1);
    }

    /// Whether it makes sense to kick again after this.
    fn may_go_on(error: &io::Error) -> bool {
        // EAGAIN: 32 frames were sent. The others pass: no buffers, a full queueing discipline.
        matches!(
            error.raw_os_error(),
            Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS)
        )
    }
}

impl Port for AfXdpPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    #[inline]
    fn receive(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        self.given_back = 0;
        self.turn_over();
        while !burst.is_full()
            && let Some(descriptor) = self.receive.take()
        {
            self.receiving -= 1;
            let mut frame = self.umem.lend(&descriptor);
            if self.verifies && checksums::complete(&mut frame) {
                add(&self.own.checksums, 1);
            }
            burst.push(frame);
        }
        self.receive.release();
        self.rounds = self.rounds.wrapping_add(1);
        if self.rounds.is_multiple_of(BESIDE_INTERVAL)
            && let Some((beside, _)) = &self.beside
        {
            beside.receive(&mut self.umem, burst);
        }
        burst.len() - before
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Sent {
        if frame.port != self.id {
            return if self.queue_copy(frame.bytes(), &frame.offload) {
                Sent::Copied(frame)
            } else {
                Sent::Refused(frame)
            };
        }
        if self.transmit.room() == 0 {
            return Sent::Refused(frame);
        }
        let descriptor = self.umem.send(frame);
        self.transmit.push(descriptor);
        Sent::Taken
    }

    fn send(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        self.queue_copy(bytes, offload)
    }

    /// One system call for each 32 frames where the kernel copies them; none while a driver without copies is awake.
    #[inline]
    fn flush(&mut self) {
        self.transmit.submit();
        for _ in 0..KICKS {
            if self.transmit.waiting() == 0 || !self.transmit.needs_wakeup() {
                return;
            }
            let kicked = self.socket.kick_transmit();
            while let Some(address) = self.completion.take() {
                self.umem.sent(address);
            }
            self.completion.release();
            match kicked {
                Err(error) if Self::may_go_on(&error) => {}
                Ok(()) if !self.zero_copy => {}
                // Down or gone: what waits is sent when it is up again.
                _ => return,
            }
        }
    }

    #[inline]
    fn release(&mut self, frame: Frame) {
        self.umem.give_back(frame);
    }

    fn leave(&mut self, frame: Frame) {
        if !self.umem.is_copy(&frame) {
            self.give_back(&frame);
        }
        self.umem.give_back(frame);
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        Some(match &self.beside {
            Some((_, either)) => either.as_fd(),
            None => self.socket.as_fd(),
        })
    }

    fn counters(&mut self) -> PortCounters {
        if let Some((beside, _)) = &self.beside {
            self.counters.receive_missed += beside.take_dropped();
        }
        let kernels = self.socket.statistics();
        let (missed, invalid) = kernels.map_or((0, 0), |kernels| {
            (
                kernels.rx_dropped + kernels.rx_ring_full,
                kernels.tx_invalid_descs,
            )
        });
        PortCounters {
            receive_missed: self.counters.receive_missed + missed,
            transmit_errors: self.counters.transmit_errors + invalid,
        }
    }
}
