//! Plays recorded scenarios of the kernel's IPVS on the director: see the library.

use scenario::{play, record, scenario::files};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Differences that are shown of a scenario.
const SHOWN: usize = 10;
const USAGE: &str = "usage: scenario [--verbose | --record] PATH...
  PATH       a scenario (NAME.json with NAME.expected.json beside it), or a folder of them
  --verbose  show all differences of a scenario, not the first ten
  --record   write what uvs does beside the scenario, if there is no recording of the kernel";

fn main() -> ExitCode {
    let mut verbose = false;
    let mut to_record = false;
    let mut paths = Vec::new();
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--verbose" | "-v") => verbose = true,
            Some("--record") => to_record = true,
            Some("--help" | "-h") => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            Some(option) if option.starts_with('-') => {
                eprintln!("scenario: unknown option {option}\n{USAGE}");
                return ExitCode::from(2);
            }
            _ => paths.push(PathBuf::from(argument)),
        }
    }
    if paths.is_empty() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let outcomes: Vec<bool> = paths
        .iter()
        .flat_map(|path| run_path(path, verbose, to_record))
        .collect();
    let failed = outcomes.iter().filter(|passed| !**passed).count();
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Plays what a path stands for; whether each passed.
fn run_path(path: &Path, verbose: bool, to_record: bool) -> Vec<bool> {
    match files(path) {
        Ok(files) => files
            .iter()
            .map(|file| run_file(file, verbose, to_record))
            .collect(),
        Err(error) => {
            println!("FAIL {}\n     {error}", path.display());
            vec![false]
        }
    }
}

fn run_file(file: &Path, verbose: bool, to_record: bool) -> bool {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let outcome = if to_record {
        record(file).map(|()| Vec::new())
    } else {
        play(file)
    };
    let differences = match outcome {
        Ok(differences) => differences,
        Err(failure) => vec![failure.to_string()],
    };
    let passed = differences.is_empty();
    println!("{} {name}", if passed { "ok  " } else { "FAIL" });
    let shown = if verbose { usize::MAX } else { SHOWN };
    for line in differences.iter().take(shown) {
        println!("     {line}");
    }
    if differences.len() > shown {
        println!("     and {} more", differences.len() - shown);
    }
    passed
}
