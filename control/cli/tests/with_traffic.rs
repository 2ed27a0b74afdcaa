//! Commands while connections are there. What ipvsadm 1.31 told of the real kernel while a few connections went through it (tests/ipvsadm/traffic.json, its recording
//! beside it), against a director that gets the same frames and the same commands. Connections come in any order, what they have
//! left to live may differ by seconds, and rates are compared by their columns alone: the rest is equal.
//!
//!   ipvs-oracle run tests/ipvsadm/traffic.json -o tests/ipvsadm/traffic.expected.json     records anew (root)

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

#[allow(dead_code, reason = "other tests use the rest")]
mod bed;

use bed::Bed;
use cli::connect;
use cli::ipvsadm::{self, Called, Streams};
use control::Director;
use control::config::Configuration;
use dataplane::frame::Offload;
use dataplane::packet::{Parsed, arp, ndp, parse};
use dataplane::port::memory::{MemoryPort, MemoryWire};
use dataplane::port::{Mac, PortId, PortInfo};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The oracle's director.
const DIRECTOR: &str = r#"
[director]
workers = 1
connections = 4096
[port.client]
driver = "memory"
addresses = ["10.1.0.1/16", "fd00:1::1/64"]
[port.server]
driver = "memory"
addresses = ["10.2.0.1/16", "fd00:2::1/64"]
[[route]]
to = "0.0.0.0/0"
via = "10.1.0.254"
[[route]]
to = "::/0"
via = "fd00:1::fe"
"#;
/// Its interfaces, by the oracle's names for them.
const SIDES: [(&str, Mac); 2] = [
    ("client", Mac([2, 0, 0, 0, 1, 1])),
    ("server", Mac([2, 0, 0, 0, 2, 1])),
];
/// How long something may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds that a connection may have less or more to live than the recorded one.
const LIVES: u32 = 12;

struct Wires {
    wires: Vec<MemoryWire>,
    options: connect::Options,
    _bed: Bed,
}

impl Wires {
    fn new() -> Wires {
        let configuration = Configuration::parse("f", DIRECTOR).unwrap().configuration;
        let (ports, wires): (Vec<_>, Vec<_>) = (0..)
            .zip(SIDES)
            .map(|(number, (name, mac))| {
                let info = PortInfo {
                    name: name.to_owned(),
                    mac,
                    mtu: 1500,
                    driver: "memory",
                };
                let (port, wire) = MemoryPort::new(PortId(number), info, 64, 2048);
                (vec![port], wire)
            })
            .unzip();
        let bed = Bed::of(Director::start_with(configuration, ports).unwrap());
        Wires {
            wires,
            options: connect::Options::socket(&bed.socket()),
            _bed: bed,
        }
    }

    /// Lets a frame in, and waits for as many to come out as came out of the kernel.
    fn inject(&self, recorded: &Value) {
        let side = SIDES.iter().position(|(name, _)| *name == recorded["side"]);
        assert!(self.wires[side.unwrap()].inject(&bytes(recorded["in"].as_str().unwrap())));
        let wanted = recorded["out"].as_array().unwrap().len();
        let since = Instant::now();
        let mut out = 0;
        while out < wanted {
            assert!(since.elapsed() < PATIENCE, "{out} frames for {recorded}");
            out += self.forwarded();
        }
    }

    /// Frames that came out, but for questions of the director's, which hosts of the link answer.
    fn forwarded(&self) -> usize {
        let mut count = 0;
        for wire in &self.wires {
            for (frame, _) in wire.take() {
                let asks = match parse(&frame, &Offload::NONE) {
                    Parsed::Arp => {
                        let asked = arp::parse(&frame).unwrap();
                        let mac = mac_of(asked.target.into());
                        if !asked.is_gratuitous() {
                            assert!(wire.inject(&arp::reply(mac, &asked)));
                        }
                        true
                    }
                    Parsed::Ipv6(packet) => match ndp::parse(&frame, &packet) {
                        Ok(ndp::Message::Solicitation { target, source_mac }) => {
                            let (mac, asker) = (mac_of(target.into()), packet.tuple.source);
                            if let Some(to) = source_mac {
                                let told = ndp::advertisement(mac, target, asker, to);
                                assert!(wire.inject(&told));
                            }
                            true
                        }
                        told => told.is_ok(),
                    },
                    _ => false,
                };
                count += usize::from(!asks);
            }
        }
        count
    }

    /// What a command says.
    fn say(&self, command: &str) -> String {
        let words: Vec<String> = command.split(' ').skip(1).map(str::to_owned).collect();
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let mut streams = Streams {
            input: &mut std::io::empty(),
            output: &mut output,
            errors: &mut errors,
        };
        let status = ipvsadm::run(Called::Ipvsadm, &words, &self.options, &mut streams);
        let [output, errors] = [output, errors].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!((status, errors.as_str()), (0, ""), "{command}");
        output
    }
}

/// As every host of the oracle's links has it.
fn mac_of(address: IpAddr) -> Mac {
    let (kind, last) = match address {
        IpAddr::V4(address) => (4, address.octets()),
        IpAddr::V6(address) => (6, *address.octets().last_chunk().unwrap()),
    };
    Mac([2, kind, last[0], last[1], last[2], last[3]])
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// A listing of connections: its head, and its rows without what is left of their lives, in order, with that in seconds.
fn connections(text: &str) -> (Vec<String>, Vec<(String, u32)>) {
    let lines: Vec<_> = text.lines().collect();
    let (head, rows) = lines.split_at(2);
    let row = |line: &&str| {
        let (minutes, seconds) = line[4..9].split_once(':').unwrap();
        let left = minutes.parse::<u32>().unwrap() * 60 + seconds.parse::<u32>().unwrap();
        (format!("{}{}", &line[..4], &line[9..]), left)
    };
    let mut rows: Vec<_> = rows.iter().map(row).collect();
    rows.sort();
    (head.iter().map(|line| (*line).to_owned()).collect(), rows)
}

/// A listing of rates without its numbers: five columns of nine, each a number at its right end.
fn rates(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let is_row = line.starts_with("TCP")
            || line.starts_with("UDP")
            || line.starts_with("  -> 1")
            || line.starts_with("  -> [");
        if !is_row {
            return line.to_owned();
        }
        let (name, numbers) = line.split_at(33);
        let fields = numbers.as_bytes().chunks(9).map(|field| {
            let field = std::str::from_utf8(field).unwrap();
            assert!(
                field.len() == 9 && field.trim_start().parse::<u64>().is_ok(),
                "{line}"
            );
            "         N"
        });
        name.to_owned() + &fields.collect::<String>()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether the director says what the kernel said.
fn is_equal(command: &str, kernel: &str, here: &str) -> bool {
    if command.contains("-Lnc") {
        let ((kernel_head, kernel), (head, here)) = (connections(kernel), connections(here));
        return kernel_head == head
            && kernel.len() == here.len()
            && kernel
                .iter()
                .zip(&here)
                .all(|((row, left), (other, other_left))| {
                    row.trim_end() == other.trim_end() && left.abs_diff(*other_left) <= LIVES
                });
    }
    // The recording has no blanks at its very end.
    let (kernel, here) = (kernel.trim_end(), here.trim_end());
    if command.contains("--rate") {
        return rates(kernel) == rates(here);
    }
    kernel == here
}

/// The recording's steps.
fn recorded() -> Vec<Value> {
    let text = include_str!("../../../tests/ipvsadm/traffic.expected.json");
    let recorded: Value = serde_json::from_str(text).unwrap();
    recorded["results"].as_array().unwrap().clone()
}

/// Whoever interrupts a drain is told what that means.
#[test]
fn a_drain_that_is_interrupted_says_what_holds() {
    let bed = Wires::new();
    let steps = recorded();
    for run in steps[0]["ipvsadm"].as_array().unwrap() {
        bed.say(run["command"].as_str().unwrap());
    }
    for frame in steps[1]["inject"].as_array().unwrap() {
        bed.inject(frame);
    }
    let mut uvs = Command::new(env!("CARGO_BIN_EXE_uvs"));
    uvs.args(["drain", "10.0.0.100:80", "10.2.0.12:8080", "--json"]);
    uvs.env("UVS_SOCKET", &bed.options.socket);
    uvs.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut drain = uvs.spawn().unwrap();
    let mut output = BufReader::new(drain.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&told["active"], &told["done"]), (&1.into(), &false.into()));
    let pid = Pid::from_raw(drain.id().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let ended = drain.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(ended.stderr).unwrap(),
        "uvs: interrupted: 1 active, 0 inactive left; the server keeps weight 0, and nothing is ended at a deadline: drain again\n"
    );
    let listed = bed.say("ipvsadm -Ln -t 10.0.0.100:80");
    assert!(
        listed.contains("10.2.0.12:8080               Masq    0      1 "),
        "{listed}"
    );
}

#[test]
fn ipvsadm_tells_of_connections_what_it_told_of_the_kernels() {
    let bed = Wires::new();
    let (mut wrong, mut listed) = (String::new(), 0);
    for step in recorded() {
        for frame in step["inject"].as_array().into_iter().flatten() {
            bed.inject(frame);
        }
        for run in step["ipvsadm"].as_array().into_iter().flatten() {
            let command = run["command"].as_str().unwrap();
            let kernel = run["output"].as_str().unwrap();
            assert_eq!(run["rc"], 0, "{command}");
            let mut here = bed.say(command);
            // Counters are read when their worker has written them down.
            let since = Instant::now();
            while !is_equal(command, kernel, &here)
                && command.contains(" -L")
                && since.elapsed() < Duration::from_secs(1)
            {
                std::thread::sleep(Duration::from_millis(50));
                here = bed.say(command);
            }
            if !is_equal(command, kernel, &here) {
                writeln!(wrong, "{command}\n--- kernel\n{kernel}\n--- here\n{here}").unwrap();
            }
            listed += usize::from(command.contains(" -L"));
        }
    }
    assert_eq!(wrong, "");
    assert!(listed >= 19, "{listed} listings");
}
