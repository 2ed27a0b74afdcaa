//! Established packets: one worker, memory port, 64-byte TCP, flows in scattered order, all counters on.

use benches::established;
use conntrack::{Method, Ticks};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::{Duration, Instant};

const NOW: Ticks = Ticks(1000);

fn forward(criterion: &mut Criterion) {
    let modes = [
        ("dr", Method::Dr),
        ("nat", Method::Nat),
        ("tun", Method::Tun),
        ("fullnat", Method::FullNat),
    ];
    for flows in [1_000, 65_536, 1_000_000] {
        let mut group = criterion.benchmark_group(format!("established/{flows} flows"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2));
        group.throughput(Throughput::Elements(1));
        for (name, method) in modes {
            let mut worker = established(method, flows);
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter_custom(|packets| {
                    let start = Instant::now();
                    let mut done = 0;
                    while done < packets {
                        done += worker.run_once(NOW) as u64;
                    }
                    start.elapsed()
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, forward);
criterion_main!(benches);
