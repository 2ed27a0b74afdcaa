//! `uvs bench`, as a user calls it: no root, no network, but for two of its ports. What the figures are worth, the tests of
//! `benches` say.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uvs"));
    command.arg("bench").args(arguments).output().unwrap()
}

#[test]
fn the_results_are_a_table_a_list_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let (json, svg) = (folder.path().join("b.json"), folder.path().join("b.svg"));
    let files = [json.to_str().unwrap(), svg.to_str().unwrap()];
    let told = bench(&[
        "--mode",
        "dr,fullnat",
        "--flows",
        "100,1000",
        "--size",
        "64,imix",
        "--seconds",
        "0.02",
        "--roofline",
        "--json",
        files[0],
        "--plot",
        files[1],
    ]);
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success() && told.stderr.is_empty(), "{told:?}");
    let rows = text
        .lines()
        .filter(|line| line.contains(" ipv4 ") && line.contains("  "));
    assert!(rows.count() >= 12, "{text}");
    assert!(text.starts_with("mode "), "{text}");

    let list: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 12, "two modes, two tables, new and two sizes");
    for object in list {
        for key in ["mpps", "ns_per_packet", "roofline_ns"] {
            assert!(object[key].as_f64().unwrap() > 0.0, "{key}: {object}");
        }
        let is_new = object["phase"] == "new";
        assert!(is_new || object["phase"] == "established", "{object}");
        assert_eq!(
            object["flows_per_s"].as_f64().unwrap() > 0.0,
            is_new,
            "{object}"
        );
        let frame_len = if object["size"] == "imix" { 362 } else { 64 };
        assert_eq!(object["frame_len"], frame_len, "{object}");
        assert!(["dr", "fullnat"].contains(&object["mode"].as_str().unwrap()));
        assert_eq!(
            (&object["family"], &object["workers"]),
            (&"ipv4".into(), &1.into())
        );
        assert!([100, 1000].contains(&object["flows"].as_u64().unwrap()));
        let bytes = object["bytes_per_connection"].as_f64().unwrap();
        let in_gib = object["connections_per_gib"].as_f64().unwrap();
        assert!((bytes * in_gib / f64::from(1 << 30) - 1.0).abs() < 1e-9);
        let burst = |key| object["burst_ns"][key].as_u64().unwrap();
        assert!(burst("p50") <= burst("p99") && burst("p99.9") <= burst("max"));
    }

    let picture = fs::read_to_string(&svg).unwrap();
    assert_eq!(well_formed(&picture), Ok(()), "{picture}");
    // A line and a roofline for both sizes of both modes.
    assert_eq!(picture.matches("<polyline").count(), 8);
    for label in [
        "dr 64",
        "fullnat imix",
        "connections",
        "million packets per second",
        "1 worker on",
    ] {
        assert!(picture.contains(label), "{label}: {picture}");
    }
}

#[test]
fn without_a_roofline_there_is_none_and_ipv6_has_its_own_frames() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("b.json");
    let told = bench(&[
        "--mode",
        "nat",
        "--flows",
        "100",
        "--family",
        "ipv6",
        "--workers",
        "2",
        "--seconds",
        "0.05",
        "--new-flows-per-second",
        "20000",
        "--json",
        json.to_str().unwrap(),
    ]);
    assert!(told.status.success(), "{told:?}");
    let list: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let established = &list[1];
    assert_eq!(established["phase"], "established");
    assert_eq!(established["roofline_ns"], Value::Null);
    assert_eq!(
        established["frame_len"], 78,
        "TCP over IPv6 has no shorter frame"
    );
    assert_eq!(
        (&established["family"], &established["workers"]),
        (&"ipv6".into(), &2.into())
    );
    assert_eq!(established["mpps_per_worker"].as_array().unwrap().len(), 2);
    assert_eq!(established["cross"], true);
    assert!(
        established["flows_per_s"].as_f64().unwrap() > 0.0,
        "{established}"
    );
}

/// A capture over and over, and veth pairs. Needs root: fails without.
#[test]
fn other_ports_give_the_same_figures() {
    for port in ["pcap", "af_packet", "af_xdp"] {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("b.json");
        let told = bench(&[
            "--port",
            port,
            "--mode",
            "dr,fullnat",
            "--flows",
            "100",
            "--size",
            "64,1500",
            "--seconds",
            "0.05",
            "--json",
            json.to_str().unwrap(),
        ]);
        assert!(told.status.success(), "{port}: {told:?}");
        let list: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), 4, "{port}: two modes, two sizes: {list:?}");
        for object in list {
            assert_eq!(object["phase"], "established", "{port}: {object}");
            assert!(object["mpps"].as_f64().unwrap() > 0.0, "{port}: {object}");
        }
    }
}

#[test]
fn mistakes_name_the_argument_the_value_and_what_is_accepted() {
    for (arguments, said) in [
        (
            &["--mode", "nta"][..],
            &["nta", "--mode", "nat, dr, tun, fullnat"][..],
        ),
        (&["--flows", "0"], &["'0'", "--flows", "1.."]),
        (&["--flows", "1000,x"], &["'x'", "--flows"]),
        (&["--size", "63"], &["63", "--size", "64 to 9018", "imix"]),
        (&["--workers", "0"], &["'0'", "--workers", "1..=64"]),
        (&["--workers", "65"], &["65", "--workers", "1..=64"]),
        (&["--seconds", "0"], &["'0'", "--seconds", "0.01 to 3600"]),
        (&["--seconds", "NaN"], &["NaN", "--seconds", "0.01 to 3600"]),
        (&["--family", "ipv5"], &["ipv5", "--family", "ipv4, ipv6"]),
        (
            &["--port", "netmap"],
            &["netmap", "--port", "memory, pcap, af_packet, af_xdp, dpdk"],
        ),
        #[cfg(not(feature = "dpdk"))]
        (&["--port", "dpdk"], &["--port dpdk", "--features dpdk"]),
        (&["--new-flows-per-second", "-1"], &["-1"]),
        (
            &["--flows", "3", "--workers", "4"],
            &["--flows 3", "4 or more"],
        ),
        (&["--json", "/nowhere/b.json"], &["/nowhere/b.json"]),
        (&["--plot", "/nowhere/b.svg"], &["/nowhere/b.svg"]),
        (
            &["--flows", "4000000000"],
            &["4000000000 flows", "capacity", "are possible"],
        ),
    ] {
        let start = Instant::now();
        let told = bench(arguments);
        let message = String::from_utf8_lossy(&told.stderr);
        assert!(!told.status.success(), "{arguments:?}");
        for word in said {
            assert!(message.contains(word), "{arguments:?}: {message}");
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{arguments:?}");
    }
}

#[test]
fn an_interrupted_bench_ends_soon_and_tells_what_it_has() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uvs"));
    command.args([
        "bench",
        "--mode",
        "dr",
        "--flows",
        "100",
        "--seconds",
        "1000",
    ]);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let told = child.wait_with_output().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(told.status.code(), Some(130));
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(
        text.starts_with("mode ") && text.contains("Interrupted."),
        "{text}"
    );
}

/// Whether every tag is closed in its turn, and every attribute quoted: all that is asked of XML without entities of its
/// own.
fn well_formed(xml: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = xml.trim();
    while let Some(start) = rest.find('<') {
        let text = &rest[..start];
        if text.contains('>') || (open.is_empty() && !text.is_empty()) {
            return Err(format!("text {text:?}"));
        }
        let (tag, after) = rest[start + 1..]
            .split_once('>')
            .ok_or("a tag without end")?;
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> closes nothing"));
            }
            continue;
        }
        let (tag, closes) = tag
            .strip_suffix('/')
            .map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        let pieces: Vec<_> = attributes.split('"').collect();
        let named = pieces.chunks(2).all(|pair| match pair {
            [name, _] => name.ends_with('=') && name.trim().len() > 1,
            [end] => end.trim().is_empty(),
            _ => false,
        });
        if !named || name.is_empty() {
            return Err(format!("<{tag}>"));
        }
        if !closes {
            open.push(name);
        }
    }
    if open.is_empty() && rest.is_empty() {
        Ok(())
    } else {
        Err(format!("{open:?} is open, {rest:?} is left"))
    }
}
