//! What a new flow costs in the scheduler, and what a change of its servers: `cargo bench -p benches --bench scheduler`.
//!
//! Rows are named pick/SERVERS/SCHEDULER and change/SERVERS/SCHEDULER.

use benches::servers;
use criterion::{BatchSize, Criterion, SamplingMode};
use scheduler::{Activity, Flow, NAMES, Options, create};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn main() {
    // Many short samples, as in `table`.
    let mut criterion = Criterion::default()
        .sample_size(200)
        .nresamples(2000)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(200))
        .configure_from_args();
    for count in [10, 100, 1000] {
        for name in NAMES {
            pick(&mut criterion, name, count);
        }
    }
    for count in [10, 100, 1000] {
        for name in NAMES {
            change(&mut criterion, name, count);
        }
    }
    criterion.final_summary();
}

/// A pick and the count of the connection that follows it, so that loads move as they do in a director.
fn pick(criterion: &mut Criterion, name: &str, count: u32) {
    let all = servers(count);
    let mut scheduler = create(name, &Options::default()).expect("a known name");
    scheduler.servers_changed(&[]);
    scheduler.servers_changed(&all);
    let mut number = 0;
    let mut group = criterion.benchmark_group(format!("pick/{count}"));
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            number += 1;
            let index = scheduler.pick(black_box(&flow(number)), &all);
            // `ovf` and `fo` send all flows to few servers: no count goes beyond a thousand.
            if let Some(load) = index.map(|index| &all[index].load) {
                let over = (load.inactive() >= 1000).then_some(Activity::Inactive);
                load.shift(over, Some(Activity::Inactive));
            }
        });
    });
}

/// A server that goes or comes back.
fn change(criterion: &mut Criterion, name: &str, count: u32) {
    let all = servers(count);
    let mut scheduler = create(name, &Options::default()).expect("a known name");
    scheduler.servers_changed(&all);
    let mut is_there = true;
    let mut group = criterion.benchmark_group(format!("change/{count}"));
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(name, |bencher| {
        bencher.iter_batched(
            || {
                is_there = !is_there;
                &all[usize::from(!is_there)..]
            },
            |present| scheduler.servers_changed(black_box(present)),
            BatchSize::PerIteration,
        );
    });
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
