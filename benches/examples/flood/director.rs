//! The director under attack: configured by a text, as uvsd is, with one worker that is run here.

use crate::frames::{ACK, OTHERS, SYN, Sources, segment};
use crate::port::{FLOW, SidePort, info};
use anyhow::ensure;
use conntrack::{TableStatistics, Ticks};
use control::config::Configuration;
use control::director::Director;
use dataplane::port::{Mac, PortId};
use dataplane::reason::Reason;
use dataplane::stats::WorkerStats;
use dataplane::worker::Worker;
use nix::time::{ClockId, clock_gettime};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const SERVERS: u8 = 8;
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);
/// Prepared frames of the flood; each gets another source every time.
const SYNS: usize = 64;
/// Rounds of the worker between two looks at the clock: a tenth of a millisecond or so.
const ROUNDS: usize = 16;
const WAN: usize = 0;
const FLOOD: usize = 1;

pub(crate) struct Bed {
    director: Director,
    stats: Arc<WorkerStats>,
    worker: Worker<SidePort>,
    /// The time this thread had a CPU, as last looked at: others on the machine do not count.
    now: Duration,
    /// SYNs a second; as many as the worker takes if `None`.
    rate: Option<f64>,
    /// When the flood began at this rate, and with how many SYNs before it.
    flood_began: (Duration, u64),
}

impl Bed {
    /// With so many established connections, for which half of the table is enough.
    pub(crate) fn new(mode: &str, flows: u32) -> anyhow::Result<Bed> {
        let text = configuration(mode, flows.max(32_768) * 2);
        let accepted = Configuration::parse("flood.toml", &text)?;
        let director = Director::assemble(accepted.configuration, vec![info(0), info(1)])?;
        // A SYN and an ACK of each flow, one after the other, and then ACKs for ever.
        let opening =
            (0..flows).flat_map(|flow| [SYN, ACK].map(|flags| segment(end(flow), flags, FLOW)));
        let established = (0..flows).map(|flow| segment(end(scatter(flow, flows)), ACK, FLOW));
        let syns = vec![segment((Ipv4Addr::UNSPECIFIED, 0), SYN, 0); SYNS];
        let ports = vec![
            SidePort::new(0, opening.collect(), None),
            SidePort::new(1, syns, Some(Sources::new(0x9e37_79b9_7f4a_7c15))),
        ];
        let parts = director.worker_parts(0, ports);
        let stats = Arc::clone(&parts.stats);
        let now = cpu_time();
        let mut bed = Bed {
            worker: Worker::new(parts, ticks(now)),
            director,
            stats,
            now,
            rate: None,
            flood_began: (Duration::ZERO, 0),
        };
        bed.calm();
        bed.confirm();
        while bed.wan().received < u64::from(flows) * 2 {
            bed.rounds();
        }
        let made = bed.stats.connections.load(Relaxed);
        ensure!(
            made == u64::from(flows),
            "{made} of {flows} connections were made; dropped: {:?}",
            bed.drops()
        );
        bed.worker.ports_mut()[WAN] = SidePort::new(0, established.collect(), None);
        Ok(bed)
    }

    /// Some rounds of the worker, at one moment.
    pub(crate) fn rounds(&mut self) {
        self.now = cpu_time();
        let (began, before) = self.flood_began;
        let flood = &mut self.worker.ports_mut()[FLOOD];
        flood.due = self.rate.map_or(u64::MAX, |rate| {
            let due = rate * self.now.saturating_sub(began).as_secs_f64();
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count of SYNs in a minute or so"
            )]
            let due = before + due as u64;
            due
        });
        for _ in 0..ROUNDS {
            self.worker.run_once(ticks(self.now));
        }
    }

    /// Lets all hosts say that they are still there.
    pub(crate) fn confirm(&self) {
        let servers = (1..=SERVERS).map(|host| Ipv4Addr::new(10, 1, 1, host));
        for address in servers.chain([ROUTER]).map(IpAddr::from) {
            let now = ticks(self.now);
            let neighbours = self.director.neighbours();
            let known = neighbours.intern(PortId(0), address, now);
            known.expect("the table has room for a dozen");
            neighbours.learn(PortId(0), address, Mac(OTHERS), now);
        }
    }

    /// Begins a flood of so many SYNs a second, or of as many as the worker takes.
    pub(crate) fn flood(&mut self, rate: Option<f64>) {
        self.rate = rate;
        self.flood_began = (self.elapsed(), self.syns());
        self.worker.ports_mut()[FLOOD].is_on = true;
    }

    /// Ends the flood.
    pub(crate) fn calm(&mut self) {
        self.worker.ports_mut()[FLOOD].is_on = false;
    }

    /// Lets no more established packets come in.
    pub(crate) fn stop_traffic(&mut self) {
        self.wan_mut().is_on = false;
    }

    pub(crate) fn wan_mut(&mut self) -> &mut SidePort {
        &mut self.worker.ports_mut()[WAN]
    }

    pub(crate) fn wan(&mut self) -> &SidePort {
        self.wan_mut()
    }

    /// SYNs of the flood so far.
    pub(crate) fn syns(&mut self) -> u64 {
        self.worker.ports_mut()[FLOOD].flooded
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now
    }

    pub(crate) fn statistics(&self) -> TableStatistics {
        let [ipv4, _] = self.director.status().tables;
        ipv4
    }

    /// Half-open connections that ended for those who came again.
    pub(crate) fn replaced(&self) -> u64 {
        self.stats.half_open_replaced.load(Relaxed)
    }

    pub(crate) fn drops(&self) -> Vec<(&'static str, u64)> {
        let counts = Reason::ALL
            .iter()
            .map(|&reason| (reason.name(), self.stats.drops(reason)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// How long this thread had a CPU so far.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("Linux has this clock")
        .into()
}

fn ticks(time: Duration) -> Ticks {
    Ticks::from_millis(u32::try_from(time.as_millis()).expect("less than a month"))
}

fn configuration(mode: &str, connections: u32) -> String {
    let (lips, pool) = if mode == "fullnat" {
        let hosts: Vec<_> = (1..=64).map(|host| format!("\"10.1.2.{host}\"")).collect();
        let pool = format!(
            "[[lip_pool]]\nname = \"lan\"\naddresses = [{}]\n",
            hosts.join(", ")
        );
        (pool, "lip_pool = \"lan\"\n")
    } else {
        (String::new(), "")
    };
    let servers: Vec<_> = (1..=SERVERS)
        .map(|host| format!("{{ address = \"10.1.1.{host}:80\" }}"))
        .collect();
    format!(
        r#"
[director]
workers = 1
connections = {connections}
[port.wan]
driver = "af_packet"
interface = "wan"
addresses = ["10.1.0.1/16"]
[port.flood]
driver = "af_packet"
interface = "flood"
addresses = ["10.9.0.1/16"]
[[route]]
to = "0.0.0.0/0"
via = "{ROUTER}"
{lips}
[[service]]
listen = "tcp 10.0.0.100:80"
scheduler = "rr"
method = "{mode}"
{pool}server = [{servers}]
"#,
        servers = servers.join(", ")
    )
}

/// The client of an established flow.
fn end(flow: u32) -> (Ipv4Addr, u16) {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + flow / 32768);
    (
        address,
        u16::try_from(1024 + flow % 32768).expect("below 65536"),
    )
}

/// A permutation of the flows: an odd multiplier modulo the next power of two, walked until it is below `flows`.
fn scatter(flow: u32, flows: u32) -> u32 {
    let mask = flows.next_power_of_two() - 1;
    let mut flow = flow;
    loop {
        flow = flow.wrapping_mul(0x9e37_79b1) & mask;
        flow = (flow ^ (flow >> 7)) & mask;
        if flow < flows {
            return flow;
        }
    }
}
