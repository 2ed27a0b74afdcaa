//! The recordings beside: what uvs does as the kernel, it goes on doing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use scenario::scenario::{ScenarioError, files};
use scenario::{Failure, play};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded")
}

#[test]
fn every_recording_is_repeated() {
    let files = files(&folder()).unwrap();
    assert!(files.len() >= 10, "{files:?}");
    for file in files {
        let differences = play(&file).unwrap();
        assert!(
            differences.is_empty(),
            "{}: {differences:#?}",
            file.display()
        );
    }
}

/// Plays a recording in which something was changed.
fn play_changed(name: &str, change: impl Fn(&mut Value)) -> Vec<String> {
    let scratch = std::env::temp_dir().join(format!("scenario-{}-{name}", std::process::id()));
    fs::create_dir_all(&scratch).unwrap();
    let path = |end: &str| scratch.join(format!("{name}.{end}"));
    fs::copy(folder().join(format!("{name}.json")), path("json")).unwrap();
    let text = fs::read_to_string(folder().join(format!("{name}.expected.json"))).unwrap();
    let mut recording: Value = serde_json::from_str(&text).unwrap();
    change(&mut recording["results"]);
    fs::write(path("expected.json"), recording.to_string()).unwrap();
    let differences = play(&path("json")).unwrap();
    fs::remove_dir_all(&scratch).unwrap();
    differences
}

#[test]
fn whatever_differs_is_told_with_its_step() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 6] = [
        (
            |results| results[2]["inject"][0]["out"][0]["ttl"] = json!(62),
            "",
        ),
        (
            |results| {
                let frame = &mut results[2]["inject"][0]["out"][0];
                frame["raw"] = json!(frame["raw"].as_str().unwrap().replacen("3f06", "3e06", 1));
                frame["ttl"] = json!(62);
            },
            "step 2: inject[0] 10.64.0.7:40001 > 10.0.0.100:80 tcp flags=S ttl=64 len=56 ttl: 62 recorded, 63 came",
        ),
        (
            |results| results[2]["inject"][0]["out"] = json!([]),
            "step 2: inject[0] 10.64.0.7:40001 > 10.0.0.100:80",
        ),
        (
            |results| results[3]["dump"]["conns"][0]["state"] = json!("CLOSE"),
            "step 3: conns TCP 10.64.0.7:40001 10.0.0.100:80 state: \"CLOSE\" recorded, \"SYN_RECV\" came",
        ),
        (
            |results| results[3]["dump"]["conns"][0]["expires"] = json!(40),
            "step 3: conns TCP 10.64.0.7:40001 10.0.0.100:80 expires: 40 recorded",
        ),
        (
            |results| results[0]["ipvsadm"][0]["rc"] = json!(255),
            "step 0: ipvsadm -A -t 10.0.0.100:80 -s rr: rc",
        ),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let differences = play_changed("nat-tcp-life", change);
        if expected.is_empty() {
            // The frame itself decides, not its description.
            assert!(differences.is_empty(), "{number}: {differences:#?}");
        } else {
            assert!(
                differences[0].starts_with(expected),
                "{number}: {differences:#?}"
            );
        }
    }
}

#[test]
fn files_that_are_no_scenarios_are_errors() {
    let missing = play(Path::new("/nonexistent/x.json")).unwrap_err();
    assert!(
        matches!(missing, Failure::Scenario(ScenarioError::Unreadable { .. })),
        "{missing}"
    );
    let scratch = std::env::temp_dir().join(format!("scenario-{}-bad", std::process::id()));
    fs::create_dir_all(&scratch).unwrap();
    assert!(matches!(files(&scratch), Err(ScenarioError::Empty(_))));
    fs::write(scratch.join("x.json"), "{").unwrap();
    let torn = play(&scratch.join("x.json")).unwrap_err();
    assert!(
        matches!(torn, Failure::Scenario(ScenarioError::NotJson { .. })),
        "{torn}"
    );
    fs::write(scratch.join("x.json"), r#"{"steps": [{"wait": 1}]}"#).unwrap();
    let unknown = play(&scratch.join("x.json")).unwrap_err();
    assert!(
        unknown
            .to_string()
            .contains("step 0: unknown step \"wait\""),
        "{unknown}"
    );
    fs::remove_dir_all(&scratch).unwrap();
}
