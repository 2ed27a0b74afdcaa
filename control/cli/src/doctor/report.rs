//! What was found, as a table and as JSON.

use serde_json::json;
use std::fmt;

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Neither good nor bad: to know.
    Note,
    /// Works, but worse than it could.
    Warning,
    /// Keeps the director from working.
    Failure,
}

impl Verdict {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Warning => "warning",
            Verdict::Failure => "failure",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, such as "huge pages".
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub finding: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// All findings, in the order of the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn ok(&mut self, check: &str, finding: impl Into<String>) {
        self.add(check, Verdict::Ok, finding.into(), None);
    }

    pub(super) fn note(&mut self, check: &str, finding: impl Into<String>) {
        self.add(check, Verdict::Note, finding.into(), None);
    }

    pub(super) fn warn(&mut self, check: &str, finding: impl Into<String>, advice: &str) {
        self.add(check, Verdict::Warning, finding.into(), Some(advice));
    }

    pub(super) fn fail(&mut self, check: &str, finding: impl Into<String>, advice: &str) {
        self.add(check, Verdict::Failure, finding.into(), Some(advice));
    }

    fn add(&mut self, check: &str, verdict: Verdict, finding: String, advice: Option<&str>) {
        self.findings.push(Finding {
            check: check.to_owned(),
            verdict,
            finding,
            advice: advice.map(str::to_owned),
        });
    }

    fn count(&self, verdict: Verdict) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding.verdict == verdict)
            .count()
    }

    /// Nothing keeps the director from working.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.count(Verdict::Failure) == 0
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let finding = |finding: &Finding| {
            json!({
                "check": finding.check,
                "verdict": finding.verdict.word(),
                "finding": finding.finding,
                "advice": finding.advice,
            })
        };
        json!({
            "passed": self.passed(),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks = self.findings.iter().map(|finding| finding.check.len());
        let width = checks.max().unwrap_or(0);
        for finding in &self.findings {
            let (verdict, check) = (finding.verdict.word(), &finding.check);
            let mut lines = finding.finding.lines();
            let first = lines.next().unwrap_or("");
            writeln!(formatter, "{verdict:<8} {check:<width$}  {first}")?;
            for line in lines.chain(finding.advice.as_deref()) {
                writeln!(formatter, "{:<8} {:<width$}    {line}", "", "")?;
            }
        }
        writeln!(
            formatter,
            "{} failures, {} warnings",
            self.count(Verdict::Failure),
            self.count(Verdict::Warning)
        )
    }
}
