//! What uvs did, in the form of a recording of the kernel, and written beside the scenario.

use crate::build::from_hex;
use crate::describe::describe;
use crate::scenario::{ScenarioError, beside, json as read_json, malformed};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// Hex digits before the identification of an IPv4 packet in an Ethernet frame, and before its header checksum.
const IDENTIFICATION: usize = 36;
const HEADER_CHECKSUM: usize = 48;

/// A step's record without what an implementation chooses freely: announcements, and the identification of ICMP errors of
/// the director's own with the header checksum over it.
#[must_use]
pub fn judgeable(mut result: Value) -> Value {
    if let Some(late) = result.get_mut("also_out").and_then(Value::as_array_mut) {
        late.retain(|frame| !is_announcement(frame));
        if late.is_empty() {
            result
                .as_object_mut()
                .map(|fields| fields.remove("also_out"));
        }
    }
    for exchange in result
        .get_mut("inject")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        exchange
            .as_object_mut()
            .map(|fields| fields.remove("for_service"));
        let injected = exchange["in"]
            .as_str()
            .and_then(from_hex)
            .unwrap_or_default();
        let asked_icmp = describe(&injected)["proto"] == "icmp";
        for frame in exchange["out"].as_array_mut().into_iter().flatten() {
            if frame["proto"] == "icmp" && !asked_icmp {
                free(frame);
            }
        }
    }
    result
}

fn is_announcement(frame: &Value) -> bool {
    frame["proto"] == "arp" || frame["icmp"] == json!([135, 0]) || frame["icmp"] == json!([136, 0])
}

fn free(frame: &mut Value) {
    let mut raw = frame["raw"].as_str().unwrap_or_default().to_owned();
    for at in [IDENTIFICATION, HEADER_CHECKSUM] {
        if raw.len() >= at + 4 {
            raw.replace_range(at..at + 4, "....");
        }
    }
    frame["raw"] = json!(raw);
    frame["id"] = Value::Null;
}

/// Writes results beside a scenario, a line for each thing that can differ.
///
/// # Errors
/// When there are results of the kernel, or the file cannot be written.
pub fn write(path: &Path, results: &[Value]) -> Result<(), ScenarioError> {
    let recorded = beside(path);
    if recorded.exists() && read_json(&recorded)?.get("kernel").is_some() {
        let what = "this is a recording of the kernel".to_owned();
        return Err(malformed(&recorded, what));
    }
    let about = read_json(path)?["about"].clone();
    let mut text = format!("{{\n \"about\": {about},\n \"results\": [\n");
    for (number, result) in results.iter().enumerate() {
        lay_out(result, 2, &mut text);
        text.push_str(if number + 1 < results.len() {
            ",\n"
        } else {
            "\n"
        });
    }
    text.push_str(" ]\n}\n");
    std::fs::write(&recorded, text).map_err(|error| ScenarioError::Unreadable {
        path: recorded.clone(),
        error,
    })
}

/// Values of values stand below each other, the rest in a line. (Writing to a text cannot fail.)
fn lay_out(value: &Value, depth: usize, text: &mut String) {
    let blanks = " ".repeat(depth);
    let holds_rows = |value: &Value| match value {
        Value::Array(rows) => rows.iter().any(Value::is_object),
        Value::Object(fields) => fields.values().any(|field| {
            field
                .as_array()
                .is_some_and(|rows| rows.iter().any(Value::is_object))
                || field
                    .as_object()
                    .is_some_and(|inner| inner.values().any(Value::is_array))
        }),
        _ => false,
    };
    text.push_str(&blanks);
    match value {
        Value::Object(fields) if holds_rows(value) => {
            text.push_str("{\n");
            let mut first = true;
            for (key, field) in fields {
                text.push_str(if first { "" } else { ",\n" });
                first = false;
                let _ = write!(text, "{blanks} {}:", Value::from(key.as_str()));
                if holds_rows(field) {
                    text.push('\n');
                    lay_out(field, depth + 2, text);
                } else {
                    let _ = write!(text, " {field}");
                }
            }
            let _ = write!(text, "\n{blanks}}}");
        }
        Value::Array(rows) if holds_rows(value) => {
            text.push_str("[\n");
            for (number, row) in rows.iter().enumerate() {
                lay_out(row, depth + 1, text);
                text.push_str(if number + 1 < rows.len() { ",\n" } else { "\n" });
            }
            text.push_str(&format!("{blanks}]"));
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_implementation_chooses_is_left_open() {
        let injected = "020000000101020000000001080045000000";
        let error = json!({"proto": "icmp", "id": 7, "raw": "0".repeat(84)});
        let announcement = json!({"proto": "arp"});
        let result = json!({
            "inject": [{"in": injected, "for_service": true, "out": [error]}], "also_out": [announcement]});
        let result = judgeable(result);
        assert!(result.get("also_out").is_none());
        let exchange = &result["inject"][0];
        assert!(exchange.get("for_service").is_none());
        let frame = &exchange["out"][0];
        assert!(frame["id"].is_null());
        let raw = format!(
            "{}....{}....{}",
            "0".repeat(36),
            "0".repeat(8),
            "0".repeat(32)
        );
        assert_eq!(frame["raw"], json!(raw));
    }
}
