//! The port on virtual devices, without huge pages and without a network.

use super::*;
use crate::frame::Gso;
use crate::packet::checksum;
use crate::port::memory::MemoryPort;
use crate::port::{BURST, Mac};
use std::path::{Path, PathBuf};

fn begin() {
    start(&Settings::default()).expect("DPDK runs without huge pages");
}

fn config(device: &str) -> Config {
    begin();
    Config {
        mbufs: 2048,
        receive_descriptors: 256,
        transmit_descriptors: 256,
        ..Config::new(PortId(0), device)
    }
}

fn one(device: &str) -> (DpdkPort, Arc<dyn crate::port::handle::PortHandle>) {
    let mut opened = open(&config(device)).expect("a virtual device");
    (opened.queues.pop().expect("one worker"), opened.handle)
}

fn error(config: &Config) -> String {
    match open(config) {
        Ok(_) => panic!("{} was opened", config.device),
        Err(error) => error.to_string(),
    }
}

/// A file that is removed with this value.
struct Capture(PathBuf);

impl Capture {
    fn new(name: &str) -> Capture {
        let name = format!("uvs-dpdk-{}-{name}.pcap", std::process::id());
        Capture(std::env::temp_dir().join(name))
    }

    fn write(self, frames: &[Vec<u8>]) -> Capture {
        let mut bytes = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            bytes.extend(word.to_le_bytes());
        }
        for frame in frames {
            let len = u32::try_from(frame.len()).expect("short").to_le_bytes();
            bytes.extend([0; 8]);
            bytes.extend(len);
            bytes.extend(len);
            bytes.extend(frame);
        }
        std::fs::write(&self.0, bytes).expect("a temporary file");
        self
    }

    fn read(&self) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(&self.0).expect("net_pcap wrote it");
        let mut rest = &bytes[24..];
        let mut frames = Vec::new();
        while let Some((header, after)) = rest.split_first_chunk::<16>() {
            let len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
            frames.push(after[..len].to_vec());
            rest = &after[len..];
        }
        frames
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A TCP segment over IPv4 with its checksum left to the NIC.
fn segment(payload: usize) -> (Vec<u8>, Offload) {
    let mut frame = vec![0; 54 + payload];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    let len = u16::try_from(40 + payload).expect("a datagram");
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[22] = 64;
    frame[23] = 6;
    frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = checksum::ipv4_header(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34..38].copy_from_slice(&[0x12, 0x34, 0, 80]);
    frame[46] = 0x50;
    frame[47] = 0x10;
    for (byte, value) in frame[54..].iter_mut().zip((0..=u8::MAX).cycle()) {
        *byte = value;
    }
    let pseudo = checksum::pseudo_header::<crate::packet::V4>(
        [10, 0, 0, 1].into(),
        [10, 0, 0, 2].into(),
        6,
        u32::from(len) - 20,
    );
    frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let offload = Offload {
        partial_checksum: true,
        checksum_start: 34,
        checksum_offset: 16,
        ..Offload::NONE
    };
    (frame, offload)
}

fn is_complete(frame: &[u8]) -> bool {
    checksum::l4::<crate::packet::V4>([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 6, &frame[34..])
        == 0
}

#[test]
fn frames_leave_as_they_came_and_with_what_was_put_in_front() {
    let frames: Vec<Vec<u8>> = (0..100_u8)
        .map(|number| vec![number; 60 + usize::from(number)])
        .collect();
    let input = Capture::new("as-is-in").write(&frames);
    let output = Capture::new("as-is-out");
    let (mut port, handle) = one(&format!(
        "net_pcap_as_is,rx_pcap={},tx_pcap={}",
        input.path().display(),
        output.path().display()
    ));
    let mut burst = Burst::new();
    let mut number = 0;
    while port.receive(&mut burst) > 0 {
        for mut frame in burst.drain(..) {
            assert_eq!(frame.bytes(), frames[number]);
            assert!(frame.headroom() >= crate::rewrite::tunnel::LARGEST_OVERHEAD);
            match number % 3 {
                0 => {
                    assert!(frame.prepend(20));
                    frame.bytes_mut()[..20].fill(0xee);
                }
                1 => frame.trim_front(4),
                _ => {}
            }
            assert!(matches!(port.transmit(frame), Sent::Taken));
            number += 1;
        }
        port.flush();
    }
    assert_eq!(number, 100);
    drop((port, handle));
    let sent = output.read();
    assert_eq!(sent.len(), 100);
    for (number, (sent, frame)) in sent.iter().zip(&frames).enumerate() {
        match number % 3 {
            0 => assert_eq!(*sent, [vec![0xee; 20], frame.clone()].concat()),
            1 => assert_eq!(sent[..], frame[4..]),
            _ => assert_eq!(sent, frame),
        }
    }
}

#[test]
fn a_frame_of_one_port_is_sent_by_another_without_a_copy_and_every_mbuf_comes_back() {
    let (mut left, _left) = one("net_null_left");
    let (mut right, _right) = one("net_null_right");
    let mut burst = Burst::new();
    // Many more than there are mbufs.
    for _ in 0..2048 {
        assert_eq!(left.receive(&mut burst), BURST);
        for (number, frame) in burst.drain(..).enumerate() {
            match number % 4 {
                0 => left.release(frame),
                1 => left.leave(frame),
                _ => assert!(matches!(right.transmit(frame), Sent::Taken)),
            }
        }
        right.flush();
    }
    assert_eq!(left.counters(), PortCounters::default());
    assert_eq!(right.counters().transmit_errors, 0);
}

#[test]
fn without_mbufs_nothing_is_received_or_sent_until_frames_are_back() {
    let (mut port, _handle) = one("net_null_short");
    let mut held = Vec::new();
    let mut burst = Burst::new();
    while port.receive(&mut burst) > 0 {
        held.extend(burst.drain(..));
    }
    assert!((1024..=2048).contains(&held.len()), "{}", held.len());
    held.drain(..).for_each(|frame| port.release(frame));
    assert_eq!(port.receive(&mut burst), BURST);
    burst.drain(..).for_each(|frame| port.release(frame));
}

#[test]
fn what_other_ports_leave_to_a_nic_is_done() {
    let input = Capture::new("software-in").write(&[]);
    let output = Capture::new("software-out");
    let (mut port, handle) = one(&format!(
        "net_pcap_software,rx_pcap={},tx_pcap={}",
        input.path().display(),
        output.path().display()
    ));
    let info = PortInfo {
        name: "memory".into(),
        mac: Mac([2, 0, 0, 0, 0, 9]),
        mtu: 1500,
        driver: "memory",
    };
    let (mut other, wire) = MemoryPort::new(PortId(1), info, 8, 9000);
    let (small, partial) = segment(100);
    let (large, _) = segment(4000);
    let gso = Offload {
        gso: Gso::Tcp4 { ecn: false },
        segment_len: 1448,
        header_len: 54,
        ..partial
    };
    assert!(wire.inject_with(&small, partial) && wire.inject_with(&large, gso));
    let mut burst = Burst::new();
    assert_eq!(other.receive(&mut burst), 2);
    for frame in burst.drain(..) {
        match port.transmit(frame) {
            Sent::Copied(frame) => other.release(frame),
            sent => panic!("{sent:?}"),
        }
    }
    assert!(port.send(&small, &partial));
    assert!(
        !port.send(&vec![0; 20_000], &Offload::NONE),
        "no mbuf is so long"
    );
    port.flush();
    drop((port, handle));
    let sent = output.read();
    let lens: Vec<_> = sent.iter().map(Vec::len).collect();
    assert_eq!(lens, [154, 1502, 1502, 54 + 4000 - 2 * 1448, 154]);
    assert!(sent.iter().all(|frame| is_complete(frame)));
    let payload: Vec<u8> = sent[1..4]
        .iter()
        .flat_map(|frame| frame[54..].to_vec())
        .collect();
    assert_eq!(payload, large[54..]);
}

#[test]
fn several_workers_have_a_queue_each_and_the_port_says_how_frames_are_spread() {
    let mut opened = open(&Config {
        workers: 3,
        ..config("net_null_three")
    })
    .expect("net_null has many queues");
    assert_eq!(opened.queues.len(), 3);
    let mut burst = Burst::new();
    for port in &mut opened.queues {
        assert_eq!(port.receive(&mut burst), BURST);
        burst.drain(..).for_each(|frame| port.release(frame));
    }
    let state = opened.handle.state();
    assert!(
        state.mode.starts_with("net_null, RSS over flows"),
        "{state:?}"
    );
    let statistics = opened.handle.statistics();
    let received = statistics
        .iter()
        .find(|(name, _)| name == "rx_good_packets");
    assert_eq!(
        received.map(|(_, count)| *count),
        Some(96),
        "{statistics:?}"
    );
}

#[test]
fn errors_say_what_to_do() {
    let input = Capture::new("errors").write(&[vec![0; 60]]);
    let device = format!("net_pcap_errors,rx_pcap={}", input.path().display());
    let few = error(&Config {
        workers: 2,
        ..config(&device)
    });
    assert!(
        few.contains("has 1 RX/TX queue pair(s), and there are 2 workers")
            && few.contains("`workers = 1`"),
        "{few}"
    );
    let missing = error(&config("net_nonsense0"));
    assert!(missing.contains("librte-net-*"), "{missing}");
    let first = one("net_null_used");
    let used = error(&config("net_null_used"));
    assert!(used.contains("is used already"), "{used}");
    drop(first);
    let (_again, _handle) = one("net_null_used");
    let mbufs = error(&Config {
        mbufs: 1 << 23,
        ..config("net_null_memory")
    });
    assert!(
        mbufs.contains("no memory for 8388608 mbufs") && mbufs.contains("memory_mib"),
        "{mbufs}"
    );
    let range = error(&Config {
        mbufs: 5,
        ..config("net_null_range")
    });
    assert_eq!(range, "mbufs = 5: accepted are 1024 to 16777216");
    let other = Settings {
        huge_pages: false,
        memory_mib: Some(100),
        ..Settings::default()
    };
    assert!(matches!(start(&other), Err(EalError::Different)));
}

#[test]
fn nothing_is_left_in_the_runtime_folder() {
    begin();
    let folder = format!("/var/run/dpdk/uvs-{}", std::process::id());
    assert!(!Path::new(&folder).exists());
}
