//! Established packets through a worker, for a profiler: `forward MODE FLOWS PACKETS`. Instructions per packet are the
//! difference of two runs over the difference of their packets (`valgrind --tool=callgrind`).

use benches::established;
use conntrack::{Method, Ticks};

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [mode, flows, packets] = &arguments[..] else {
        panic!("usage: forward nat|dr|tun|fullnat FLOWS PACKETS");
    };
    let method = match mode.as_str() {
        "nat" => Method::Nat,
        "dr" => Method::Dr,
        "tun" => Method::Tun,
        "fullnat" => Method::FullNat,
        other => panic!("{other:?} is not a mode; accepted: nat, dr, tun, fullnat"),
    };
    let packets: usize = packets.parse().expect("a number of packets");
    let mut worker = established(method, flows.parse().expect("a number of flows"));
    let start = std::time::Instant::now();
    let mut done = 0;
    while done < packets {
        done += worker.run_once(Ticks(1000));
    }
    let each = start.elapsed().as_nanos() / u128::try_from(done).expect("not negative");
    println!("{done} packets, {each} ns each");
}
