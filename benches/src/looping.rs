//! Prepared frames over and over, at a time that stands still: for criterion and for profilers, which count the same
//! instructions in every run.

use crate::director::{Director, PORT, port_info};
use crate::frames::{ACK, Ends, Record, SYN};
use crate::place::{Host, Ip};
use conntrack::{Method, Ticks, V4};
use dataplane::frame::Offload;
use dataplane::port::memory::LoopPort;
use dataplane::worker::Worker;
use std::net::Ipv4Addr;

/// The time at which everything happens.
const NOW: Ticks = Ticks(1000);

/// A worker over an empty table, with the first packets of as many flows coming in, each once (and then over and over).
///
/// # Panics
/// When there is no memory for so many.
#[must_use]
pub fn beginning(method: Method, flows: u32) -> Worker<LoopPort> {
    let frames = (0..flows).map(|flow| request(scatter(flow, flows), SYN));
    worker(&director(method, flows), 0, frames.collect())
}

/// A worker over established connections, with 64-byte frames of them coming in for ever.
///
/// # Panics
/// When there is no memory for so many, or one was not made.
#[must_use]
pub fn established(method: Method, flows: u32) -> Worker<LoopPort> {
    let director = director(method, flows);
    let first = (0..flows).map(|flow| request(flow, SYN));
    let mut maker = worker(&director, 0, first.collect());
    let mut made = 0;
    while made < flows as usize {
        made += maker.run_once(NOW);
    }
    let (counted, drops) = (director.connections(), director.drops());
    assert_eq!(
        counted,
        u64::from(flows),
        "every flow has a connection; dropped: {drops:?}"
    );
    // In an order that no prefetcher of the CPU foresees.
    let frames = (0..flows).map(|flow| request(scatter(flow, flows), ACK));
    worker(&director, 1, frames.collect())
}

fn director(method: Method, flows: u32) -> Director {
    let capacity = flows + flows / 8 + 2048;
    Director::new::<V4>(method, capacity, 2, NOW).expect("memory for the table")
}

fn worker(director: &Director, index: u16, frames: Vec<(Vec<u8>, Offload)>) -> Worker<LoopPort> {
    let port = LoopPort::new(PORT, port_info(), &frames);
    director.worker(index, port, NOW)
}

/// A 64-byte frame (with its checksum sequence, which is not there) of a client's flow.
fn request(flow: u32, flags: u8) -> (Vec<u8>, Offload) {
    let client = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + flow / 32768);
    let port = u16::try_from(1024 + flow % 32768).expect("below 65536");
    let ends = Ends {
        source: (client, port),
        destination: (V4::address(Host::Vip), 80),
    };
    let mut frame = vec![0; 64];
    let len = V4::write(&Record::<V4>::new(&ends, flags, 64), &mut frame);
    frame.truncate(len);
    (frame, Offload::NONE)
}

/// A permutation of the flows: an odd multiplier modulo the next power of two, walked until it is below `flows`.
fn scatter(flow: u32, flows: u32) -> u32 {
    let mask = flows.next_power_of_two() - 1;
    let mut flow = flow;
    loop {
        flow = flow.wrapping_mul(0x9e37_79b1) & mask;
        flow = (flow ^ (flow >> 7)) & mask;
        if flow < flows {
            return flow;
        }
    }
}
