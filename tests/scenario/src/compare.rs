//! Compares the record of a step with the recording.

use crate::allowed::{self, EXPIRES_SLACK, Moment};
use crate::build::from_hex;
use crate::describe::{describe, words};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Longest text of a value in a difference.
const SHOWN: usize = 120;

/// The differences between a step's recording and what uvs did, a line each.
#[must_use]
pub fn step(
    recorded: &Value,
    actual: &Value,
    is_directors: &dyn Fn(IpAddr) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, value) in recorded.as_object().into_iter().flatten() {
        match kind.as_str() {
            "inject" => exchanges(value, &actual[kind], is_directors, &mut found),
            "dump" => dumps(value, &actual[kind], &mut found),
            "ipvsadm" => commands(value, &actual[kind], &mut found),
            "also_out" => {}
            _ => differ(value, &actual[kind], kind, &mut found),
        }
    }
    let early = |record: &Value| record.get("also_out").cloned().unwrap_or_else(|| json!([]));
    let moment = Moment {
        injected: &Value::Null,
        for_service: false,
        is_directors,
    };
    frames(
        &early(recorded),
        &early(actual),
        &moment,
        "also_out",
        &mut found,
    );
    found
}

fn exchanges(
    recorded: &Value,
    actual: &Value,
    is_directors: &dyn Fn(IpAddr) -> bool,
    found: &mut Vec<String>,
) {
    let (recorded, actual) = (array(recorded), array(actual));
    if recorded.len() != actual.len() {
        found.push(format!(
            "inject: {} frames recorded, {} injected",
            recorded.len(),
            actual.len()
        ));
    }
    for (number, (recorded, actual)) in recorded.iter().zip(actual).enumerate() {
        let injected =
            describe(&from_hex(actual["in"].as_str().unwrap_or_default()).unwrap_or_default());
        let path = format!("inject[{number}] {}", words(&injected));
        if recorded["in"] != actual["in"] || recorded["side"] != actual["side"] {
            found.push(format!(
                "{path}: recorded with {}, injected {}",
                recorded["in"], actual["in"]
            ));
        }
        let moment = Moment {
            injected: &injected,
            for_service: actual["for_service"] == true,
            is_directors,
        };
        frames(&recorded["out"], &actual["out"], &moment, &path, found);
    }
}

/// Walks both lists; what the rules let pass is passed over.
fn frames(
    recorded: &Value,
    actual: &Value,
    moment: &Moment<'_>,
    path: &str,
    found: &mut Vec<String>,
) {
    let mut recorded = array(recorded).iter().peekable();
    let mut actual = array(actual)
        .iter()
        .filter(|frame| allowed::may_be_extra(frame).is_none())
        .peekable();
    while let Some(expected) = recorded.next() {
        let same = |frame: &&&Value| same(expected, frame);
        if actual.peek().filter(same).is_some() {
            actual.next();
            continue;
        }
        if allowed::may_be_missing(expected, moment).is_some() {
            continue;
        }
        match actual.next() {
            None => found.push(format!(
                "{path}: missing: {} to {}",
                expected["side"],
                words(expected)
            )),
            Some(frame) => {
                let before = found.len();
                fields(expected, frame, path, found);
                if found.len() == before {
                    found.push(format!(
                        "{path}: recorded {}, came {}",
                        expected["raw"], frame["raw"]
                    ));
                }
            }
        }
    }
    for frame in actual {
        found.push(format!(
            "{path}: not recorded: {} to {}",
            frame["side"],
            words(frame)
        ));
    }
}

fn same(recorded: &Value, actual: &Value) -> bool {
    let raw = |frame: &Value| frame["raw"].as_str().unwrap_or_default().to_owned();
    recorded["side"] == actual["side"] && allowed::same_frame(&raw(recorded), &raw(actual))
}

/// The fields in which two frames differ; those that the kernel chose are null in a recording.
fn fields(recorded: &Value, actual: &Value, path: &str, found: &mut Vec<String>) {
    for (key, expected) in recorded.as_object().into_iter().flatten() {
        match (key.as_str(), expected) {
            ("raw", _) | (_, Value::Null) => {}
            ("inner" | "quote", _) => {
                fields(expected, &actual[key], &format!("{path} {key}"), found)
            }
            _ => differ(expected, &actual[key], &format!("{path} {key}"), found),
        }
    }
}

fn commands(recorded: &Value, actual: &Value, found: &mut Vec<String>) {
    for (recorded, actual) in array(recorded).iter().zip(array(actual)) {
        let command = recorded["command"].as_str().unwrap_or_default();
        differ(
            &recorded["rc"],
            &actual["rc"],
            &format!("{command}: rc"),
            found,
        );
        let lines = |record: &Value| {
            json!(
                record["output"]
                    .as_str()
                    .unwrap_or_default()
                    .lines()
                    .collect::<Vec<_>>()
            )
        };
        listing(command, &lines(recorded), &lines(actual), found);
    }
}

fn dumps(recorded: &Value, actual: &Value, found: &mut Vec<String>) {
    for (item, expected) in recorded.as_object().into_iter().flatten() {
        match item.as_str() {
            "conns" => rows(
                expected,
                &actual[item],
                &["proto", "client", "virtual"],
                item,
                found,
            ),
            "services" | "stats" => rows(expected, &actual[item], &["service"], item, found),
            _ => listing(item, expected, &actual[item], found),
        }
    }
}

/// The rows of a table, each known by some of its fields.
fn rows(recorded: &Value, actual: &Value, keys: &[&str], path: &str, found: &mut Vec<String>) {
    let name = |row: &Value| {
        keys.iter()
            .map(|key| row[key].as_str().unwrap_or_default())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut actual: Vec<&Value> = array(actual).iter().collect();
    for expected in array(recorded) {
        let name_of = name(expected);
        match actual.iter().position(|row| name(row) == name_of) {
            None => found.push(format!("{path} {name_of}: missing: {}", shown(expected))),
            Some(place) => {
                let row = actual.remove(place);
                for (key, value) in expected.as_object().into_iter().flatten() {
                    let path = format!("{path} {name_of} {key}");
                    match key.as_str() {
                        "servers" => rows(value, &row[key], &["server"], &path, found),
                        "expires" if is_near(value, &row[key]) => {}
                        _ => differ(value, &row[key], &path, found),
                    }
                }
            }
        }
    }
    for row in actual {
        found.push(format!(
            "{path} {}: not recorded: {}",
            name(row),
            shown(row)
        ));
    }
}

fn is_near(recorded: &Value, actual: &Value) -> bool {
    let seconds = (recorded.as_u64(), actual.as_u64());
    matches!(seconds, (Some(a), Some(b)) if a.abs_diff(b) <= EXPIRES_SLACK)
}

/// A listing as text. Where connections are listed, the seconds left are not compared.
fn listing(command: &str, recorded: &Value, actual: &Value, found: &mut Vec<String>) {
    let unordered = allowed::is_unordered(command);
    let prepare = |lines: &Value| {
        let mut lines: Vec<String> = array(lines)
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if let Some(last) = lines.last_mut() {
            // The recordings' outputs end with their last visible character.
            last.truncate(last.trim_end().len());
        }
        if unordered {
            lines
                .iter_mut()
                .for_each(|line| *line = without_clock(line));
            lines.sort();
        }
        lines
    };
    let (recorded, actual) = (prepare(recorded), prepare(actual));
    if recorded.len() != actual.len() {
        found.push(format!(
            "{command}: {} lines recorded, {} printed",
            recorded.len(),
            actual.len()
        ));
    }
    for (expected, line) in recorded.iter().zip(&actual) {
        if expected != line {
            found.push(format!(
                "{command}: {expected:?} recorded, {line:?} printed"
            ));
        }
    }
}

/// A connection's line without its `mm:ss`.
fn without_clock(line: &str) -> String {
    let clock = |word: &str| word.len() == 5 && word.as_bytes()[2] == b':';
    match line.split_whitespace().nth(1) {
        Some(word) if clock(word) => line.replacen(word, "mm:ss", 1),
        _ => line.trim_end().to_owned(),
    }
}

fn differ(recorded: &Value, actual: &Value, path: &str, found: &mut Vec<String>) {
    match (recorded, actual) {
        (Value::Object(fields), Value::Object(_)) => {
            for (key, value) in fields {
                differ(value, &actual[key], &format!("{path} {key}"), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let first = a.iter().zip(b).position(|(a, b)| a != b);
            if let Some(place) = first {
                found.push(format!(
                    "{path}[{place}]: {} recorded, {} came",
                    shown(&a[place]),
                    shown(&b[place])
                ));
            }
        }
        _ if recorded == actual => {}
        _ => found.push(format!(
            "{path}: {} recorded, {} came",
            shown(recorded),
            shown(actual)
        )),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
