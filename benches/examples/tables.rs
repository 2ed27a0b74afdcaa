//! What criterion measured last, as the tables of benches/README.md: `cargo run -p benches --example tables -- [FOLDER…]`.
//!
//! Figures are medians in nanoseconds; of several folders, which are several runs, the lowest. Rows are named as the
//! benches name them: OPERATION/SIZE/[THREADS/]ROW. Without a folder it reads target/criterion.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Medians by operation and threads, then by row, then by size.
type Tables = BTreeMap<(String, String), BTreeMap<String, BTreeMap<u64, f64>>>;

fn main() {
    let mut folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if folders.is_empty() {
        folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/criterion"));
    }
    let mut tables = Tables::new();
    for folder in &folders {
        assert!(
            collect(folder, &mut tables),
            "{}: no results; the folder named `criterion` of the build's target folder is needed",
            folder.display()
        );
    }
    for ((operation, threads), rows) in &tables {
        print(operation, threads, rows);
    }
}

/// Takes all results below a folder, and tells whether there are any.
fn collect(folder: &Path, tables: &mut Tables) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    let mut has_any = false;
    for entry in entries.flatten() {
        let path = entry.path();
        has_any |= match read(&path.join("new")) {
            Some((id, median)) => {
                sort_in(tables, &id, median);
                true
            }
            None => collect(&path, tables),
        };
    }
    has_any
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
        let medians = table.entry(row.to_owned()).or_default();
        let lowest = medians.entry(size).or_insert(median);
        *lowest = lowest.min(median);
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
    // Ours first, and the fastest of each size in bold, where there are peers.
    let mut names: Vec<&String> = rows.keys().collect();
    let is_ours = |name: &str| name.starts_with("uvs");
    names.sort_by_key(|name| !is_ours(name));
    let has_peers = is_ours(names[0]);
    for name in names {
        print!("| {name} |");
        for size in &sizes {
            let of = |row: &BTreeMap<u64, f64>| row.get(size).copied();
            let least = rows.values().filter_map(of).fold(f64::MAX, f64::min);
            match of(&rows[name]) {
                Some(median) if has_peers && median <= least => print!(" **{median:.1}** |"),
                Some(median) => print!(" {median:.1} |"),
                None => print!(" |"),
            }
        }
        println!();
    }
    println!();
}
