//! Packets through a worker, for a profiler: `forward MODE FLOWS PACKETS`. Instructions per packet are the difference of two
//! runs over the difference of their packets (`valgrind --tool=callgrind`); the example `instructions` does that.
//!
//! The packets are of established flows; of mode `new`, first packets of flows by DR, each making a connection.

use benches::{beginning, established};
use conntrack::{Method, Ticks};

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [mode, flows, packets] = &arguments[..] else {
        panic!("usage: forward nat|dr|tun|fullnat|new FLOWS PACKETS");
    };
    let packets: usize = packets.parse().expect("a number of packets");
    let flows: u32 = flows.parse().expect("a number of flows");
    let mut worker = match mode.as_str() {
        "nat" => established(Method::Nat, flows),
        "dr" => established(Method::Dr, flows),
        "tun" => established(Method::Tun, flows),
        "fullnat" => established(Method::FullNat, flows),
        "new" => {
            assert!(packets <= flows as usize, "each flow begins once");
            beginning(Method::Dr, flows)
        }
        other => panic!("{other:?} is not a mode; accepted: nat, dr, tun, fullnat, new"),
    };
    let start = std::time::Instant::now();
    let mut done = 0;
    while done < packets {
        done += worker.run_once(Ticks(1000));
    }
    let each = start.elapsed().as_nanos() / u128::try_from(done).expect("not negative");
    println!("{done} packets, {each} ns each");
}
