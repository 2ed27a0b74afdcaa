//! How the frames of a port come and go.

use super::dpdk::read_device;
use super::switch;
use super::words::{is_interface, is_path};
use crate::config::mistake::Problem;
use crate::config::model::Driver;
use crate::config::reader::Section;
use dataplane::port::af_xdp::Checksums;
use std::path::PathBuf;

/// Keys that some drivers have, which ones, and what is told of the key in a port of another driver.
const OF_DRIVERS: [(&[&str], &[&str], &str); 4] = [
    (
        &["interface"],
        &["af_packet", "af_xdp", "auto"],
        "only drivers \"auto\", \"af_packet\" and \"af_xdp\" have an interface",
    ),
    (
        &["checksums"],
        &["af_xdp", "auto"],
        "only drivers \"auto\" and \"af_xdp\" have this choice",
    ),
    (
        &["device", "mtu", "rss", "exception", "exception_interface"],
        &["dpdk", "auto"],
        "only drivers \"auto\" and \"dpdk\" have it",
    ),
    (
        &["file", "infinite", "output"],
        &["pcap"],
        "only driver \"pcap\" reads and writes captures",
    ),
];

/// The driver of the port called `name`.
pub(super) fn read_driver(name: &str, section: &Section<'_, '_>) -> Driver {
    let interface = section.parsed("interface", |text| {
        is_interface(text).then(|| text.to_owned())
    });
    let checksums = section.word("checksums").map(|word| match word {
        "trust" => Checksums::Trust,
        _ => Checksums::Verify,
    });
    let needed = |what| {
        needs_interface(section, interface.is_none(), what);
        interface.clone().unwrap_or_default()
    };
    let word = section.word("driver");
    let driver = match word {
        Some("af_packet") => Driver::AfPacket {
            interface: needed("the interface of driver \"af_packet\""),
        },
        Some("af_xdp") => Driver::AfXdp {
            interface: needed("the interface of driver \"af_xdp\""),
            checksums,
        },
        Some("dpdk") => Driver::Dpdk(Box::new(read_device(name, section))),
        Some("auto") => read_automatic(name, section, interface, checksums),
        Some("pcap") => read_pcap(section),
        _ => Driver::Memory,
    };
    if let Some(word) = word {
        refuse_keys_of_others(section, word);
    }
    driver
}

/// Notes that a driver's interface is missing, if it is.
fn needs_interface(section: &Section<'_, '_>, is_missing: bool, what: &'static str) {
    if is_missing && section.is_absent("interface") {
        let accepted = "1 to 15 bytes without '/', ':' or blanks".to_owned();
        section.note("interface", Problem::Missing { what, accepted });
    }
}

/// Of an interface, a device, or both.
fn read_automatic(
    name: &str,
    section: &Section<'_, '_>,
    interface: Option<String>,
    checksums: Option<Checksums>,
) -> Driver {
    if section.is_absent("interface") && section.is_absent("device") {
        section.note(
            "interface",
            Problem::Missing {
                what: "what driver \"auto\" is to choose from",
                accepted: "an `interface`, a `device` of DPDK, or both".to_owned(),
            },
        );
    }
    let device = !section.is_absent("device");
    Driver::Automatic {
        device: device.then(|| Box::new(read_device(name, section))),
        interface,
        checksums,
    }
}

fn read_pcap(section: &Section<'_, '_>) -> Driver {
    let path = |key| section.parsed(key, |text| is_path(text).then(|| PathBuf::from(text)));
    if section.is_absent("file") {
        let accepted = "a path to a pcap or pcapng file of Ethernet frames".to_owned();
        section.note(
            "file",
            Problem::Missing {
                what: "the capture of driver \"pcap\"",
                accepted,
            },
        );
    }
    Driver::Pcap {
        file: path("file").unwrap_or_default(),
        infinite: switch(section, "infinite").unwrap_or(false),
        output: path("output"),
    }
}

/// Notes keys that belong to other drivers than the port's.
fn refuse_keys_of_others(section: &Section<'_, '_>, driver: &str) {
    for (keys, drivers, problem) in OF_DRIVERS {
        for key in keys.iter().filter(|key| !section.is_absent(key)) {
            if !drivers.contains(&driver) {
                section.note(key, Problem::Misplaced(problem));
            }
        }
    }
}
