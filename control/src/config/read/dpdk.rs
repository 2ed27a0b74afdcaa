//! DPDK and its ports.

use super::narrow;
use super::words::is_interface;
use crate::config::mistake::Problem;
use crate::config::model::{DpdkDevice, DpdkSettings, Spread};
use crate::config::reader::Section;

/// Arguments of DPDK's that may be given.
const ARGUMENTS: usize = 32;
/// Those that uvs sets itself, and where the user says it.
const OWN: [(&str, &str); 25] = [
    ("-a", "ports name their devices"),
    ("--allow", "ports name their devices"),
    ("-b", "ports name their devices"),
    ("--block", "ports name their devices"),
    ("--vdev", "ports name their devices"),
    ("--no-pci", "it is set unless a port has a PCI device"),
    ("-c", "`workers` and `pin` in [director] say it"),
    ("-l", "`workers` and `pin` in [director] say it"),
    ("--lcores", "`workers` and `pin` in [director] say it"),
    ("-s", "DPDK has no threads of its own here"),
    ("-S", "DPDK has no threads of its own here"),
    ("--main-lcore", "DPDK has no threads of its own here"),
    ("-m", "`memory_mib` says it"),
    ("--no-huge", "`huge_pages` says it"),
    ("--in-memory", "`huge_pages` says it"),
    ("--huge-unlink", "`huge_pages` says it"),
    ("--huge-dir", "no file is made in it"),
    ("--no-shconf", "nothing is shared with other processes"),
    ("--file-prefix", "nothing is shared with other processes"),
    ("--proc-type", "nothing is shared with other processes"),
    ("--no-telemetry", "no socket is made"),
    ("--telemetry", "no socket is made"),
    ("--create-uio-dev", "`dpdk-devbind.py` does what it is for"),
    ("-h", "see `dpdk-testpmd --help`"),
    ("--help", "see `dpdk-testpmd --help`"),
];

pub(super) fn read_dpdk(section: &Section<'_, '_>) -> DpdkSettings {
    let default = DpdkSettings::default();
    let arguments = section
        .get("arguments")
        .map(|value| value.list(ARGUMENTS))
        .unwrap_or_default();
    let arguments = arguments.iter().filter_map(|value| {
        let text = value.parse(|text| {
            let is_text = !text.is_empty() && !text.contains('\0');
            is_text.then(|| text.to_owned())
        })?;
        if let Some((argument, why)) = own(&text) {
            value.note(Problem::NotA {
                value: format!("{argument:?}"),
                what: "an argument for you to give",
                accepted: format!("any that uvs does not set itself; {why}"),
            });
        }
        Some(text)
    });
    DpdkSettings {
        arguments: arguments.collect(),
        huge_pages: section
            .get("huge_pages")
            .and_then(|value| {
                let is_true = value.boolean();
                if is_true.is_none() {
                    value.refuse();
                }
                is_true
            })
            .unwrap_or(default.huge_pages),
        memory_mib: narrow(section.number("memory_mib")),
        receive_descriptors: narrow(section.number("receive_descriptors"))
            .unwrap_or(default.receive_descriptors),
        transmit_descriptors: narrow(section.number("transmit_descriptors"))
            .unwrap_or(default.transmit_descriptors),
        mbufs: narrow(section.number("mbufs")).unwrap_or(default.mbufs),
    }
}

/// The argument of ours that a text gives, and why it is ours. Short ones may have their value right behind, long ones may be
/// abbreviated.
fn own(text: &str) -> Option<(&'static str, &'static str)> {
    let name = text.split(['=', ' ']).next().unwrap_or_default();
    let is_it = |own: &str| match own.starts_with("--") {
        true => name.len() > 2 && own.starts_with(name),
        false => name.starts_with(own) && !name.starts_with("--"),
    };
    OWN.iter().copied().find(|(own, _)| is_it(own))
}

/// The device of the port called `name`.
pub(super) fn read_device(name: &str, section: &Section<'_, '_>) -> DpdkDevice {
    let device = section.parsed("device", |text| is_device(text).then(|| text.to_owned()));
    if device.is_none() && section.is_absent("device") {
        section.note(
            "device",
            Problem::Missing {
                what: "the device of driver \"dpdk\"",
                accepted: "a PCI address or a virtual device".to_owned(),
            },
        );
    }
    let interface = section.parsed("exception_interface", |text| {
        is_interface(text).then(|| text.to_owned())
    });
    let has_tap = section.word("exception") == Some("tap");
    if !has_tap && !section.is_absent("exception_interface") {
        section.note(
            "exception_interface",
            Problem::Misplaced("only exception \"tap\" has an interface"),
        );
    }
    let named = || {
        let own = format!("uvs-{name}");
        if !is_interface(&own) && section.is_absent("exception_interface") {
            section.note(
                "exception_interface",
                Problem::Missing {
                    what: "the interface of a port whose name is too long for it",
                    accepted: "1 to 15 bytes without '/', ':' or blanks".to_owned(),
                },
            );
        }
        own
    };
    DpdkDevice {
        device: device.unwrap_or_default(),
        mtu: narrow(section.number("mtu")),
        spread: match section.word("rss") {
            Some("source") => Spread::Source,
            Some("destination") => Spread::Destination,
            _ => Spread::Flow,
        },
        exception: has_tap.then(|| interface.unwrap_or_else(named)),
    }
}

/// Whether it may name a device.
fn is_device(text: &str) -> bool {
    let name = text.split(',').next().unwrap_or_default();
    (1..=1000).contains(&text.len())
        && !name.is_empty()
        && !text
            .chars()
            .any(|character| character.is_whitespace() || character.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_ours_are_known_in_every_form() {
        for ours in [
            "-l",
            "-l1",
            "--lcores=1",
            "--lcores 1",
            "-m512",
            "--vdev=net_null0",
            "--no-hug",
            "-a0:1.0",
        ] {
            assert!(own(ours).is_some(), "{ours}");
        }
        for theirs in [
            "--log-level=pmd:8",
            "-n4",
            "-d/usr/lib/x.so",
            "--iova-mode=va",
            "--socket-mem=512",
            "--",
        ] {
            assert_eq!(own(theirs), None, "{theirs}");
        }
    }
}
