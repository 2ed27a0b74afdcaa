//! The connection table and its peers: `cargo bench -p benches --bench table`.
//!
//! Rows are named OPERATION/ENTRIES/THREADS/STRUCTURE and can be picked: `-- 'hit/1000000/1'`. DPDK's rte_hash is
//! among them with `--features dpdk`. What is equal, and what is not: benches/README.md.

mod flows;
mod maps;
#[cfg(feature = "dpdk")]
mod rte_hash;
mod run;
mod structure;
mod uvs;

use ahash::RandomState;
use criterion::{Criterion, SamplingMode};
use flows::Key;
use maps::Mapped;
use parking_lot::RwLock;
use run::{OPERATIONS, Run};
use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;
use structure::Structure;

const ENTRIES: [u32; 4] = [1_000, 65_536, 1_000_000, 10_000_000];

fn main() {
    ask_for_huge_pages();
    // Many short samples: on a machine that others use too, a median of them knows nothing of the time that others had.
    let mut criterion = Criterion::default()
        .sample_size(400)
        .nresamples(2000)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .configure_from_args();
    for entries in ENTRIES {
        bench::<uvs::Uvs>(&mut criterion, entries);
        #[cfg(feature = "dpdk")]
        bench::<rte_hash::RteHash>(&mut criterion, entries);
        bench::<Mapped<papaya::HashMap<Key, u32, RandomState>>>(&mut criterion, entries);
        bench::<Mapped<dashmap::DashMap<Key, u32, RandomState>>>(&mut criterion, entries);
        bench::<Mapped<scc::HashMap<Key, u32, RandomState>>>(&mut criterion, entries);
        bench::<Mapped<scc::HashIndex<Key, u32, RandomState>>>(&mut criterion, entries);
        bench::<Mapped<RwLock<HashMap<Key, u32, RandomState>>>>(&mut criterion, entries);
    }
    criterion.final_summary();
}

/// All rows of a structure of one size. It is made when the first of them is wanted.
fn bench<S: Structure>(criterion: &mut Criterion, entries: u32) {
    let mut made = None;
    for operation in OPERATIONS {
        for threads in 1..=structure::THREADS {
            for &(name, form) in S::ROWS {
                if operation.is_same_in_all_forms() && name != S::ROWS[0].0 {
                    continue;
                }
                let group = format!("{}/{entries}/{threads}", operation.name());
                let mut group = criterion.benchmark_group(group);
                group.sampling_mode(SamplingMode::Flat);
                group.bench_function(name, |bencher| {
                    let run = made.get_or_insert_with(|| Run::<S>::new(entries));
                    bencher.iter_custom(|count| run.measure(operation, form, threads, count));
                });
            }
        }
    }
}

/// Starts this program again with glibc's allocator asking for huge pages, as the connection table does of itself:
/// peers are not to lose by the size of their pages.
fn ask_for_huge_pages() {
    const TUNABLES: &str = "GLIBC_TUNABLES";
    if std::env::var_os(TUNABLES).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let program = arguments.next().expect("a program has a name");
    let error = Command::new(program)
        .args(arguments)
        .env(TUNABLES, "glibc.malloc.hugetlb=1")
        .exec();
    panic!("the bench starts itself again: {error}");
}
