//! `uvs doctor` as an operator runs it: what it prints, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use std::fs;
use std::process::{Command, Output};

fn doctor(text: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("uvs.toml");
    let socket = folder.path().join("uvs.sock");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_uvs"));
    command.arg("doctor").arg("--config").arg(&file);
    command.arg("--socket").arg(&socket).args(more);
    command.output().unwrap()
}

const NOTHING: &str = "[port.none]\ndriver = \"memory\"\n";
const NO_INTERFACE: &str = "[port.wan]\ndriver = \"af_packet\"\ninterface = \"none-such\"\naddresses = [\"10.1.0.1/24\"]\n";

#[test]
fn a_machine_on_which_the_director_can_work_passes() {
    let output = doctor(NOTHING, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("uvs.toml can be used"), "{text}");
    assert!(text.contains("0 failures, "), "{text}");
}

#[test]
fn a_failure_is_told_and_is_the_exit_status() {
    let output = doctor(NO_INTERFACE, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["passed"], false);
    let findings = json["findings"].as_array().unwrap();
    let failures = findings
        .iter()
        .filter(|finding| finding["verdict"] == "failure");
    let failures: Vec<_> = failures.collect();
    assert_eq!(failures.len(), 1, "{json:#}");
    assert_eq!(failures[0]["finding"], "no interface \"none-such\"");
}

#[test]
fn a_configuration_with_mistakes_is_a_failure_that_names_them() {
    let output = doctor("[director]\nworkers = 0\n", &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("uvs.toml:2: director.workers: 0"), "{text}");
}
