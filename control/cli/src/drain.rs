//! `uvs drain`: takes a server out of service while its connections end by themselves.

use crate::connect::{self, ConnectError};
use crate::{endpoint, json};
use proto::v1;
use proto::v1::connections_client::ConnectionsClient;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::time::Duration;

/// Which server, and how long.
#[derive(Clone, Debug, clap::Args)]
// Two groups of one name would clash: that of where the director listens is the other.
#[group(skip)]
pub struct Options {
    /// Where the director listens.
    #[command(flatten)]
    pub connect: connect::Options,
    /// The service, such as 10.0.0.100:80 (TCP), udp:10.0.0.100:53, mark:7.
    #[arg(value_name = "SERVICE", value_parser = endpoint::service)]
    pub service: v1::ServiceKey,
    /// Its server, such as 10.0.0.11:80; without a port, that of the service.
    #[arg(value_name = "SERVER", value_parser = endpoint::server)]
    pub server: (IpAddr, u16),
    /// How long connections may still take (60s, 5m, 1h); without it, as long as they like.
    #[arg(long, value_name = "TIME", value_parser = endpoint::span)]
    pub deadline: Option<Duration>,
    /// What becomes of those that are left then.
    #[arg(long, value_enum, default_value_t = Then::Keep)]
    pub then: Then,
    /// Tell how it goes on as JSON on standard output, an object a line, about once a second; `done` is true in the last.
    #[arg(long)]
    pub json: bool,
}

/// Why a server is not drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The director cannot be reached, or does not do it.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It ended before the drain did.
    #[error(
        "the director stopped telling: {} left; the server keeps weight 0, and nothing is ended at a deadline: drain again", left(.0)
    )]
    Stopped(v1::DrainResponse),
    /// Nobody reads what there is to tell.
    #[error(
        "what is to be told cannot be written: {0}; the server keeps weight 0, and nothing is ended at a deadline: drain again"
    )]
    Output(#[from] io::Error),
}

/// What becomes of connections that outlive the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Then {
    /// They go on.
    Keep,
    /// The next packet of each resets both ends (TCP); others are forgotten.
    Reset,
    /// They are forgotten: what clients send next is scheduled anew, if it may begin a connection.
    Reschedule,
}

impl Options {
    fn message(&self) -> v1::DrainRequest {
        let (address, port) = self.server;
        let end = match (self.deadline, self.then) {
            (None, Then::Keep) => v1::DrainEnd::Unspecified,
            (_, Then::Keep) => v1::DrainEnd::Keep,
            (_, Then::Reset) => v1::DrainEnd::Reset,
            (_, Then::Reschedule) => v1::DrainEnd::Reschedule,
        };
        v1::DrainRequest {
            service: Some(self.service.clone()),
            address: address.to_string(),
            port: port.into(),
            deadline: self.deadline.map(|deadline| {
                prost_types::Duration::try_from(deadline).expect("not longer than there is")
            }),
            at_deadline: end.into(),
            interval: None,
        }
    }
}

/// Drains, telling in `out` how it goes on as JSON, or the end alone; then how it goes on is told on standard error, if that
/// is a terminal.
///
/// # Errors
/// When the director does not do it or ends meanwhile, and when `out` takes no more.
pub fn run(options: &Options, out: &mut impl Write) -> Result<(), DrainError> {
    let shows = !options.json && io::stderr().is_terminal();
    connect::run(&options.connect, async |channel| {
        let mut client = ConnectionsClient::new(channel);
        let stream = client.drain(options.message()).await.map_err(refused)?;
        let mut stream = stream.into_inner();
        let mut last = v1::DrainResponse::default();
        while let Some(told) = stream.message().await.map_err(refused)? {
            if options.json {
                line(&told, out)?;
            } else if shows {
                eprint!("\r\x1b[Kdraining: {}", left(&told));
            }
            last = told;
        }
        if shows {
            eprint!("\r\x1b[K");
        }
        end(last, options.json, out)
    })
}

fn refused(status: tonic::Status) -> ConnectError {
    ConnectError::Refused(Box::new(status))
}

/// An object of its own, which whoever reads gets at once.
fn line(told: &v1::DrainResponse, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", json::of("DrainResponse", told))?;
    out.flush()
}

/// What is told after the last message.
fn end(last: v1::DrainResponse, json: bool, out: &mut impl Write) -> Result<(), DrainError> {
    if !last.done {
        return Err(DrainError::Stopped(last));
    }
    if !json {
        writeln!(out, "{}", summary(&last))?;
    }
    Ok(())
}

/// What a server still has, in words.
pub(crate) fn left(told: &v1::DrainResponse) -> String {
    let mut text = format!("{} active, {} inactive", told.active, told.inactive);
    if told.persistent > 0 {
        text += &format!(", {} persistent", told.persistent);
    }
    text
}

fn summary(told: &v1::DrainResponse) -> String {
    let ended = match told.ended {
        0 => String::new(),
        ended => format!(", {ended} ended at the deadline"),
    };
    format!(
        "drained (revision {}){ended}: {} left",
        told.revision,
        left(told)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const TOLD: v1::DrainResponse = v1::DrainResponse {
        active: 2,
        inactive: 1,
        persistent: 0,
        done: true,
        ended: 3,
        revision: 7,
    };

    #[test]
    fn the_end_is_told_in_a_line() {
        let mut out = Vec::new();
        end(TOLD, false, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "drained (revision 7), 3 ended at the deadline: 2 active, 1 inactive left\n"
        );
    }

    #[test]
    fn a_director_that_ends_first_is_a_failure_in_either_form() {
        let cut = v1::DrainResponse {
            done: false,
            persistent: 4,
            ..TOLD
        };
        for json in [false, true] {
            let mut out = Vec::new();
            let error = end(cut, json, &mut out).unwrap_err().to_string();
            let begins = "the director stopped telling: 2 active, 1 inactive, 4 persistent left; ";
            assert!(error.starts_with(begins), "{error}");
            assert_eq!(out, b"");
        }
    }

    #[test]
    fn each_message_is_an_object_in_a_line_of_its_own() {
        let mut out = Vec::new();
        let first = v1::DrainResponse {
            done: false,
            ended: 0,
            ..TOLD
        };
        line(&first, &mut out).unwrap();
        line(&TOLD, &mut out).unwrap();
        end(TOLD, true, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let told: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let object = |ended: u64, done: bool| json!({"active": 2, "inactive": 1, "persistent": 0, "done": done, "ended": ended, "revision": 7});
        assert_eq!(told, [object(0, false), object(3, true)]);
    }

    #[test]
    fn whoever_reads_no_more_is_no_success() {
        // A pipe whose reader is gone.
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        let error = line(&TOLD, &mut writer).map_err(DrainError::from);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("cannot be written: Broken pipe"), "{error}");
        assert!(error.contains("keeps weight 0"), "{error}");
    }
}
