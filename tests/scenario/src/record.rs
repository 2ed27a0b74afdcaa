//! What uvs did, in the form of a recording of the kernel.

use crate::build::from_hex;
use crate::describe::describe;
use serde_json::{Value, json};

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
