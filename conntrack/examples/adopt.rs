//! How long it takes to take over a table of a file, in time on a CPU: `cargo run --release -p conntrack --example adopt [CONNECTIONS] [FILE]`.
//! The file lies on tmpfs or hugetlbfs and is removed at the end.
#![allow(clippy::unwrap_used, reason = "a measurement")]

use conntrack::{
    FileConfig, Found, Method, NewConnection, Owner, State, Table, TableConfig, TableFile, Ticks,
    V4,
};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const LONGEST: Ticks = Ticks::from_seconds(900);

fn flow(number: u32, method: Method) -> NewConnection<V4> {
    let port = u16::try_from(1024 + number % 60_000).unwrap();
    NewConnection {
        protocol: 6,
        client: (Ipv4Addr::from_bits(0x0a00_0000 + number / 60_000), port),
        virtual_server: (Ipv4Addr::new(192, 0, 2, 1), 80),
        real_server: (Ipv4Addr::from_bits(0x0b00_0000 + number % 100), 8080),
        local: None,
        method,
        server: number % 100,
        control: None,
        state: State::Established,
        timeout: LONGEST,
        ip_delta: 1,
        l4_delta: 2,
        reply_neighbour: 0,
        route_generation: 0,
        flags: 0,
    }
}

/// Time that this thread had a CPU, so that others on the machine do not count.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let ns = text.split(' ').next().unwrap();
    Duration::from_nanos(ns.parse().unwrap())
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count: u32 = arguments
        .next()
        .map_or(10_000_000, |text| text.parse().unwrap());
    let path = arguments
        .next()
        .unwrap_or_else(|| "/dev/shm/uvs-adopt-example".to_owned());
    let path = PathBuf::from(path);
    let config = TableConfig {
        capacity: count,
        half_open_percent: 25,
        workers: 1,
        seeds: [0; 4],
    };
    for method in [Method::Dr, Method::Nat] {
        let open = || {
            let began = on_cpu();
            let wanted = FileConfig {
                capacity: count,
                directory_len: 4096,
                words: 8,
                nodes: Vec::new(),
            };
            let (file, found) = TableFile::open(&path, wanted).unwrap();
            let opened = on_cpu() - began;
            let times = (Ticks(0), LONGEST);
            let (table, adopted) =
                Table::<V4>::in_file(&config, &file, times, &mut |_, entry, _| {
                    assert!(entry.server() < 100);
                    Ok(Some((1, 2)))
                })
                .unwrap();
            let adopted_at = on_cpu() - began;
            let owner = Owner::new(Arc::clone(&table), 0);
            println!(
                "{method:?}: {found:?}, {} connections: file {} ms, table {} ms, timers {} ms; {:?}",
                adopted.adopted,
                opened.as_millis(),
                (adopted_at - opened).as_millis(),
                (on_cpu() - began - adopted_at).as_millis(),
                table.statistics().pages,
            );
            (owner, file, found)
        };
        let (mut owner, file, found) = open();
        assert_eq!(found, Found::Nothing);
        for number in 0..count {
            owner.insert(&flow(number, method), Ticks(0)).unwrap();
        }
        drop((owner, file));
        drop(open());
        std::fs::remove_file(&path).unwrap();
    }
}
