//! What ARCHITECTURE.md says of the whole workspace, held against it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust files below a folder, as paths from the root.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_files_with_unsafe_code_are_those_that_architecture_lists() {
    let root = root();
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let (_, list) = architecture.split_once("<!-- unsafe-files -->").unwrap();
    let (list, _) = list.split_once("<!-- /unsafe-files -->").unwrap();
    let listed: BTreeSet<_> = list
        .split('`')
        .filter(|text| text.ends_with(".rs"))
        .map(str::to_owned)
        .collect();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    // Spelt apart, so that this file is not one of them.
    let opts_in = ["allow(", "unsafe_code"];
    let opting_in: BTreeSet<_> = files
        .iter()
        .filter(|file| {
            let text = fs::read_to_string(file).unwrap();
            text.split(opts_in[0])
                .skip(1)
                .any(|rest| rest.trim_start().starts_with(opts_in[1]))
        })
        .map(|file| {
            file.strip_prefix(&root)
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert!(!listed.is_empty());
    assert_eq!(opting_in, listed);
}

#[test]
fn every_difference_from_ipvs_has_its_row_in_the_document() {
    let root = root();
    let document = fs::read_to_string(root.join("docs/ipvs-compatibility.md")).unwrap();
    let (_, table) = document.split_once("<!-- differences -->").unwrap();
    let (table, _) = table.split_once("<!-- /differences -->").unwrap();
    let mut rows: Vec<String> = table
        .lines()
        .filter_map(|row| row.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect();
    // Spelt apart, so that this file is not one of them.
    let said = ["Differs", " from IPVS:"].concat();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut differences: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).unwrap();
            let path = file.strip_prefix(&root).unwrap();
            let path = path.to_string_lossy().into_owned();
            vec![path; text.matches(&said).count()]
        })
        .collect();
    rows.sort();
    differences.sort();
    assert!(!differences.is_empty());
    assert_eq!(rows, differences);
}

#[test]
fn every_setting_of_ipvs_is_in_the_document() {
    let document = fs::read_to_string(root().join("docs/ipvs-compatibility.md")).unwrap();
    let settings = document.split("## Settings").nth(1).unwrap();
    let settings = settings.split("\n## ").next().unwrap();
    for key in control::config::keys::IPVS.keys {
        let name = format!("`{}`", key.name);
        assert!(settings.contains(&name), "{name} is missing");
    }
}

#[test]
fn every_scenario_that_the_document_names_is_there() {
    let document = fs::read_to_string(root().join("docs/ipvs-compatibility.md")).unwrap();
    let folder = |name: &str| root().join("tests/scenario").join(name);
    let same = document.split("## What is the same").nth(1).unwrap();
    let same = same.split("\n## ").next().unwrap();
    let fullnat = document.split("\n## FULLNAT").nth(1).unwrap();
    let fullnat = fullnat.split("\n## ").next().unwrap();
    for (text, folder) in [(same, folder("recorded")), (fullnat, folder("fullnat"))] {
        let names: BTreeSet<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        let rows = text
            .lines()
            .filter_map(|row| row.strip_suffix(" |")?.rsplit(" | ").next());
        let named: Vec<&str> = rows
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .filter(|name| !name.contains('/'))
            .collect();
        assert!(named.len() > 20, "{named:?}");
        if folder.ends_with("fullnat") {
            let played = names.iter().filter_map(|name| name.strip_suffix(".json"));
            for name in played.filter(|name| !name.ends_with(".expected")) {
                assert!(named.contains(&name), "the document does not name {name}");
            }
        }
        for name in named {
            let is_there = match name.strip_suffix('*') {
                Some(start) => names.iter().any(|file| file.starts_with(start)),
                None => names.contains(&format!("{name}.json")),
            };
            assert!(is_there, "{name} in {}", folder.display());
        }
    }
}

/// The workspace's crates among the dependencies of one, those of its tests and benches left out.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let (_, section) = manifest.split_once("\n[dependencies]\n").unwrap();
    let section = section.split("\n[").next().unwrap();
    let ours = [
        "scheduler",
        "conntrack",
        "dataplane",
        "control",
        "proto",
        "cli",
        "benches",
    ];
    section
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| ours.contains(name))
        .map(str::to_owned)
        .collect()
}

#[test]
fn crates_use_only_those_that_the_picture_allows() {
    let of = |folder: &str, allowed: &[&str]| {
        let allowed: BTreeSet<_> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let used = dependencies(folder);
        assert!(
            used.is_subset(&allowed),
            "{folder} uses {used:?}, the picture allows {allowed:?}"
        );
    };
    of("scheduler", &[]);
    of("conntrack", &[]);
    of("control/proto", &[]);
    of("dataplane", &["scheduler", "conntrack"]);
    of("benches", &["scheduler", "conntrack", "dataplane"]);
    of("control", &["scheduler", "conntrack", "dataplane", "proto"]);
    of(
        "control/cli",
        &["benches", "conntrack", "dataplane", "control", "proto"],
    );
}
