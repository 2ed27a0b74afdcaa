//! Any bytes as a frame: what it is read as lies within it.
#![no_main]

use dataplane::frame::Offload;
use dataplane::packet::{Parsed, arp, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = arp::parse(bytes);
    let end = match parse(bytes, &Offload::NONE) {
        Parsed::Ipv4(packet) => packet.end(),
        Parsed::Ipv6(packet) => packet.end(),
        _ => 0,
    };
    assert!(end <= bytes.len());
});
