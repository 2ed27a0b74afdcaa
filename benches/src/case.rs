//! What is measured, and what came of it.

use conntrack::{Method, Pages, TableError};
use dataplane::packet::wire::{ETHERNET_LEN, IPV6_LEN, TCP_LEN};
use hdrhistogram::Histogram;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Bytes of a frame's checksum sequence: they count, and are not in memory.
pub const FCS_LEN: u32 = 4;
/// The shortest frame, bytes.
pub const FRAME_LEN_MIN: u32 = 64;
/// The longest, bytes: a jumbo frame.
pub const FRAME_LEN_MAX: u32 = 9018;

/// The frames of a simple IMIX: so many of this length.
const IMIX: [(u32, u32); 3] = [(7, 64), (4, 594), (1, 1518)];
/// Frames in it.
const IMIX_COUNT: u32 = IMIX[0].0 + IMIX[1].0 + IMIX[2].0;

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }
}

/// The lengths of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// All of so many bytes, checksum sequence included.
    Bytes(u32),
    /// Seven of 64 bytes, four of 594 and one of 1518.
    Imix,
}

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}; accepted: {FRAME_LEN_MIN} to {FRAME_LEN_MAX} (bytes), or imix")]
pub struct SizeError(String);

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Size, SizeError> {
        if text == "imix" {
            return Ok(Size::Imix);
        }
        let len = text.parse().ok();
        len.filter(|len| (FRAME_LEN_MIN..=FRAME_LEN_MAX).contains(len))
            .map(Size::Bytes)
            .ok_or_else(|| SizeError(text.to_owned()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Bytes(len) => f.pad(&len.to_string()),
            Size::Imix => f.pad("imix"),
        }
    }
}

impl Size {
    /// The length of a frame, checksum sequence included; `choice` is any number, and equally likely ones give the mix.
    /// Over IPv6, TCP has no frame below 78 bytes.
    pub(crate) fn frame_len(self, family: Family, choice: u32) -> u32 {
        let len = match self {
            Size::Bytes(len) => len,
            Size::Imix => {
                let mut left = choice % IMIX_COUNT;
                let found = IMIX.iter().find(|(count, _)| {
                    let is_it = left < *count;
                    left = left.saturating_sub(*count);
                    is_it
                });
                found.expect("the counts add up").1
            }
        };
        len.max(shortest(family))
    }

    /// The mean length of its frames, checksum sequence included, rounded.
    #[must_use]
    pub fn mean(self, family: Family) -> u32 {
        let sum: u32 = (0..IMIX_COUNT)
            .map(|choice| self.frame_len(family, choice))
            .sum();
        (sum + IMIX_COUNT / 2) / IMIX_COUNT
    }

    /// The longest of its frames in memory: without checksum sequence.
    pub(crate) fn longest_in_memory(self, family: Family) -> u32 {
        let lens = (0..IMIX_COUNT).map(|choice| self.frame_len(family, choice));
        lens.max().expect("there are some") - FCS_LEN
    }
}

/// The shortest frame of TCP, checksum sequence included.
fn shortest(family: Family) -> u32 {
    match family {
        Family::V4 => FRAME_LEN_MIN,
        Family::V6 => {
            const LEN: usize = ETHERNET_LEN + IPV6_LEN + TCP_LEN;
            u32::try_from(LEN).expect("78") + FCS_LEN
        }
    }
}

/// One director that is measured.
#[derive(Clone, Debug)]
pub struct Case {
    /// How it forwards.
    pub method: Method,
    /// Over which IP version.
    pub family: Family,
    /// How many connections there are.
    pub flows: u32,
    /// Its threads.
    pub workers: u16,
    /// Each of these is measured over the same connections.
    pub sizes: Vec<Size>,
    /// How long each measurement takes.
    pub time: Duration,
    /// SYNs of new clients in each second of established traffic, over all workers.
    pub new_flows_per_second: u32,
    /// Whether replies meet another worker than requests.
    pub cross: bool,
    /// Whether the floor is measured too.
    pub roofline: bool,
}

/// What the director was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Forwarding packets of established connections.
    Established,
    /// Making connections.
    New,
}

impl Phase {
    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Established => "established",
            Phase::New => "new",
        }
    }
}

/// Packets, and the time that they took one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Packets.
    pub packets: u64,
    /// Connections made for some of them.
    pub new_flows: u64,
    /// Time that passed.
    pub busy: Duration,
    /// The part of it that the thread had a core to itself.
    pub on_cpu: Duration,
}

impl Share {
    /// Packets in a second.
    #[must_use]
    pub fn packets_per_s(&self) -> f64 {
        per_second(self.packets, self.busy)
    }

    /// Connections made in a second.
    #[must_use]
    pub fn flows_per_s(&self) -> f64 {
        per_second(self.new_flows, self.busy)
    }

    /// Time of a packet; nothing if there was none.
    #[must_use]
    pub fn ns_per_packet(&self) -> f64 {
        ratio(self.busy.as_secs_f64() * 1e9, self.packets)
    }

    /// Time of a packet on a core; less than [`ns_per_packet`](Self::ns_per_packet) where others wanted the core too.
    #[must_use]
    pub fn cpu_ns_per_packet(&self) -> f64 {
        ratio(self.on_cpu.as_secs_f64() * 1e9, self.packets)
    }

    /// The part of the time that the thread had a core, 0 to 1.
    #[must_use]
    pub fn cpu_share(&self) -> f64 {
        self.on_cpu.as_secs_f64() / self.busy.as_secs_f64().max(1e-9)
    }

    pub(crate) fn add(&mut self, other: Share) {
        self.packets += other.packets;
        self.new_flows += other.new_flows;
        self.busy += other.busy;
        self.on_cpu += other.on_cpu;
    }

    /// All of it together.
    #[must_use]
    pub fn sum(shares: impl IntoIterator<Item = Share>) -> Share {
        let mut sum = Share::default();
        shares.into_iter().for_each(|share| sum.add(share));
        sum
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures for people to read")]
fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        count as f64 / time.as_secs_f64()
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures for people to read")]
fn ratio(amount: f64, count: u64) -> f64 {
    if count == 0 {
        0.0
    } else {
        amount / count as f64
    }
}

/// What came of a case in one phase, with frames of one size.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// As in the case.
    pub method: Method,
    /// As in the case.
    pub family: Family,
    /// As in the case.
    pub flows: u32,
    /// The frames' size. Of SYNs: the shortest.
    pub size: Size,
    /// Their mean length, checksum sequence included.
    pub frame_len: u32,
    /// What was measured.
    pub phase: Phase,
    /// Whether replies met another worker than requests.
    pub cross: bool,
    /// What each worker did.
    pub shares: Vec<Share>,
    /// What it takes the memory port alone to hand the same frames in and out: part of every packet's time.
    pub of_port: Share,
    /// What it takes to read and checksum the same frames and to fetch two random lines for each: the floor.
    pub of_floor: Option<Share>,
    /// How long bursts took, nanoseconds.
    pub bursts: Histogram<u64>,
    /// Memory of the table for each of its connections, bytes.
    pub bytes_per_connection: f64,
    /// What kind of pages hold the table, bytes of each.
    pub pages: Pages,
}

impl Measurement {
    /// Packets in a second, all workers together.
    #[must_use]
    pub fn packets_per_s(&self) -> f64 {
        self.shares.iter().map(Share::packets_per_s).sum()
    }

    /// Connections made in a second, all workers together.
    #[must_use]
    pub fn flows_per_s(&self) -> f64 {
        self.shares.iter().map(Share::flows_per_s).sum()
    }

    /// The time that a packet takes one worker.
    #[must_use]
    pub fn ns_per_packet(&self) -> f64 {
        self.total().ns_per_packet()
    }

    /// How many packets there were.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.total().packets
    }

    /// Packets in a second if they took no longer than the floor.
    #[must_use]
    pub fn roofline_packets_per_s(&self) -> Option<f64> {
        let workers = u32::try_from(self.shares.len()).expect("workers are counted by a u16");
        self.of_floor
            .map(|share| share.packets_per_s() * f64::from(workers))
    }

    /// How many connections a GiB of table memory holds.
    #[must_use]
    pub fn connections_per_gib(&self) -> f64 {
        f64::from(1_u32 << 30) / self.bytes_per_connection
    }

    /// Time of a packet at the floor.
    #[must_use]
    pub fn roofline_ns(&self) -> Option<f64> {
        self.of_floor.map(|share| share.ns_per_packet())
    }

    /// What all workers did together.
    #[must_use]
    pub fn total(&self) -> Share {
        Share::sum(self.shares.iter().copied())
    }
}

/// Why a case was not measured to its end.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no table for so many connections.
    #[error(transparent)]
    Table(#[from] TableError),
    /// There is no memory for the roofline to read.
    #[error("no memory for the roofline: {0}")]
    Floor(#[source] std::io::Error),
    /// There is no memory for the packets to come.
    #[error("no memory for the headers of {0} packets")]
    Packets(u64),
    /// The director did not do what is measured.
    #[error("{done} of {expected} {what}; dropped: {drops:?}")]
    Lost {
        /// What was to be done.
        what: &'static str,
        /// How often it was done.
        done: u64,
        /// How often it should have been.
        expected: u64,
        /// Drop reasons that were met, and how often.
        drops: Vec<(&'static str, u64)>,
    },
    /// The port that the packets come by cannot be opened.
    #[error("{0}")]
    Port(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The user wanted it to end.
    #[error("interrupted")]
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_lengths_on_the_wire_or_the_mix() {
        assert_eq!("64".parse(), Ok(Size::Bytes(64)));
        assert_eq!("imix".parse(), Ok(Size::Imix));
        for wrong in ["63", "9019", "", "x", "-1", "IMIX"] {
            let error = wrong.parse::<Size>().unwrap_err().to_string();
            assert!(error.contains("64 to 9018") && error.contains(wrong));
        }
        assert_eq!(Size::Imix.mean(Family::V4), 362);
        assert_eq!(Size::Bytes(1500).mean(Family::V6), 1500);
        assert_eq!(Size::Bytes(64).mean(Family::V6), 78);
        assert_eq!(Size::Imix.longest_in_memory(Family::V4), 1514);
    }

    #[test]
    fn two_workers_are_twice_as_fast_and_no_packet_is_faster() {
        let share = Share {
            packets: 1000,
            new_flows: 10,
            busy: Duration::from_micros(50),
            on_cpu: Duration::from_micros(25),
        };
        let floor = Share {
            packets: 2000,
            ..share
        };
        let of = |shares| Measurement {
            method: Method::Dr,
            family: Family::V4,
            flows: 1,
            size: Size::Bytes(64),
            frame_len: 64,
            phase: Phase::Established,
            cross: false,
            shares,
            of_port: Share::default(),
            of_floor: Some(floor),
            bursts: Histogram::new(3).unwrap(),
            bytes_per_connection: 64.0,
            pages: Pages::default(),
        };
        let close = |one: f64, other: f64| (one - other).abs() < other * 1e-9;
        let (one, two) = (of(vec![share]), of(vec![share, share]));
        assert!(close(one.packets_per_s(), 20e6) && close(two.packets_per_s(), 40e6));
        assert!(close(one.ns_per_packet(), 50.0) && close(two.ns_per_packet(), 50.0));
        assert!(close(two.flows_per_s(), 4e5));
        assert!(close(two.total().cpu_ns_per_packet(), 25.0) && close(share.cpu_share(), 0.5));
        assert!(close(two.roofline_packets_per_s().unwrap(), 80e6));
        assert!(close(one.connections_per_gib(), f64::from(1 << 24)));
    }
}
