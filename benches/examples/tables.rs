//! What criterion measured last, as the tables of benches/README.md: `cargo run -p benches --example tables -- [FOLDER]`.
//!
//! Figures are medians in nanoseconds. Rows are named as the benches name them: OPERATION/SIZE/[THREADS/]ROW. Without a
//! folder it reads target/criterion.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Medians by operation and threads, then by row, then by size.
type Tables = BTreeMap<(String, String), BTreeMap<String, BTreeMap<u64, f64>>>;

fn main() {
    let folder = std::env::args_os().nth(1).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/criterion"),
        PathBuf::from,
    );
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; a folder of criterion's is needed",
            folder.display()
        )
    });
    let mut tables = Tables::new();
    for entry in entries.flatten() {
        if let Some((id, median)) = read(&entry.path().join("new")) {
            sort_in(&mut tables, &id, median);
        }
    }
    for ((operation, threads), rows) in &tables {
        print(operation, threads, rows);
    }
}

/// A row's name and its median; nothing where there is no result.
fn read(folder: &Path) -> Option<(String, f64)> {
    let json = |name| -> Option<Value> {
        serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok()
    };
    let id = json("benchmark.json")?.get("full_id")?.as_str()?.to_owned();
    let median = json("estimates.json")?
        .get("median")?
        .get("point_estimate")?
        .as_f64()?;
    Some((id, median))
}

fn sort_in(tables: &mut Tables, id: &str, median: f64) {
    let parts: Vec<&str> = id.splitn(4, '/').collect();
    let (operation, size, threads, row) = match parts[..] {
        [operation, size, threads, row] => (operation, size, threads, row),
        [operation, size, row] => (operation, size, "", row),
        _ => return,
    };
    if let Ok(size) = size.parse() {
        let table = tables
            .entry((operation.to_owned(), threads.to_owned()))
            .or_default();
        table
            .entry(row.to_owned())
            .or_default()
            .insert(size, median);
    }
}

fn print(operation: &str, threads: &str, rows: &BTreeMap<String, BTreeMap<u64, f64>>) {
    let threads = match threads {
        "" => String::new(),
        "1" => ", 1 thread".to_owned(),
        many => format!(", {many} threads"),
    };
    let sizes: BTreeSet<u64> = rows.values().flat_map(BTreeMap::keys).copied().collect();
    print!("| {operation}{threads} |");
    sizes.iter().for_each(|size| print!(" {size} |"));
    print!("\n|---|");
    sizes.iter().for_each(|_| print!("---:|"));
    println!();
    for (row, medians) in rows {
        print!("| {row} |");
        for size in &sizes {
            match medians.get(size) {
                Some(median) if *median < 1000.0 => print!(" {median:.1} |"),
                Some(median) => print!(" {median:.0} |"),
                None => print!(" |"),
            }
        }
        println!();
    }
    println!();
}
