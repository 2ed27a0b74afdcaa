//! Compares the record of a step with the recording.

use crate::allowed::{self, Credits, EXPIRES_SLACK, Moment};
use crate::build::from_hex;
use crate::describe::{describe, words};
use crate::reassembly::datagrams;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Longest text of a value in a difference.
const SHOWN: usize = 120;

/// The differences between a step's recording and what uvs did, a line each. `credits` go from step to step.
#[must_use]
pub fn step(
    recorded: &Value,
    actual: &Value,
    is_directors: &dyn Fn(IpAddr) -> bool,
    credits: &mut Credits,
) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, value) in recorded.as_object().into_iter().flatten() {
        match kind.as_str() {
            "inject" => exchanges(value, &actual[kind], is_directors, credits, &mut found),
            "dump" => dumps(value, &actual[kind], credits, &mut found),
            "ipvsadm" => commands(value, &actual[kind], &mut found),
            "also_out" => {}
            _ => differ(value, &actual[kind], kind, &mut found),
        }
    }
    let moment = Moment {
        injected: &Value::Null,
        for_service: false,
        is_directors,
    };
    let late = [&recorded["also_out"], &actual["also_out"]];
    frames(late, &moment, "also_out", credits, &mut found);
    found
}

fn exchanges(
    recorded: &Value,
    actual: &Value,
    is_directors: &dyn Fn(IpAddr) -> bool,
    credits: &mut Credits,
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
    let injected: Vec<Value> = actual.iter().map(injected).collect();
    let len = recorded.len().min(actual.len());
    let mut number = 0;
    while number < len {
        let same_datagram = |other: &&Value| is_same_datagram(&injected[number], other);
        let count = injected[number..len]
            .iter()
            .take_while(same_datagram)
            .count()
            .max(1);
        let range = number..number + count;
        let path = format!("inject[{number}] {}", words(&injected[number]));
        for (recorded, actual) in recorded[range.clone()].iter().zip(&actual[range.clone()]) {
            if recorded["in"] != actual["in"] || recorded["side"] != actual["side"] {
                found.push(format!(
                    "{path}: recorded with {}, injected {}",
                    recorded["in"], actual["in"]
                ));
            }
        }
        let moment = Moment {
            injected: &injected[number],
            for_service: actual[number]["for_service"] == true,
            is_directors,
        };
        if count > 1 {
            let outs = [&recorded[range.clone()], &actual[range.clone()]];
            let none_came = outs[1]
                .iter()
                .all(|exchange| array(&exchange["out"]).is_empty());
            // The kernel sends them on once they are all there.
            let may_be_missing = |frame: &Value| {
                let mut moments = injected[range.clone()]
                    .iter()
                    .map(|injected| Moment { injected, ..moment });
                moments.any(|moment| allowed::may_be_missing(frame, &moment).is_some())
            };
            let mut sent = outs[0].iter().flat_map(|exchange| array(&exchange["out"]));
            if !none_came || !sent.all(may_be_missing) {
                fragments(outs, &path, found);
            }
        } else {
            let outs = [&recorded[number]["out"], &actual[number]["out"]];
            frames(outs, &moment, &path, credits, found);
        }
        number += count;
    }
}

fn injected(exchange: &Value) -> Value {
    describe(&from_hex(exchange["in"].as_str().unwrap_or_default()).unwrap_or_default())
}

/// Whether two frames are fragments of one datagram.
fn is_same_datagram(a: &Value, b: &Value) -> bool {
    let address =
        |frame: &Value, key: &str| frame[key].as_str().and_then(crate::tables::address_of);
    let datagram = |frame: &Value| {
        (
            address(frame, "src"),
            address(frame, "dst"),
            frame["id"].clone(),
        )
    };
    a.get("frag").is_some() && b.get("frag").is_some() && datagram(a) == datagram(b)
}

/// What came of all fragments of one datagram.
fn fragments([recorded, actual]: [&[Value]; 2], path: &str, found: &mut Vec<String>) {
    let out = |exchanges: &[Value]| -> Vec<Value> {
        exchanges
            .iter()
            .flat_map(|exchange| array(&exchange["out"]))
            .cloned()
            .collect()
    };
    let (recorded, actual) = (out(recorded), out(actual));
    let whole = [datagrams(&recorded), datagrams(&actual)];
    if allowed::same_datagrams(&whole[0], &whole[1]).is_none() {
        let told = |frames: &[Value]| frames.iter().map(words).collect::<Vec<_>>().join("; ");
        found.push(format!(
            "{path}: of its fragments {} recorded, {} came",
            told(&recorded),
            told(&actual)
        ));
    }
}

/// Walks both lists, the recorded one first; what the rules let pass is passed over.
fn frames(
    [recorded, actual]: [&Value; 2],
    moment: &Moment<'_>,
    path: &str,
    credits: &mut Credits,
    found: &mut Vec<String>,
) {
    let mut actual: VecDeque<&Value> = array(actual).iter().collect();
    for expected in array(recorded) {
        while let Some(frame) = actual.front()
            && !allowed::same_frame(expected, frame, moment)
            && allowed::may_be_extra(frame, moment, credits).is_some()
        {
            actual.pop_front();
        }
        if actual
            .front()
            .is_some_and(|frame| allowed::same_frame(expected, frame, moment))
        {
            actual.pop_front();
            continue;
        }
        if allowed::may_be_missing(expected, moment).is_some() {
            continue;
        }
        match actual.pop_front() {
            None => found.push(format!(
                "{path}: missing: {} to {}",
                expected["side"],
                words(expected)
            )),
            Some(frame) => different(expected, frame, path, found),
        }
    }
    for frame in actual {
        if allowed::may_be_extra(frame, moment, credits).is_none() {
            found.push(format!(
                "{path}: not recorded: {} to {}",
                frame["side"],
                words(frame)
            ));
        }
    }
}

/// Says how two frames differ: field by field, or as a whole where they have little in common.
fn different(recorded: &Value, actual: &Value, path: &str, found: &mut Vec<String>) {
    let kind = |frame: &Value| [frame["side"].clone(), frame["proto"].clone()];
    if kind(recorded) != kind(actual) {
        let expected = format!("{} to {} recorded", recorded["side"], words(recorded));
        found.push(format!(
            "{path}: {expected}, {} to {} came",
            actual["side"],
            words(actual)
        ));
        return;
    }
    let before = found.len();
    fields(recorded, actual, path, found);
    if found.len() == before {
        found.push(format!(
            "{path}: recorded {}, came {}",
            recorded["raw"], actual["raw"]
        ));
    }
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

fn dumps(recorded: &Value, actual: &Value, credits: &Credits, found: &mut Vec<String>) {
    for (item, expected) in recorded.as_object().into_iter().flatten() {
        match item.as_str() {
            "conns" => {
                // Templates of one client's calls differ in what the engine tells alone.
                let keys = ["proto", "client", "virtual", "pe"];
                rows(expected, &actual[item], &keys, ["", item], credits, found);
            }
            "services" | "stats" => {
                rows(
                    expected,
                    &actual[item],
                    &["service"],
                    ["", item],
                    credits,
                    found,
                );
            }
            _ => listing(item, expected, &actual[item], found),
        }
    }
}

/// The rows of a table, each known by some of its fields, or of a part of a table, which has an owner.
fn rows(
    recorded: &Value,
    actual: &Value,
    keys: &[&str],
    [owner, path]: [&str; 2],
    credits: &Credits,
    found: &mut Vec<String>,
) {
    let name = |row: &Value| {
        keys.iter()
            .filter_map(|key| row[key].as_str())
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
                        "servers" => rows(
                            value,
                            &row[key],
                            &["server"],
                            [&name_of, &path],
                            credits,
                            found,
                        ),
                        "expires" if is_near(value, &row[key]) => {}
                        _ if credits.explain(
                            format!("{owner} {name_of}").trim(),
                            key,
                            value,
                            &row[key],
                        ) => {}
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
        if command == allowed::RATES {
            lines.pop();
        }
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

/// A connection's line without its `mm:ss`, or the seconds of `/proc/net/ip_vs_conn` and `ip_vs_conn_sync`.
fn without_clock(line: &str) -> String {
    let clock = |word: &str| word.len() == 5 && word.as_bytes()[2] == b':';
    let words: Vec<_> = line.split_whitespace().collect();
    let is_number = |word: &&str| word.bytes().all(|digit| digit.is_ascii_digit());
    let seconds_at = match words.get(8) {
        Some(&"LOCAL") => 9,
        _ => 8,
    };
    match words.as_slice() {
        [_, word, ..] if clock(word) => line.replacen(word, "mm:ss", 1),
        _ if words.first() != Some(&"->") && words.get(seconds_at).is_some_and(is_number) => words
            .iter()
            .enumerate()
            .map(|(place, word)| if place == seconds_at { "s" } else { word })
            .collect::<Vec<_>>()
            .join(" "),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_seconds_left_are_not_compared_in_any_listing_of_connections() {
        for (line, other) in [
            ("TCP 01:58  TIME_WAIT a b c", "TCP 01:57  TIME_WAIT a b c"),
            (
                "TCP 0A 27 0A 50 0A 50 TIME_WAIT       118",
                "TCP 0A 27 0A 50 0A 50 TIME_WAIT        99",
            ),
            (
                "TCP 0A 27 0A 50 0A 50 TIME_WAIT   LOCAL      118",
                "TCP 0A 27 0A 50 0A 50 TIME_WAIT   LOCAL       99",
            ),
        ] {
            assert_eq!(without_clock(line), without_clock(other));
        }
        let row = "  -> 0A02000B:0050      Masq    1      2          0";
        assert_eq!(without_clock(row), row);
    }

    #[test]
    fn templates_of_calls_are_told_apart_by_what_the_engine_says() {
        let row = |pe: &str| json!({"proto": "UDP", "client": "a", "virtual": "b", "pe": pe, "expires": 3});
        let dump = |rows: [&str; 2]| json!({"conns": rows.map(row)});
        let differences = |recorded, actual| {
            let mut found = Vec::new();
            dumps(
                &dump(recorded),
                &dump(actual),
                &Credits::default(),
                &mut found,
            );
            found.len()
        };
        assert_eq!(differences(["sip 1", "sip 2"], ["sip 2", "sip 1"]), 0);
        assert_eq!(differences(["sip 1", "sip 2"], ["sip 2", "sip 3"]), 2);
    }
}
