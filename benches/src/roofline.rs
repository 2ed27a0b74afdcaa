//! The floor under a director: the same frames by the same port, read and summed, and two random lines fetched for each.

use crate::traffic::{Random, below};
use conntrack::Lines;
use dataplane::packet::checksum;
use dataplane::port::{BURST, Burst, Port, Sent};
use std::sync::Arc;

/// What stands in the place of the table: as large, on the same kind of pages.
pub(crate) struct Memory {
    index: Lines,
    entries: Lines,
}

impl Memory {
    /// Memory as large as an index and the entries that are in use, bytes.
    pub(crate) fn new(index: u64, entries: u64) -> std::io::Result<Memory> {
        Ok(Memory {
            index: used(Lines::new(index)?),
            entries: used(Lines::new(entries)?),
        })
    }
}

/// Lines that have been read before: where the machine is a virtual one, the first time is slow.
fn used(lines: Lines) -> Lines {
    let read = (0..lines.count()).fold(0, |read, line| lines.read(line).wrapping_add(read));
    std::hint::black_box(read);
    lines
}

/// Does with frames the least that any director could.
pub(crate) struct Floor {
    memory: Arc<Memory>,
    random: Random,
    /// What was read, so that it must be.
    read: u32,
}

impl Floor {
    pub(crate) fn new(memory: Arc<Memory>, seed: u64) -> Floor {
        Floor {
            memory,
            random: Random(seed),
            read: 0,
        }
    }

    /// A burst in a director's stages: read and sum all, asking for a line of the index for each; read those, asking for
    /// a line of the entries; read those. Returns how many frames there were.
    pub(crate) fn round(&mut self, port: &mut impl Port) -> usize {
        let mut burst = Burst::new();
        let count = port.receive(&mut burst);
        let Memory { index, entries } = &*self.memory;
        let mut lines = [(0, 0); BURST];
        let mut read = self.read;
        for (frame, lines) in burst.iter().zip(&mut lines) {
            read = read.wrapping_add(u32::from(checksum::sum(frame.bytes())));
            let bits = self.random.next();
            *lines = (
                below(bits >> 32, index.count()),
                below(bits & u64::from(u32::MAX), entries.count()),
            );
            index.prefetch(lines.0);
        }
        for &(line, entry) in &lines[..count] {
            read = read.wrapping_add(index.read(line));
            entries.prefetch(entry);
        }
        for (frame, &(_, entry)) in burst.drain(..).zip(&lines) {
            read = read.wrapping_add(entries.read(entry));
            hand_on(port, frame);
        }
        self.read = std::hint::black_box(read);
        count
    }
}

/// What the port alone does: a burst in and out again, unread.
pub(crate) fn pass(port: &mut impl Port) -> usize {
    let mut burst = Burst::new();
    let count = port.receive(&mut burst);
    for frame in burst.drain(..) {
        hand_on(port, frame);
    }
    count
}

#[inline]
fn hand_on(port: &mut impl Port, frame: dataplane::frame::Frame) {
    match port.transmit(frame) {
        Sent::Taken => {}
        Sent::Copied(frame) | Sent::Refused(frame) => port.release(frame),
    }
}
