//! What a new flow and a change of the servers cost: `cargo bench -p scheduler`.
//!
//! Without a measuring library: each figure is the best of several rounds, which on a busy machine is the steadiest.

use scheduler::{Activity, Flow, Load, NAMES, Options, RealServer, RealServerId, Weight, create};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 7;

fn main() {
    println!(
        "{:8} {:>7} {:>12} {:>14}",
        "", "servers", "ns/new flow", "µs/change"
    );
    for name in NAMES {
        for count in [10, 1000] {
            let (pick, change) = measure(name, count);
            println!(
                "{name:8} {count:7} {:12.1} {:14.1}",
                pick.as_secs_f64() * 1e9,
                change.as_secs_f64() * 1e6
            );
        }
    }
}

/// The time of a pick, and of a change that takes away or gives back a server.
fn measure(name: &str, count: u32) -> (Duration, Duration) {
    let all: Vec<RealServer> = (0..count).map(server).collect();
    let mut scheduler = create(name, &Options::default()).expect("a known name");
    scheduler.servers_changed(&[]);
    scheduler.servers_changed(&all);
    let flows = 2_000_000 / count;
    let pick = best(flows, |number| {
        if let Some(index) = scheduler.pick(black_box(&flow(number)), &all) {
            all[index].load.shift(None, Some(Activity::Inactive));
        }
    });
    let change = best(10, |number| {
        let rest = &all[usize::from(number % 2 == 0)..];
        scheduler.servers_changed(black_box(rest));
    });
    (pick, change)
}

fn best(times: u32, mut work: impl FnMut(u32)) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        (0..times).for_each(&mut work);
        best = best.min(start.elapsed() / times);
    }
    best
}

fn server(id: u32) -> RealServer {
    RealServer {
        id: RealServerId(id),
        address: IpAddr::V4(Ipv4Addr::from_bits(0x0a02_0000 + id)),
        port: 80,
        weight: Weight(10),
        load: Arc::new(Load::default()),
    }
}

/// Many clients, and as many destinations as a cache cluster may see.
fn flow(number: u32) -> Flow {
    let spread = number.wrapping_mul(0x9e37_79b9);
    Flow {
        client: IpAddr::V4(Ipv4Addr::from_bits(spread)),
        client_port: 40_000,
        virtual_address: IpAddr::V4(Ipv4Addr::from_bits(spread >> 18)),
        virtual_port: 80,
        protocol: 6,
    }
}
