//! Instructions per packet, counted by valgrind, against the recorded ones: `instructions [--record]`.
//!
//! ```text
//!   forward MODE FLOWS 200000  ─┐
//!   forward MODE FLOWS 100000  ─┴─▶ the difference: 100000 packets, and nothing of what comes before them
//! ```
//! Counts do not depend on what else the machine does, nor on its caches: they tell what the code does, not how fast it is.
//! A mode that grew by more than five in a hundred is a failure until a new count is recorded, with `--record`, which writes
//! `benches/instructions.toml` and the table of `benches/README.md`. The example `forward` must be built.

use anyhow::{Context, bail, ensure};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// Modes of `forward`, how many flows, and how many packets the shorter run has; the longer one has twice as many.
const MODES: [(&str, u32, u64); 5] = [
    ("dr", 1000, 100_000),
    ("tun", 1000, 100_000),
    ("nat", 1000, 100_000),
    ("fullnat", 1000, 100_000),
    ("new", 20_000, 10_000),
];
/// By how much of a hundred a count may grow.
const GROWTH_PERCENT: u64 = 5;
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml");
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const BEGIN: &str = "<!-- instructions -->\n";
const END: &str = "<!-- /instructions -->";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let is_recording = match &arguments[..] {
        [] => false,
        [option] if option == "--record" => true,
        _ => bail!("{arguments:?}; accepted: nothing, or --record"),
    };
    let forward = std::env::current_exe()?.with_file_name("forward");
    ensure!(
        forward.exists(),
        "{} is not there: cargo build --release -p benches --examples",
        forward.display()
    );
    let counts: Vec<_> = MODES
        .iter()
        .map(|&(mode, flows, packets)| Ok((mode, count(&forward, mode, flows, packets)?)))
        .collect::<anyhow::Result<_>>()?;
    if is_recording {
        return record(&counts);
    }
    compare(&counts, &std::fs::read_to_string(BASELINE)?.parse()?)
}

/// Instructions of a packet.
fn count(forward: &Path, mode: &str, flows: u32, packets: u64) -> anyhow::Result<u64> {
    let [short, long] = [packets, 2 * packets].map(|packets| run(forward, mode, flows, packets));
    let difference = long?.checked_sub(short?);
    Ok(difference.context("the longer run has fewer instructions")? / packets)
}

/// Instructions of a run.
fn run(forward: &Path, mode: &str, flows: u32, packets: u64) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(forward)
        .args([mode, &flows.to_string(), &packets.to_string()])
        .output()
        .context("valgrind cannot be run; it is the Debian package valgrind")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "forward {mode} failed: {told}");
    let line = told
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, number) = line.with_context(|| format!("valgrind tells no count: {told}"))?;
    Ok(number.trim().parse()?)
}

fn compare(counts: &[(&str, u64)], baseline: &toml::Table) -> anyhow::Result<()> {
    let mut grown = Vec::new();
    println!("{:<10}{:>14}{:>10}", "mode", "instructions", "recorded");
    for &(mode, count) in counts {
        let recorded = baseline.get(mode).and_then(toml::Value::as_integer);
        let recorded = recorded.with_context(|| format!("{BASELINE} has no {mode}: --record"))?;
        let recorded = u64::try_from(recorded)?;
        println!("{mode:<10}{count:>14}{recorded:>10}");
        if count * 100 > recorded * (100 + GROWTH_PERCENT) {
            grown.push(mode);
        }
    }
    ensure!(
        grown.is_empty(),
        "more than {GROWTH_PERCENT} % above the recorded counts: {}; --record, if that is worth it",
        grown.join(", ")
    );
    Ok(())
}

fn record(counts: &[(&str, u64)]) -> anyhow::Result<()> {
    let mut toml = String::from(
        "# Instructions per packet. Written by `cargo run --release -p benches --example instructions -- --record`.\n",
    );
    let mut table = String::from("| mode | instructions per packet |\n|---|---|\n");
    for (mode, count) in counts {
        writeln!(toml, "{mode} = {count}")?;
        writeln!(table, "| {mode} | {count} |")?;
    }
    std::fs::write(BASELINE, toml)?;
    let readme = std::fs::read_to_string(README)?;
    let parts = readme.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.with_context(|| format!("{README} has no place for the table"))?;
    std::fs::write(README, format!("{before}{BEGIN}{table}{END}{after}"))?;
    print!("{table}");
    Ok(())
}
