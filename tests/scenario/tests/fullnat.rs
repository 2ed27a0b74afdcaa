//! FULLNAT, which the kernel's IPVS does not have: what uvs does was judged line by line, and goes on like that.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use scenario::scenario::files;
use scenario::{Failure, play, record};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fullnat")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_scenario_is_repeated() {
    let files = files(&folder()).unwrap();
    assert!(files.len() >= 19, "{files:?}");
    for file in files {
        let differences = play(&file).unwrap();
        assert!(
            differences.is_empty(),
            "{}: {differences:#?}",
            file.display()
        );
    }
}

#[test]
fn every_step_says_why_it_is_right() {
    for file in files(&folder()).unwrap() {
        for (number, step) in json(&file)["steps"].as_array().unwrap().iter().enumerate() {
            let note = step["note"].as_str().unwrap_or_default();
            assert!(!note.is_empty(), "{}: step {number}", file.display());
        }
    }
}

#[test]
fn what_is_recorded_is_what_is_played_and_never_replaces_the_kernels() {
    let scratch = std::env::temp_dir().join(format!("scenario-{}-record", std::process::id()));
    fs::create_dir_all(&scratch).unwrap();
    let path = scratch.join("ttl.json");
    fs::copy(folder().join("ttl.json"), &path).unwrap();
    record(&path).unwrap();
    let results = scratch.join("ttl.expected.json");
    assert_eq!(json(&results), json(&folder().join("ttl.expected.json")));
    let mut kernels = json(&results);
    kernels["kernel"] = "6.1".into();
    fs::write(&results, kernels.to_string()).unwrap();
    let refused = record(&path).unwrap_err().to_string();
    assert!(
        refused.ends_with("this is a recording of the kernel"),
        "{refused}"
    );
    assert_eq!(json(&results), kernels);
    fs::write(
        &path,
        r#"{"about": "x", "modules": ["nosuch"], "steps": []}"#,
    )
    .unwrap();
    fs::remove_file(&results).unwrap();
    assert!(matches!(record(&path), Err(Failure::Missing(_))));
    assert!(!results.exists());
    fs::remove_dir_all(&scratch).unwrap();
}
