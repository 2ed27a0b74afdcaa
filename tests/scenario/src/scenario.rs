//! A scenario file, as it is written for the oracle.

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What stands at the end of a file name in place of `.json` where a recording is.
const RECORDED: &str = ".expected.json";
const STEPS: [&str; 10] = [
    "ipvsadm",
    "ip",
    "iptables",
    "ip6tables",
    "sysctl",
    "inject",
    "open",
    "close",
    "sleep",
    "dump",
];
/// Steps that may be done before the first.
const SETUP: [&str; 4] = ["sysctl", "ip", "iptables", "ip6tables"];
const OTHERS: [&str; 6] = ["about", "vips", "modules", "settle_ms", "limit", "steps"];

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A file cannot be read.
    #[error("{}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file does not hold JSON.
    #[error("{}: {error}", .path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where it ends to be JSON.
        error: serde_json::Error,
    },
    /// A folder without scenarios.
    #[error("{}: no scenarios in it; accepted: NAME.json files", .0.display())]
    Empty(PathBuf),
    /// JSON that is no scenario, or no recording.
    #[error("{}: {what}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// A step: its kind, and what is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// "note" or one of the kinds that do something.
    pub kind: String,
    /// In the kind's own form.
    pub value: Value,
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The whole of it in one line, to look for addresses in.
    pub text: String,
    /// Addresses of the director beyond those of the network.
    pub vips: Vec<String>,
    /// Kernel modules.
    pub modules: Vec<String>,
    /// What passes after each injected frame, milliseconds.
    pub settle_ms: u64,
    /// What comes before the steps and is not recorded.
    pub setup: Vec<Step>,
    /// The steps.
    pub steps: Vec<Step>,
}

/// The scenario files of a path: itself, or all in a folder, by name.
///
/// # Errors
/// When a folder cannot be read, or has none.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, ScenarioError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |error| ScenarioError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.ends_with(".json") && !name.ends_with(RECORDED) {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(ScenarioError::Empty(path.to_owned()));
    }
    files.sort();
    Ok(files)
}

/// Reads a scenario whose results are of no interest.
///
/// # Errors
/// When it is missing or is not what it should be.
pub fn read_alone(path: &Path) -> Result<Scenario, ScenarioError> {
    scenario(&json(path)?).map_err(|what| malformed(path, what))
}

/// Where a scenario's results stand.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let recorded = path.with_extension("").into_os_string();
    PathBuf::from([recorded, RECORDED.into()].join(std::ffi::OsStr::new("")))
}

/// Reads a scenario and the results recorded beside it.
///
/// # Errors
/// When one of the files is missing or is not what it should be.
pub fn read(path: &Path) -> Result<(Scenario, Vec<Value>), ScenarioError> {
    let scenario = read_alone(path)?;
    let recorded = beside(path);
    let results = json(&recorded)?;
    let results = results.get("results").and_then(Value::as_array);
    let results = results.ok_or_else(|| malformed(&recorded, "no \"results\"".to_owned()))?;
    if results.len() != scenario.steps.len() {
        let what = format!(
            "{} results for {} steps",
            results.len(),
            scenario.steps.len()
        );
        return Err(malformed(&recorded, what));
    }
    Ok((scenario, results.clone()))
}

pub(crate) fn malformed(path: &Path, what: String) -> ScenarioError {
    ScenarioError::Malformed {
        path: path.to_owned(),
        what,
    }
}

pub(crate) fn json(path: &Path) -> Result<Value, ScenarioError> {
    let text = std::fs::read_to_string(path).map_err(|error| ScenarioError::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    serde_json::from_str(&text).map_err(|error| ScenarioError::NotJson {
        path: path.to_owned(),
        error,
    })
}

/// A scenario from its JSON.
///
/// # Errors
/// What is wrong with it.
pub fn scenario(json: &Value) -> Result<Scenario, String> {
    let fields = json.as_object().ok_or("not an object")?;
    if let Some(key) = fields
        .keys()
        .find(|key| !OTHERS.contains(&key.as_str()) && !SETUP.contains(&key.as_str()))
    {
        return Err(format!("unknown key \"{key}\""));
    }
    let setup = SETUP.iter().filter_map(|kind| {
        let value = fields.get(*kind)?.clone();
        let kind = (*kind).to_owned();
        Some(Step { kind, value })
    });
    let steps = fields
        .get("steps")
        .and_then(Value::as_array)
        .ok_or("no \"steps\"")?;
    let numbered = steps.iter().enumerate();
    let steps = numbered
        .map(|(number, step)| self::step(step).map_err(|what| format!("step {number}: {what}")));
    let settle_ms = match fields.get("settle_ms") {
        None => 20,
        Some(value) => value
            .as_u64()
            .ok_or("\"settle_ms\" is not a number of milliseconds")?,
    };
    Ok(Scenario {
        text: json.to_string(),
        vips: texts(fields, "vips")?,
        modules: texts(fields, "modules")?,
        settle_ms,
        setup: setup.collect(),
        steps: steps.collect::<Result<_, _>>()?,
    })
}

fn step(step: &Value) -> Result<Step, String> {
    let fields = step.as_object().ok_or("not an object")?;
    let mut kinds = fields.iter().filter(|(key, _)| *key != "note");
    let Some((kind, value)) = kinds.next() else {
        let value = fields.get("note").ok_or("empty")?.clone();
        let kind = "note".to_owned();
        return Ok(Step { kind, value });
    };
    if let Some((second, _)) = kinds.next() {
        return Err(format!("both \"{kind}\" and \"{second}\""));
    }
    if !STEPS.contains(&kind.as_str()) {
        return Err(format!(
            "unknown step \"{kind}\"; accepted: {}, note",
            STEPS.join(", ")
        ));
    }
    Ok(Step {
        kind: kind.clone(),
        value: value.clone(),
    })
}

fn texts(fields: &Map<String, Value>, key: &str) -> Result<Vec<String>, String> {
    let Some(value) = fields.get(key) else {
        return Ok(Vec::new());
    };
    let texts = value.as_array().ok_or(format!("\"{key}\" is not a list"))?;
    let texts = texts.iter().map(|text| text.as_str().map(str::to_owned));
    texts
        .collect::<Option<_>>()
        .ok_or(format!("\"{key}\" is not a list of texts"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_scenario_is_told() {
        for (json, expected) in [
            (json!([]), "not an object"),
            (json!({"step": []}), "unknown key \"step\""),
            (json!({"about": "x"}), "no \"steps\""),
            (
                json!({"steps": [{"sleep": 1}, {"wait": 1}]}),
                "step 1: unknown step \"wait\"",
            ),
            (
                json!({"steps": [{"sleep": 1, "dump": "conns"}]}),
                "step 0: both \"dump\" and \"sleep\"",
            ),
            (json!({"steps": [{}]}), "step 0: empty"),
            (
                json!({"steps": [], "vips": "10.0.0.1"}),
                "\"vips\" is not a list",
            ),
        ] {
            let error = scenario(&json).unwrap_err();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }

    #[test]
    fn steps_keep_their_order_and_notes_stand_alone_or_beside() {
        let json = json!({"steps": [{"note": "a"}, {"sleep": 2, "note": "b"}], "sysctl": {"x": 1}, "settle_ms": 5});
        let scenario = scenario(&json).unwrap();
        let kinds: Vec<_> = scenario
            .steps
            .iter()
            .map(|step| step.kind.as_str())
            .collect();
        assert_eq!(kinds, ["note", "sleep"]);
        assert_eq!((scenario.setup.len(), scenario.settle_ms), (1, 5));
    }
}
