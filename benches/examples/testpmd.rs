//! The director beside DPDK's own forwarder: `uvs bench --port dpdk` and `dpdk-testpmd --forward-mode=macswap` in turn on the
//! same capture and the same virtual device, in one run; prints both rates and their ratio. Rates are packets in a second
//! that the forwarding thread had a core to itself, so that what else runs on the machine counts less.
//!
//! ```text
//! cargo run --release -p benches --features dpdk --example testpmd -- [SECONDS [ROUNDS]]
//! ```
//! Needs dpdk-testpmd (Debian: dpdk-dev). The director is measured in a process of its own, which is this program again.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use anyhow::{Context, bail};
use benches::{Case, Event, Family, Size};
use conntrack::Method;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long testpmd takes to begin, seconds.
const STARTS: f64 = 6.0;

/// What is measured: method, flows.
const CASES: [(Method, u32); 4] = [
    (Method::Dr, 1000),
    (Method::Dr, 50_000),
    (Method::FullNat, 1000),
    (Method::FullNat, 50_000),
];

fn case(method: Method, flows: u32, seconds: f64) -> Case {
    Case {
        method,
        family: Family::V4,
        flows,
        workers: 1,
        sizes: vec![Size::Bytes(64)],
        time: Duration::from_secs_f64(seconds),
        new_flows_per_second: 0,
        cross: false,
        roofline: false,
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, number, seconds, capture] = &arguments[..]
        && word == "--director"
    {
        return director(number.parse()?, seconds.parse()?, Path::new(capture));
    }
    let seconds: f64 = arguments.first().map_or(Ok(3.0), |text| text.parse())?;
    let rounds: u32 = arguments.get(1).map_or(Ok(3), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("uvs-testpmd-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = compare(&folder, seconds, rounds);
    std::fs::remove_dir_all(&folder)?;
    result
}

fn compare(folder: &Path, seconds: f64, rounds: u32) -> anyhow::Result<()> {
    println!("method   flows   uvs Mpps  testpmd macswap Mpps  ratio");
    for (number, (method, flows)) in CASES.into_iter().enumerate() {
        let capture = folder.join(format!("{number}.pcap"));
        benches::captured::write_capture(&case(method, flows, seconds), &capture)?;
        for _ in 0..rounds {
            let ours = in_process(number, seconds, &capture)?;
            let theirs = testpmd(&capture, seconds, flows)?;
            println!(
                "{:<7} {flows:>6} {ours:>10.2} {theirs:>21.2} {:>6.2}",
                format!("{method:?}").to_lowercase(),
                ours / theirs
            );
        }
        std::fs::remove_file(&capture)?;
    }
    Ok(())
}

/// The director's rate, measured by this program in another process: DPDK starts once in each.
fn in_process(number: usize, seconds: f64, capture: &Path) -> anyhow::Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--director", &number.to_string(), &seconds.to_string()])
        .arg(capture)
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().last().unwrap_or_default();
    last.parse()
        .with_context(|| format!("the director was not measured: {}", output.status))
}

/// Measures one case and prints its rate, Mpps.
fn director(number: usize, seconds: f64, capture: &Path) -> anyhow::Result<()> {
    let (method, flows) = CASES[number];
    let case = case(method, flows, seconds);
    benches::dpdk::start(std::slice::from_ref(&case))?;
    let device = format!("net_pcap0,rx_pcap={},infinite_rx=1", capture.display());
    let mut rate = None;
    benches::dpdk::run(&case, &device, &|| false, &mut |event| {
        if let Event::Measured(measurement) = event {
            rate = Some(1e3 / measurement.total().cpu_ns_per_packet());
        }
    })?;
    println!("{}", rate.context("nothing was measured")?);
    Ok(())
}

/// The rate of testpmd, packets of all its time on a core, Mpps.
fn testpmd(capture: &Path, seconds: f64, flows: u32) -> anyhow::Result<f64> {
    let mbufs = 2 * flows + 4096 + 4096;
    let has_huge = std::fs::read_to_string("/proc/meminfo")?
        .lines()
        .any(|line| line.starts_with("HugePages_Free:") && !line.ends_with(" 0"));
    let memory = (u64::from(mbufs) * 2560).div_ceil(1 << 20) + 128;
    let mut command = Command::new("dpdk-testpmd");
    command.args(["--no-pci", "--no-telemetry", "--file-prefix"]);
    command.arg(format!("uvs-testpmd-{}", std::process::id()));
    if has_huge {
        command.arg("--in-memory");
    } else {
        command.args(["--no-huge", "--no-shconf", "-m", &memory.to_string()]);
    }
    command.args(["-l", "0,1", "--vdev"]);
    command.arg(format!(
        "net_pcap0,rx_pcap={},infinite_rx=1",
        capture.display()
    ));
    command.args([
        "--",
        "--forward-mode=macswap",
        "--nb-cores=1",
        "--stats-period=1",
    ]);
    command.arg(format!("--total-num-mbufs={mbufs}"));
    command.args(["--mbcache=512", "--burst=32", "--no-lsc-interrupt"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("dpdk-testpmd (Debian: dpdk-dev)")?;
    std::thread::sleep(Duration::from_secs_f64(STARTS + seconds));
    let on_core = worker_time(child.id());
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child.id())?),
        nix::sys::signal::Signal::SIGINT,
    )?;
    let mut text = String::new();
    child
        .stdout
        .take()
        .context("it is piped")?
        .read_to_string(&mut text)?;
    child.wait()?;
    let counts = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("RX-packets:"));
    let packets = counts
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
        .next_back();
    match packets.zip(on_core) {
        Some((packets, on_core)) if packets > 0.0 => Ok(packets / on_core / 1e6),
        _ => bail!("dpdk-testpmd told no rate:\n{text}"),
    }
}

/// For how long the forwarding thread of testpmd has had a core, seconds.
fn worker_time(process: u32) -> Option<f64> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let folders = tasks.filter_map(|task| Some(task.ok()?.path()));
    let mut times = folders.filter_map(|folder| {
        let name = std::fs::read_to_string(folder.join("comm")).ok()?;
        let times = std::fs::read_to_string(folder.join("schedstat")).ok()?;
        let nanoseconds: f64 = times.split_whitespace().next()?.parse().ok()?;
        // "rte-worker-1", "dpdk-worker1": by the release.
        name.contains("worker").then_some(nanoseconds / 1e9)
    });
    times.next()
}
