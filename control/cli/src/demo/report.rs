//! What the demo found, as a table or as JSON.

use super::{Measurement, WEIGHTS};
use crate::lab::Method;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// How far a server's share may be from its weight's, percentage points. The last round of a weighted round robin is
/// cut off anywhere, on each worker.
const UNFAIRNESS_MAX: f64 = 10.0;
/// Below so many served requests a share says little: each worker deals out its own flows.
const SHARES_FROM: u32 = 400;

/// All that was measured.
#[derive(Debug)]
pub struct Report {
    /// In the order of measuring.
    pub measurements: Vec<Measurement>,
    /// How many requests each measurement was to have.
    pub requests_each: u32,
    /// The user ended it early.
    pub interrupted: bool,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// Whether all requests that were sent were served, by the way and in the shares that were configured.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.interrupted
            && self
                .measurements
                .iter()
                .all(|measurement| problem(measurement).is_none())
    }

    /// All of it as one JSON object. Times in nanoseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let results = self.measurements.iter().map(|of| {
            let servers = of.served.iter().enumerate().map(|(index, served)| {
                json!({ "name": format!("server{}", index + 1), "weight": WEIGHTS[index], "served": served })
            });
            json!({
                "method": of.method.name(),
                "family": of.family.to_string(),
                "protocol": of.protocol,
                "requests": of.requests(),
                "failures": of.failures,
                "servers": servers.collect::<Vec<_>>(),
                "median_ns": nanoseconds(of.latency(50.0)),
                "p99_ns": nanoseconds(of.latency(99.0)),
                "problem": problem(of),
            })
        });
        json!({
            "passed": self.passed(),
            "interrupted": self.interrupted,
            "elapsed_ns": nanoseconds(self.elapsed),
            "results": results.collect::<Vec<_>>(),
        })
    }
}

/// What is wrong with a measurement.
fn problem(of: &Measurement) -> Option<String> {
    let served: u32 = of.served.iter().sum();
    if of.failures > 0 {
        return Some(of.samples.join("; "));
    }
    if served >= SHARES_FROM && of.unfairness() > UNFAIRNESS_MAX {
        return Some(format!(
            "the shares are {:.1} points off the weights",
            of.unfairness()
        ));
    }
    if of.method == Method::Tun && of.tunnelled < u64::from(served) {
        return Some(format!(
            "only {} packets came through a tunnel",
            of.tunnelled
        ));
    }
    None
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "mode     family  protocol  requests  failures")?;
        for server in 1..=WEIGHTS.len() {
            write!(formatter, "  server{server}")?;
        }
        writeln!(formatter, "     median        p99")?;
        for of in &self.measurements {
            write!(
                formatter,
                "{:<7}  {:<6}  {:<8}  {:>8}  {:>8}",
                of.method,
                of.family,
                of.protocol,
                of.requests(),
                of.failures
            )?;
            for server in 0..WEIGHTS.len() {
                write!(formatter, "  {:>5.1} %", of.share(server))?;
            }
            if of.failures == of.requests() {
                writeln!(formatter, "          -          -")?;
                continue;
            }
            let [median, p99] =
                [50.0, 99.0].map(|percentile| of.latency(percentile).as_secs_f64() * 1e3);
            writeln!(formatter, "  {median:>6.2} ms  {p99:>6.2} ms")?;
        }
        writeln!(formatter)?;
        for of in &self.measurements {
            if let Some(problem) = problem(of) {
                writeln!(
                    formatter,
                    "{} {} {}: {problem}",
                    of.method, of.family, of.protocol
                )?;
            }
            if of.requests() < self.requests_each && !self.interrupted {
                let left = self.requests_each - of.requests();
                writeln!(
                    formatter,
                    "{} {} {}: {left} requests not tried",
                    of.method, of.family, of.protocol
                )?;
            }
        }
        let requests: u32 = self.measurements.iter().map(Measurement::requests).sum();
        let failures: u32 = self.measurements.iter().map(|of| of.failures).sum();
        let seconds = self.elapsed.as_secs_f64();
        let end = if self.interrupted {
            "; interrupted"
        } else {
            ""
        };
        writeln!(
            formatter,
            "{requests} requests, {failures} failures, {seconds:.1} s{end}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{Failure, Protocol};
    use crate::lab::Family;

    fn report(served: [u32; WEIGHTS.len()], failures: u32) -> Report {
        let mut measurement = Measurement::new(Method::FullNat, Family::V6, Protocol::Udp);
        for (server, count) in served.into_iter().enumerate() {
            for _ in 0..count {
                measurement.add(Ok((server, Duration::from_micros(1500))));
            }
        }
        for _ in 0..failures {
            measurement.add(Err(Failure::Server("nobody".to_owned())));
        }
        let requests_each = measurement.requests();
        let elapsed = Duration::from_secs(2);
        Report {
            measurements: vec![measurement],
            requests_each,
            interrupted: false,
            elapsed,
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_measurement() {
        assert_eq!(
            report([50, 33, 17], 0).to_string(),
            "mode     family  protocol  requests  failures  server1  server2  server3     median        p99\n\
             fullnat  IPv6    udp            100         0   50.0 %   33.0 %   17.0 %    1.50 ms    1.50 ms\n\
             \n\
             100 requests, 0 failures, 2.0 s\n"
        );
    }

    #[test]
    fn one_failure_fails_the_demo_and_is_told() {
        let report = report([50, 33, 17], 1);
        assert!(!report.passed());
        assert!(
            report
                .to_string()
                .contains("fullnat IPv6 udp: a server named \"nobody\" answered\n")
        );
        assert_eq!(report.json()["results"][0]["failures"], 1);
    }

    #[test]
    fn a_tunnel_that_was_not_used_fails_the_demo() {
        let mut report = report([50, 33, 17], 0);
        report.measurements[0].method = Method::Tun;
        report.measurements[0].tunnelled = 99;
        assert!(!report.passed());
        report.measurements[0].tunnelled = 100;
        assert!(report.passed());
    }

    #[test]
    fn shares_far_from_the_weights_fail_the_demo() {
        assert!(report([500, 333, 167], 0).passed());
        assert!(!report([1000, 0, 0], 0).passed());
        assert!(report([10, 0, 0], 0).passed(), "too few to tell");
    }
}
