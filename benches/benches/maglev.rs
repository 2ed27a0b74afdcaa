//! Building tables for 1,000 servers of equal weight by `maglev`: `cargo bench -p benches --bench maglev`.
//!
//! The sizes are the paper's. `maglev` itself takes a table of 131,101 slots for so many servers, which is the row
//! `uvs: change`. Rows of `paper` are the paper's pseudocode as it stands, in the same run, on the same servers.

use benches::servers;
use criterion::{Criterion, SamplingMode};
use scheduler::{Options, RealServer, Weight, create, maglev_table};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::hint::black_box;
use std::time::Duration;

const SERVERS: u32 = 1000;

fn main() {
    // Samples of one table each, if need be: on a busy machine their median is the steadiest.
    let mut criterion = Criterion::default()
        .sample_size(100)
        .nresamples(2000)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut servers = servers(SERVERS);
    for server in &mut servers {
        server.weight = Weight(1);
    }
    for slots in [65_537, 655_373] {
        let mut group = criterion.benchmark_group(format!("maglev/{slots}"));
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function("uvs", |bencher| {
            bencher.iter(|| maglev_table(black_box(&servers), slots));
        });
        group.bench_function("paper", |bencher| {
            bencher.iter(|| paper(black_box(&servers), slots));
        });
    }
    let mut scheduler = create("maglev", &Options::default()).expect("a known name");
    let mut group = criterion.benchmark_group("maglev/131101");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("uvs: change", |bencher| {
        bencher.iter(|| scheduler.servers_changed(black_box(&servers)));
    });
    group.finish();
    criterion.final_summary();
}

/// Source: Eisenbud et al.: Maglev: A Fast and Reliable Software Network Load Balancer (NSDI 2016) §3.4, with the
/// permutations worked out as they are used, as its readers' implementations do.
fn paper(servers: &[RealServer], slots: u32) -> Vec<u32> {
    const NONE: u32 = u32::MAX;
    let mut orders: Vec<(u32, u32)> = servers
        .iter()
        .map(|server| {
            let hash = |seed: u8| {
                let mut hasher = DefaultHasher::new();
                (server.address, server.port, seed).hash(&mut hasher);
                hasher.finish()
            };
            let below = |hash: u64, limit: u32| {
                u32::try_from(hash % u64::from(limit)).expect("it is below")
            };
            (below(hash(0), slots), below(hash(1), slots - 1) + 1)
        })
        .collect();
    let mut table = vec![NONE; slots as usize];
    let mut filled = 0;
    loop {
        for (index, (place, skip)) in (0..).zip(&mut orders) {
            while table[*place as usize] != NONE {
                *place += *skip;
                if *place >= slots {
                    *place -= slots;
                }
            }
            table[*place as usize] = index;
            filled += 1;
            if filled == slots {
                return table;
            }
        }
    }
}
