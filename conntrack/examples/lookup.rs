//! How long a staged lookup takes, in bursts of 32, at 64 k and 4 M connections: `cargo run --release --example lookup`.
//!
//! Keys are looked up in a random order, so that nearly every one misses the caches in the large table.
#![allow(clippy::unwrap_used, reason = "a measurement may end where it fails")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "numbers for people to read"
)]

use conntrack::{
    Family, Method, NewConnection, Owner, State, Table, TableConfig, Ticks, Tuple, V4, V6,
    random_seeds,
};
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

const BURST: usize = 32;
const LOOKUPS: usize = 8 << 20;

fn flow<F: Family>(
    address: impl Fn(u32) -> F::Address,
    number: u32,
    method: Method,
) -> NewConnection<F> {
    NewConnection {
        protocol: 6,
        client: (
            address(0x4000_0000 + number / 16),
            1024 + (number % 16) as u16,
        ),
        virtual_server: (address(1), 80),
        real_server: (address(100 + number % 8), 8080),
        local: None,
        method,
        server: number % 8,
        control: None,
        state: State::Established,
        timeout: Ticks::from_seconds(900),
        ip_delta: 0,
        l4_delta: 0,
        reply_neighbour: 0,
        route_generation: 0,
        flags: 0,
    }
}

fn measure<F: Family>(
    name: &str,
    address: impl Fn(u32) -> F::Address + Copy,
    count: u32,
    method: Method,
) {
    let table: Arc<Table<F>> = Table::new(&TableConfig {
        capacity: count,
        half_open_percent: 50,
        workers: 1,
        seeds: random_seeds(),
    })
    .unwrap();
    let mut owner = Owner::new(table.clone(), 0);
    let start = Instant::now();
    for number in 0..count {
        owner
            .insert(&flow(address, number, method), Ticks(number / 1000))
            .unwrap();
    }
    let insert = start.elapsed().as_nanos() as f64 / f64::from(count);

    // A random order that needs no memory but the tuples themselves.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let tuples: Vec<Tuple<F>> = (0..LOOKUPS)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            flow(address, (state >> 32) as u32 % count, method).request_tuple()
        })
        .collect();

    let mut staged = f64::MAX;
    let mut single = f64::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        for burst in tuples.chunks_exact(BURST) {
            let hashes: [_; BURST] = std::array::from_fn(|index| {
                let hash = table.hash(&burst[index]);
                table.prefetch(hash);
                hash
            });
            let probes = hashes.map(|hash| table.probe(hash));
            for index in 0..BURST {
                let (id, _) = table
                    .find(hashes[index], probes[index], &burst[index])
                    .unwrap();
                black_box(table.entry(id).server());
            }
        }
        staged = staged.min(start.elapsed().as_nanos() as f64 / LOOKUPS as f64);

        let start = Instant::now();
        for tuple in &tuples {
            let (id, _) = table.lookup(tuple).unwrap();
            black_box(table.entry(id).server());
        }
        single = single.min(start.elapsed().as_nanos() as f64 / LOOKUPS as f64);
    }
    let statistics = table.statistics();
    println!(
        "{name} {method:?} {count:>8}: staged {staged:5.1} ns, one by one {single:5.1} ns, insert {insert:5.1} ns; \
         load {:.2}, overflowed {:.2} %, {:.1} bytes/connection, {:?}",
        statistics.index_load,
        100.0 * statistics.overflowed as f64 / statistics.keys as f64,
        statistics.bytes_per_connection,
        statistics.pages,
    );
}

fn main() {
    let v4 = Ipv4Addr::from_bits;
    let v6 = |number| Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(number));
    for count in [64 << 10, 4 << 20] {
        for method in [Method::Dr, Method::Nat] {
            measure::<V4>("IPv4", v4, count, method);
            measure::<V6>("IPv6", v6, count, method);
        }
    }
}
