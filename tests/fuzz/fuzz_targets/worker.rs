//! Any frames, one after the other, through a director with every method: the worker goes on, its books balance, and no frame is lost.
//! An input is a list of frames: the ticks that pass before each, its length (two bytes, the lower first), its bytes.
#![no_main]

use conntrack::Ticks;
use control::Director;
use control::config::Configuration;
use dataplane::port::memory::MemoryPort;
use dataplane::port::{Mac, PortId, PortInfo};
use dataplane::reason::Reason;
use dataplane::worker::Worker;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use std::sync::atomic::Ordering::Relaxed;

const TEXT: &str = r#"
[director]
connections = 100
servers = 100
[port.lan]
driver = "memory"
addresses = ["10.0.0.1/8", "fd00::1/64"]
[[lip_pool]]
name = "lips"
addresses = ["10.0.0.200", "fd00::200"]
[[mark]]
mark = 7
destination_ports = "7000-7100"
[ipvs]
sloppy_sctp = true
nat_icmp_send = true
[[service]]
listen = "tcp 10.0.0.100:80"
scheduler = "rr"
method = "nat"
server = [{ address = "10.0.0.11" }, { address = "10.0.0.12" }]
[[service]]
listen = "tcp 10.0.0.100:21"
method = "nat"
helper = "ftp"
server = [{ address = "10.0.0.11" }]
[[service]]
listen = "udp 10.0.0.100:53"
method = "fullnat"
lip_pool = "lips"
server = [{ address = "10.0.0.11" }]
[[service]]
listen = "udp 10.0.0.100:5060"
method = "nat"
persistence_timeout = 60
persistence_engine = "sip"
server = [{ address = "10.0.0.11" }, { address = "10.0.0.12" }]
[[service]]
listen = "sctp 10.0.0.100:80"
method = "nat"
server = [{ address = "10.0.0.11" }]
[[service]]
listen = "udp 10.0.0.100:0"
method = "tun"
persistence_timeout = 60
server = [{ address = "10.0.0.12" }, { address = "fd00::12", tunnel = "gue", tunnel_port = 6080 }]
[[service]]
listen = "tcp [fd00::100]:80"
method = "fullnat"
lip_pool = "lips"
server = [{ address = "fd00::11" }]
[[service]]
listen = "udp [fd00::100]:53"
method = "dr"
server = [{ address = "fd00::11" }]
[[service]]
listen = "mark 7"
addresses = ["10.0.0.101"]
method = "nat"
server = [{ address = "10.0.0.11" }, { address = "10.0.0.12" }]
"#;

static CONFIGURATION: LazyLock<Configuration> = LazyLock::new(|| {
    let accepted =
        Configuration::parse("fuzz", TEXT).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    accepted.configuration
});

/// Longest frame: the port's buffers hold it.
const FRAME_LEN_MAX: usize = 1514;
/// After so long nothing waits any more: neighbours and fragments have had their time.
const LONG: u32 = 1000;

fuzz_target!(|bytes: &[u8]| {
    let info = PortInfo {
        name: "lan".to_owned(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        driver: "memory",
    };
    let director =
        Director::assemble(CONFIGURATION.clone(), vec![info.clone()]).expect("it is a good one");
    let mut now = Ticks(1);
    for (host, last) in [(11, "11"), (12, "12"), (2, "2")] {
        for address in [format!("10.0.0.{last}"), format!("fd00::{last}")] {
            let address = address.parse().expect("an address");
            director
                .neighbours()
                .intern(PortId(0), address, now)
                .expect("there is room");
            director
                .neighbours()
                .learn(PortId(0), address, Mac([2, 0, 0, 0, 1, host]), now);
        }
    }
    let (port, wire) = MemoryPort::new(PortId(0), info, 64, 2048);
    let parts = director.worker_parts(0, vec![port]);
    let stats = parts.stats.clone();
    let mut worker = Worker::new(parts, now);
    let mut rest = bytes;
    while let [wait, low, high, tail @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high]))
            .min(tail.len())
            .min(FRAME_LEN_MAX);
        let (frame, tail) = tail.split_at(len);
        assert!(wire.inject(frame));
        now.0 += u32::from(*wait);
        worker.run_once(now);
        drop(wire.take());
        rest = tail;
    }
    for _ in 0..4 {
        now.0 += LONG;
        worker.run_once(now);
        drop(wire.take());
    }
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    let verdicts = &stats.verdicts;
    assert_eq!(of(&verdicts.waiting_now), 0, "nothing waits for ever");
    let drops: u64 = Reason::ALL.iter().map(|reason| stats.drops(*reason)).sum();
    let gone = of(&verdicts.forwarded) + of(&verdicts.replied) + of(&verdicts.exceptions) + drops;
    assert_eq!(of(&verdicts.received) + of(&verdicts.originated), gone);
    // Whatever came, all buffers are there again.
    assert_eq!(wire.waiting(), 0);
});
