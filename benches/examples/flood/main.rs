//! A SYN flood of random sources: `flood MODE FLOWS SECONDS [LEAST_PERCENT]`, such as `flood dr 64000 60 70`.
//!
//! ```text
//!   port wan    a burst of established packets whenever the worker asks (and now and then a client's that connects)
//!   port flood  SYNs, each from another source: at the rate of a line, or a burst whenever the worker asks
//! ```
//! The director is configured as uvsd would be, with all defaults, and has one worker. "Full speed" is that of the line: a
//! line of 10 Gbit/s is full with 14.88 million SYNs a second, of which this worker's queue gets a quarter, as with four
//! workers and RSS over random sources. The established traffic has no rate: the worker always finds more of it, so
//! whatever time the flood takes is missing there. What the worker can do is measured without the flood before and after.
//! All times are those that the thread had a CPU: what else runs on the machine does not count.
//!
//! Beside that, and for comparison alone: the same with a SYN for each established packet, and SYNs alone.
//!
//! The program fails where an established packet is lost, a client cannot connect, the table refuses anything but
//! half-open newcomers, or the throughput falls below `LEAST_PERCENT` of that before and after.

mod client;
mod director;
mod frames;
mod port;

use anyhow::{Context, bail, ensure};
use client::Client;
use director::Bed;
use std::time::Duration;

/// SYNs a second that meet the worker: a quarter of what a line of 10 Gbit/s carries.
const RATE: f64 = 14_880_952.0 / 4.0;
/// How long what is beside the flood itself is measured.
const SHORT: Duration = Duration::from_secs(3);
/// A client connects so often.
const CLIENT_EVERY: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (mode, flows, seconds, least) = match &arguments[..] {
        [mode, flows, seconds] => (mode, flows, seconds, "0"),
        [mode, flows, seconds, least] => (mode, flows, seconds, least.as_str()),
        _ => bail!("usage: flood nat|dr|tun|fullnat FLOWS SECONDS [LEAST_PERCENT]"),
    };
    ensure!(
        ["nat", "dr", "tun", "fullnat"].contains(&mode.as_str()),
        "{mode:?} is not a mode; accepted: nat, dr, tun, fullnat"
    );
    let number = |name, text: &str| {
        let number = text.parse::<u32>();
        number.with_context(|| format!("{name}: {text:?}; accepted: a number"))
    };
    let flows = number("FLOWS", flows)?;
    let time = Duration::from_secs(number("SECONDS", seconds)?.into());
    let least = f64::from(number("LEAST_PERCENT", least)?);

    let mut bed = Bed::new(mode, flows)?;
    let before = bed.run(SHORT, &mut []);
    let began = bed.elapsed();
    bed.flood(Some(RATE));
    let mut clients = clients(began, time);
    let attacked = bed.run(time, &mut clients);
    let ended = bed.elapsed();
    bed.calm();
    let after = bed.run(SHORT, &mut []);
    bed.flood(None);
    let even = bed.run(SHORT, &mut []);
    bed.stop_traffic();
    let alone = bed.run(SHORT, &mut []);

    let calm = (before.flow_ns() + after.flow_ns()) / 2.0;
    let left = |span: &Span| 100.0 * calm / span.flow_ns();
    println!("{mode}, {flows} established flows, one worker, {seconds} s of flood");
    println!(
        "  calm      {:6.1} ns a packet before, {:.1} after",
        before.flow_ns(),
        after.flow_ns()
    );
    println!(
        "  attacked  {:6.1} ns: {:.1} % of the calm throughput, beside {:.2} M SYNs a second",
        attacked.flow_ns(),
        left(&attacked),
        attacked.syns_per_s() / 1e6
    );
    println!(
        "  a SYN for each packet: {:.1} %, beside {:.2} M a second; SYNs alone: {:.1} ns each, {:.2} M a second",
        left(&even),
        even.syns_per_s() / 1e6,
        alone.syn_ns(),
        alone.syns_per_s() / 1e6
    );
    judge(&mut bed, &clients, ended)?;
    let left = left(&attacked);
    ensure!(
        left >= least,
        "{left:.1} % of the throughput is left, less than {least} %"
    );
    Ok(())
}

/// Clients that connect one after the other.
fn clients(began: Duration, time: Duration) -> Vec<Client> {
    let mut clients = Vec::new();
    let mut at = began;
    while at < began + time {
        clients.push(Client::new(clients.len(), at));
        at += CLIENT_EVERY;
    }
    clients
}

/// Tells what became of clients, connections and packets, and whether that is as it should be.
fn judge(bed: &mut Bed, clients: &[Client], ended: Duration) -> anyhow::Result<()> {
    let table = bed.statistics();
    println!(
        "  half open: {} of {}; refused {}, {} ended for those who came again",
        table.half_open,
        table.half_open_limit,
        table.inserts_refused_half_open,
        bed.replaced()
    );
    let asked: Vec<_> = clients
        .iter()
        .filter(|client| client.had_time(ended))
        .collect();
    let connected = asked.iter().filter_map(|client| client.success(bed.wan()));
    let connected: Vec<_> = connected.collect();
    if let Some((after, syns)) = connected.iter().max() {
        println!(
            "  clients: {} of {} connected, the slowest after {after:.1?} and {syns} SYNs",
            connected.len(),
            asked.len()
        );
    }
    let (received, sent) = (bed.wan().received, bed.wan().sent);
    println!(
        "  established packets: {} of {received} lost",
        received - sent
    );
    ensure!(
        received == sent,
        "packets of established connections were lost: {:?}",
        bed.drops()
    );
    ensure!(
        connected.len() == asked.len(),
        "{} of {} clients connected",
        connected.len(),
        asked.len()
    );
    let others = (table.inserts_refused_full, table.inserts_refused_chain);
    ensure!(
        others == (0, 0),
        "others than half-open newcomers were refused: {others:?}"
    );
    let drops = bed.drops();
    let is_refusal = |(reason, _): &(&str, u64)| *reason == "half-open-full";
    ensure!(
        drops.iter().all(is_refusal),
        "dropped for other reasons: {drops:?}"
    );
    Ok(())
}

/// What happened in a span of time.
struct Span {
    time: Duration,
    flows: u64,
    syns: u64,
}

impl Span {
    #[allow(clippy::cast_precision_loss, reason = "figures for people to read")]
    fn ns_per(&self, count: u64) -> f64 {
        self.time.as_secs_f64() * 1e9 / count.max(1) as f64
    }

    fn flow_ns(&self) -> f64 {
        self.ns_per(self.flows)
    }

    fn syn_ns(&self) -> f64 {
        self.ns_per(self.syns)
    }

    fn syns_per_s(&self) -> f64 {
        1e9 / self.syn_ns()
    }
}

impl Bed {
    /// Lets the worker run for so long.
    fn run(&mut self, time: Duration, clients: &mut [Client]) -> Span {
        let (flows, syns) = (self.wan().sent, self.syns());
        let start = self.elapsed();
        let mut confirmed = Duration::ZERO;
        while self.elapsed() < start + time {
            let now = self.elapsed();
            if now >= confirmed + Duration::from_secs(1) {
                confirmed = now;
                self.confirm();
            }
            for client in &mut *clients {
                client.step(self.wan_mut(), now);
            }
            self.rounds();
        }
        Span {
            time: self.elapsed() - start,
            flows: self.wan().sent - flows,
            syns: self.syns() - syns,
        }
    }
}
