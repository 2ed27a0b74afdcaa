//! `uvs replay`, as a user calls it: no root, no network.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use dataplane::packet::checksum;
use dataplane::packet::wire::{TCP, write_ipv4_checksum};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 50);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 11);
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

const CONFIGURATION: &str = r#"
[port.wan]
driver = "af_packet"
interface = "none0"
addresses = ["10.1.0.1/24"]
[port.lan]
driver = "af_packet"
interface = "none1"
addresses = ["10.2.0.1/24"]
[[service]]
listen = "tcp 10.1.0.100:80"
scheduler = "rr"
method = "nat"
[[service.server]]
address = "10.2.0.11:8080"
"#;

fn segment(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let mut frame = vec![0; 54];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9]);
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, TCP]);
    frame[26..30].copy_from_slice(&source.0.octets());
    frame[30..34].copy_from_slice(&destination.0.octets());
    write_ipv4_checksum(&mut frame, 14);
    frame[34..36].copy_from_slice(&source.1.to_be_bytes());
    frame[36..38].copy_from_slice(&destination.1.to_be_bytes());
    frame[46..48].copy_from_slice(&[0x50, flags]);
    let sum = checksum::l4::<conntrack::V4>(source.0, destination.0, TCP, &frame[34..]);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// A classic capture, one frame a second.
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
    file.extend_from_slice(&[
        2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0,
    ]);
    for (second, frame) in (1_700_000_000_u32..).zip(frames) {
        let len = u32::try_from(frame.len()).unwrap();
        for word in [second, 0, len, len] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(frame);
    }
    file
}

fn replay(folder: &Path, input: &str, output: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_uvs"))
        .current_dir(folder)
        .args(["replay", "--config", "director.toml", input, output])
        .output()
        .unwrap()
}

#[test]
fn a_handshake_is_translated_both_ways_and_the_rest_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("director.toml"), CONFIGURATION).unwrap();
    let frames = [
        segment((CLIENT, 40_000), (VIP, 80), SYN),
        segment((SERVER, 8080), (CLIENT, 40_000), SYN | ACK),
        segment((CLIENT, 40_000), (VIP, 80), ACK),
        // No connection, and not a first packet.
        segment((CLIENT, 40_001), (VIP, 80), ACK),
        // Nobody's.
        segment((CLIENT, 40_000), (Ipv4Addr::new(192, 0, 2, 1), 80), SYN),
    ];
    fs::write(folder.path().join("in.pcap"), capture(&frames)).unwrap();
    let told = replay(folder.path(), "in.pcap", "out.pcap");
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(
        told.status.success(),
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
    let count = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().last()?.parse::<u32>().ok())
    };
    assert_eq!(count("Frames read"), Some(5), "{text}");
    assert_eq!(count("Forwarded"), Some(3), "{text}");
    assert_eq!(count("Left to the kernel"), Some(1), "{text}");
    assert_eq!(count("no-connection"), Some(1), "{text}");
    let server = text
        .lines()
        .find(|line| line.contains("10.2.0.11:8080"))
        .unwrap();
    let counts: Vec<_> = server.split_whitespace().skip(2).collect();
    assert_eq!(counts, ["1", "2", "1"], "{text}");

    let written = fs::read(folder.path().join("out.pcap")).unwrap();
    let holds = |source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)| {
        let mut wanted = Vec::new();
        wanted.extend_from_slice(&source.0.octets());
        wanted.extend_from_slice(&destination.0.octets());
        wanted.extend_from_slice(&source.1.to_be_bytes());
        wanted.extend_from_slice(&destination.1.to_be_bytes());
        written.windows(wanted.len()).any(|window| window == wanted)
    };
    assert!(
        holds((CLIENT, 40_000), (SERVER, 8080)),
        "the request goes to the server"
    );
    assert!(
        holds((VIP, 80), (CLIENT, 40_000)),
        "the reply comes from the VIP"
    );
    assert!(
        !holds((SERVER, 8080), (CLIENT, 40_000)),
        "the server's own address is never seen"
    );
}

#[test]
fn mistakes_name_the_file_and_leave_the_input_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("director.toml"), CONFIGURATION).unwrap();
    let input = capture(&[segment((CLIENT, 40_000), (VIP, 80), SYN)]);
    fs::write(folder.path().join("in.pcap"), &input).unwrap();
    let same = replay(folder.path(), "in.pcap", "in.pcap");
    assert!(!same.status.success());
    assert!(String::from_utf8_lossy(&same.stderr).contains("in.pcap"));
    assert_eq!(fs::read(folder.path().join("in.pcap")).unwrap(), input);

    let missing = replay(folder.path(), "nothing.pcap", "out.pcap");
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nothing.pcap"));
    assert!(!folder.path().join("out.pcap").exists());

    let broken = CONFIGURATION.replace("\"rr\"", "\"round\"");
    fs::write(folder.path().join("director.toml"), broken).unwrap();
    let told = replay(folder.path(), "in.pcap", "out.pcap");
    assert!(!told.status.success());
    let text = String::from_utf8_lossy(&told.stderr);
    assert!(
        text.contains("director.toml:") && text.contains("round"),
        "{text}"
    );
}
