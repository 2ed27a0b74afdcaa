//! A director without a network, and how fast it is: the engine of `uvs bench`, and what the criterion benches measure.
//!
//! ```text
//!   case ─▶ director (director.rs): tables, eight servers, N workers on memory ports
//!        ─▶ new:         SYN after SYN into the empty table, several times          (run.rs)
//!        ─▶ handshakes
//!        ─▶ established: packets of flows at random, chosen beforehand (traffic.rs); in slices, between which the floor
//!                        (roofline.rs) and the port alone have their turns          (crew.rs)
//! ```
//! What a port hands in are records of a few bytes, read one after the other, from which it writes the headers into the
//! buffers of a ring (frames.rs): ten million flows need no ten million frames, and a payload is in its buffer already,
//! as a NIC would have put it there. This is part of the measured time, and measured apart too ([`Measurement::of_port`]).

pub mod captured;
mod case;
mod crew;
mod director;
#[cfg(feature = "dpdk")]
pub mod dpdk;
mod frames;
mod looping;
mod place;
mod roofline;
mod run;
mod step;
mod traffic;

pub use case::{
    BenchError, Case, FCS_LEN, FRAME_LEN_MAX, FRAME_LEN_MIN, Family, Measurement, Phase, Share,
    Size, SizeError,
};
pub use director::servers;
pub use looping::{beginning, established};
pub use run::{Event, run};
