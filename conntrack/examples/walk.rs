//! What a walk over a million connections takes, and what it costs a worker that looks connections up and prolongs them
//! meanwhile: `cargo run --release --example walk`. Rounds with and without a walk take turns; told are medians.
#![allow(clippy::unwrap_used, reason = "a measurement may end where it fails")]
#![allow(clippy::cast_precision_loss, reason = "numbers for people to read")]

use conntrack::{
    Method, NewConnection, Owner, State, Table, TableConfig, Ticks, Tuple, V4, random_seeds,
};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const COUNT: u32 = 1 << 20;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(400);
/// As control walks.
const CHUNK: u32 = 4096;

fn flow(number: u32) -> NewConnection<V4> {
    NewConnection {
        protocol: 6,
        client: (Ipv4Addr::from_bits(0x4000_0000 + number), 1024),
        virtual_server: (Ipv4Addr::from_bits(1), 80),
        real_server: (Ipv4Addr::from_bits(100 + number % 8), 8080),
        local: None,
        method: Method::Nat,
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

/// Every connection, some thousand at a time; how many there were.
fn walk(table: &Table<V4>) -> u32 {
    let mut seen = 0;
    let mut first = 1;
    while first <= table.places() {
        let _ = table.for_each_in(first..=first + CHUNK - 1, |_, view| {
            seen += u32::from(black_box(view).state == State::Established);
            ControlFlow::Continue(())
        });
        first += CHUNK;
        std::thread::yield_now();
    }
    seen
}

/// Packets of random connections that are found, each of which moves its connection's end; how many a second.
fn work(table: &Table<V4>, state: &mut u64, now: &mut u32) -> f64 {
    let start = Instant::now();
    let mut found = 0_u32;
    while start.elapsed() < ROUND {
        for _ in 0..1024 {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            let number = u32::try_from(*state >> 44).unwrap();
            let tuple = Tuple {
                source: Ipv4Addr::from_bits(0x4000_0000 + number),
                destination: Ipv4Addr::from_bits(1),
                source_port: 1024,
                destination_port: 80,
                protocol: 6,
            };
            let (id, _) = table.lookup(&tuple).unwrap();
            table.entry(id).touch(Ticks(*now));
            found += 1;
        }
        *now += 1;
    }
    f64::from(found) / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let table = Table::new(&TableConfig {
        capacity: COUNT,
        half_open_percent: 50,
        workers: 1,
        seeds: random_seeds(),
    })
    .unwrap();
    let mut owner = Owner::new(Arc::clone(&table), 0);
    for number in 0..COUNT {
        owner.insert(&flow(number), Ticks(0)).unwrap();
    }
    let (walks, stop) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let walker = {
        let (table, walks, stop) = (Arc::clone(&table), Arc::clone(&walks), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut took = Vec::new();
            while !stop.load(Relaxed) {
                if walks.load(Relaxed) {
                    let start = Instant::now();
                    assert_eq!(walk(&table), COUNT);
                    took.push(start.elapsed().as_secs_f64());
                } else {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            took
        })
    };
    let (mut state, mut now) = (0x2545_f491_4f6c_dd1d_u64, 100_000);
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (is_walked, rates) in rates.iter_mut().enumerate() {
            walks.store(is_walked == 1, Relaxed);
            rates.push(work(&table, &mut state, &mut now));
        }
    }
    stop.store(true, Relaxed);
    let took = walker.join().unwrap();
    let [alone, walked] = rates.map(median);
    println!(
        "a walk over {COUNT} connections: {:.1} ms (median of {}); packets a second without walks {:.2} M, with walks all the \
         time {:.2} M ({:+.1} %)",
        median(took.clone()) * 1000.0,
        took.len(),
        alone / 1e6,
        walked / 1e6,
        (walked / alone - 1.0) * 100.0
    );
}
