//! The kernel behind a port that has taken its NIC away: what is not for the director goes to a TAP, and what the kernel
//! sends there leaves by the NIC, so that ssh, BGP and VRRP on the machine go on.
//!
//! ```text
//!   worker ── give ──▶ urgent:   ARP, ND, VRRP, BGP ──┐
//!                 └──▶ ordinary: the rest ────────────┴▶ thread ── write ──▶ TAP ─▶ kernel
//!   first worker ◀─ take ─ inbound ◀───────────────────── thread ◀─ read ── TAP ◀─ kernel
//! ```
//! Frames are copied into buffers made beforehand. Where there is none left the frame is dropped and counted; each kind
//! has its own, so that a flood of ordinary frames costs no urgent one. A worker makes a system call only to wake the
//! thread when that sleeps.

mod tap;
mod urgent;

use super::{BURST, Mac};
use crossbeam::queue::ArrayQueue;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tap::Tap;
use urgent::is_urgent;

/// Frames of each kind that may wait for the kernel.
pub const URGENT: usize = 256;
/// Likewise, all the others.
pub const ORDINARY: usize = 1024;
/// Frames of the kernel's that may wait for a worker; more wait in the kernel, as for any slow interface.
pub const INBOUND: usize = 256;
/// Longest name of an interface, bytes.
pub const NAME_LEN_MAX: usize = 15;

/// Where the kernel's frames go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name that the kernel's interface gets: 1 to 15 bytes.
    pub interface: String,
}

/// Why there is no exception path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The kernel has no TAP, or does not let us.
    #[error(
        "interface {interface:?}: cannot {action}: {error}; it needs /dev/net/tun (`modprobe tun`; docker --device \
         /dev/net/tun) and CAP_NET_ADMIN, or set `exception = \"none\"`"
    )]
    Tap {
        /// The interface.
        interface: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The system gives no thread or no descriptor.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A frame of a TAP: as long as the longest.
type Buffer = Vec<u8>;

/// Frames that wait, and buffers for more.
struct Line {
    free: ArrayQueue<Buffer>,
    waiting: ArrayQueue<Buffer>,
}

impl Line {
    fn new(count: usize, frame_len_max: usize) -> Line {
        let line = Line {
            free: ArrayQueue::new(count),
            waiting: ArrayQueue::new(count),
        };
        for _ in 0..count {
            let pushed = line.free.push(Vec::with_capacity(frame_len_max));
            debug_assert!(pushed.is_ok(), "there is room for all");
        }
        line
    }

    /// Puts a copy at the end. False without a buffer, or when the frame is longer than one.
    fn put(&self, bytes: &[u8]) -> bool {
        let Some(mut buffer) = self.free.pop() else {
            return false;
        };
        let fits = bytes.len() <= buffer.capacity();
        buffer.clear();
        if fits {
            buffer.extend_from_slice(bytes);
        }
        let to = if fits { &self.waiting } else { &self.free };
        let pushed = to.push(buffer);
        debug_assert!(pushed.is_ok(), "there is room for all");
        fits
    }

    /// Takes the first one, if `accept` does with it what is to be done.
    fn next(&self, accept: impl FnOnce(&[u8])) -> bool {
        let Some(buffer) = self.waiting.pop() else {
            return false;
        };
        accept(&buffer);
        let pushed = self.free.push(buffer);
        debug_assert!(pushed.is_ok(), "there is room for all");
        true
    }
}

/// What the workers and the thread share.
struct Shared {
    mac: Mac,
    urgent: Line,
    ordinary: Line,
    inbound: Line,
    /// Frames in `inbound`, for whoever looks all the time.
    pending: AtomicUsize,
    wake: OwnedFd,
    asleep: AtomicBool,
    stop: AtomicBool,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    to_kernel: AtomicU64,
    urgent_dropped: AtomicU64,
    ordinary_dropped: AtomicU64,
    /// The kernel did not take them.
    write_errors: AtomicU64,
    from_kernel: AtomicU64,
    from_kernel_dropped: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One worker's end.
pub struct Exception {
    shared: Arc<Shared>,
    sends: bool,
}

/// Control's end; dropping it ends the thread and the interface.
pub struct Exceptions {
    shared: Arc<Shared>,
    interface: String,
    thread: Option<JoinHandle<()>>,
}

/// Makes the kernel's interface, up, with a port's address and MTU, in the calling thread's network namespace: an end for
/// each worker, of which the first one sends what the kernel says, and control's.
///
/// # Errors
/// When the kernel refuses.
pub fn open(
    config: &Config,
    workers: u16,
    mac: Mac,
    mtu: u32,
) -> Result<(Vec<Exception>, Exceptions), OpenError> {
    let tap = Tap::open(&config.interface, mac, mtu).map_err(|(action, error)| OpenError::Tap {
        interface: config.interface.clone(),
        action,
        error,
    })?;
    let frame_len_max = mtu as usize + 18 + 4;
    let shared = Arc::new(Shared::new(mac, frame_len_max)?);
    let of_thread = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name("uvs-exceptions".to_owned())
        .spawn(move || carry(&of_thread, &tap, frame_len_max))?;
    let end = |worker| Exception {
        shared: Arc::clone(&shared),
        sends: worker == 0,
    };
    let ends = (0..workers).map(end).collect();
    let exceptions = Exceptions {
        shared,
        interface: config.interface.clone(),
        thread: Some(thread),
    };
    Ok((ends, exceptions))
}

impl Exception {
    /// Hands a copy of a frame to the kernel, if it is for this machine.
    pub fn give(&mut self, bytes: &[u8]) {
        let shared = &*self.shared;
        let is_ours = bytes.len() >= 14 && (bytes[..6] == shared.mac.0 || bytes[0] & 1 == 1);
        if !is_ours {
            return;
        }
        let (line, dropped) = if is_urgent(bytes) {
            (&shared.urgent, &shared.counters.urgent_dropped)
        } else {
            (&shared.ordinary, &shared.counters.ordinary_dropped)
        };
        if !line.put(bytes) {
            return count(dropped);
        }
        // Pairs with the fence in `sleep`: either the thread sees the frame, or this sees that it sleeps.
        std::sync::atomic::fence(Ordering::SeqCst);
        if shared.asleep.load(Ordering::Relaxed) {
            shared.wake();
        }
    }

    /// Whether the kernel has something to send and this is the worker that sends it.
    #[inline]
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.sends && self.shared.pending.load(Ordering::Relaxed) > 0
    }

    /// Hands out what the kernel sends, at most a burst of it; what `send` does not take is dropped and counted.
    pub fn take(&mut self, mut send: impl FnMut(&[u8]) -> bool) {
        let shared = &*self.shared;
        for _ in 0..BURST {
            let counters = &shared.counters;
            let taken = shared.inbound.next(|bytes| match send(bytes) {
                true => count(&counters.from_kernel),
                false => count(&counters.from_kernel_dropped),
            });
            if !taken {
                return;
            }
            shared.pending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Exceptions {
    /// The kernel's interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// What went which way, and what did not.
    #[must_use]
    pub fn statistics(&self) -> Vec<(String, u64)> {
        let all = &self.shared.counters;
        let counts = [
            ("exception_to_kernel", &all.to_kernel),
            ("exception_urgent_dropped", &all.urgent_dropped),
            ("exception_dropped", &all.ordinary_dropped),
            ("exception_write_errors", &all.write_errors),
            ("exception_from_kernel", &all.from_kernel),
            ("exception_from_kernel_dropped", &all.from_kernel_dropped),
        ];
        let count =
            |(name, count): (&str, &AtomicU64)| (name.to_owned(), count.load(Ordering::Relaxed));
        counts.map(count).into()
    }
}

impl Drop for Exceptions {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // If it panicked, it has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn new(mac: Mac, frame_len_max: usize) -> io::Result<Shared> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        Ok(Shared {
            mac,
            urgent: Line::new(URGENT, frame_len_max),
            ordinary: Line::new(ORDINARY, frame_len_max),
            inbound: Line::new(INBOUND, frame_len_max),
            pending: AtomicUsize::new(0),
            wake: eventfd(0, flags)?,
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            counters: Counters::default(),
        })
    }

    fn wake(&self) {
        // Full: it is awake soon.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The thread: carries frames until it is stopped.
fn carry(shared: &Shared, tap: &Tap, frame_len_max: usize) {
    let mut buffer = vec![0; frame_len_max];
    while !shared.stop.load(Ordering::Relaxed) {
        let mut is_busy = false;
        // All that is urgent, then a burst of the rest.
        while write_next(shared, &shared.urgent, tap) {
            is_busy = true;
        }
        for _ in 0..BURST {
            is_busy |= write_next(shared, &shared.ordinary, tap);
        }
        for _ in 0..BURST {
            if shared.inbound.free.is_empty() {
                break;
            }
            let Some(len) = tap.read(&mut buffer) else {
                break;
            };
            is_busy = true;
            if shared.inbound.put(&buffer[..len]) {
                shared.pending.fetch_add(1, Ordering::Relaxed);
            }
        }
        if !is_busy {
            sleep(shared, tap);
        }
    }
}

fn write_next(shared: &Shared, line: &Line, tap: &Tap) -> bool {
    let counters = &shared.counters;
    line.next(|bytes| {
        count(if tap.write(bytes) {
            &counters.to_kernel
        } else {
            &counters.write_errors
        });
    })
}

/// Waits for a frame from either side.
fn sleep(shared: &Shared, tap: &Tap) {
    shared.asleep.store(true, Ordering::Relaxed);
    // Pairs with the fence in `give`.
    std::sync::atomic::fence(Ordering::SeqCst);
    if shared.urgent.waiting.is_empty() && shared.ordinary.waiting.is_empty() {
        let is_full = shared.inbound.free.is_empty();
        let wake = PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN);
        let mut fds = vec![wake];
        if !is_full {
            fds.push(PollFd::from_borrowed_fd(tap.as_fd(), PollFlags::IN));
        }
        // A worker that takes from a full line wakes nobody.
        let span = Timespec {
            tv_sec: 0,
            tv_nsec: if is_full { 1_000_000 } else { 500_000_000 },
        };
        let _ = poll(&mut fds, Some(&span));
    }
    shared.asleep.store(false, Ordering::Relaxed);
    let mut woken = [0; 8];
    // Nobody has, if it is empty.
    let _ = rustix::io::read(&shared.wake, &mut woken);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    /// Two workers' ends, and no thread that takes what they give.
    fn ends() -> [Exception; 2] {
        let shared = Arc::new(Shared::new(MAC, 1518).expect("an eventfd"));
        [true, false].map(|sends| Exception {
            shared: Arc::clone(&shared),
            sends,
        })
    }

    fn frame(to: [u8; 6], ether_type: u16, len: usize) -> Vec<u8> {
        let mut frame = vec![0; len];
        frame[..6].copy_from_slice(&to);
        frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        frame
    }

    fn dropped(end: &Exception) -> (u64, u64) {
        let counters = &end.shared.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&counters.urgent_dropped), of(&counters.ordinary_dropped))
    }

    #[test]
    fn a_flood_of_ordinary_frames_is_bounded_and_costs_no_urgent_one() {
        let [mut first, mut second] = ends();
        let ordinary = frame(MAC.0, 0x0800, 60);
        for _ in 0..ORDINARY / 2 + 5 {
            first.give(&ordinary);
            second.give(&ordinary);
        }
        assert_eq!(dropped(&first), (0, 10));
        let arp = frame([0xff; 6], 0x0806, 60);
        for _ in 0..=URGENT {
            second.give(&arp);
        }
        assert_eq!(dropped(&first), (1, 10));
        assert_eq!(first.shared.urgent.waiting.len(), URGENT);
        assert!(
            first
                .shared
                .ordinary
                .next(|bytes| assert_eq!(bytes, ordinary))
        );
        first.give(&ordinary);
        assert_eq!(dropped(&first), (1, 10), "there was room again");
        first.give(&frame(MAC.0, 0x0800, 1600));
        assert_eq!(dropped(&first), (1, 11), "longer than the interface takes");
    }

    #[test]
    fn what_is_for_another_machine_is_not_the_kernels() {
        let [mut first, _] = ends();
        first.give(&frame([2, 0, 0, 0, 0, 8], 0x0800, 60));
        first.give(&[0; 5]);
        assert!(first.shared.ordinary.waiting.is_empty());
        first.give(&frame([0x33, 0x33, 0, 0, 0, 1], 0x86dd, 60));
        assert_eq!(first.shared.ordinary.waiting.len(), 1);
        assert_eq!(dropped(&first), (0, 0));
    }

    #[test]
    fn the_first_worker_alone_sends_what_the_kernel_says_a_burst_at_a_time() {
        let [mut first, second] = ends();
        for number in 0..40 {
            assert!(first.shared.inbound.put(&[number; 60]));
            first.shared.pending.fetch_add(1, Ordering::Relaxed);
        }
        assert!(first.has_frames() && !second.has_frames());
        let mut seen = Vec::new();
        first.take(|bytes| {
            seen.push(bytes[0]);
            bytes[0] % 2 == 0
        });
        assert_eq!(seen, (0..32).collect::<Vec<_>>());
        first.take(|bytes| {
            seen.push(bytes[0]);
            true
        });
        assert_eq!(seen.len(), 40);
        assert!(!first.has_frames());
        let counters = &first.shared.counters;
        assert_eq!(counters.from_kernel.load(Ordering::Relaxed), 24);
        assert_eq!(counters.from_kernel_dropped.load(Ordering::Relaxed), 16);
    }

    #[test]
    fn a_worker_wakes_the_thread_only_when_it_sleeps() {
        let [mut first, _] = ends();
        let mut count = [0; 8];
        first.give(&frame(MAC.0, 0x0800, 60));
        assert!(rustix::io::read(&first.shared.wake, &mut count).is_err());
        first.shared.asleep.store(true, Ordering::Relaxed);
        first.give(&frame(MAC.0, 0x0800, 60));
        assert_eq!(rustix::io::read(&first.shared.wake, &mut count), Ok(8));
    }
}
