//! `uvs drain`: takes a server out of service while its connections end by themselves.

use crate::connect::{self, ConnectError};
use crate::endpoint;
use crate::json;
use crate::output::{self, OutputError};
use crate::stop::Stop;
use proto::v1;
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
    /// As JSON: an object on a line for each time that something is told, the last with "done".
    #[arg(long)]
    pub json: bool,
}

/// Why it did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The director.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The director went.
    #[error(
        "the director stopped telling: {0} left; the server keeps weight 0, and nothing is ended at a deadline: drain again"
    )]
    Cut(String),
    /// The user has seen enough.
    #[error(
        "interrupted: {0} left; the server keeps weight 0, and nothing is ended at a deadline: drain again"
    )]
    Interrupted(String),
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

/// Drains, telling how it goes on standard error if that is a terminal, and the end in `out`; as JSON all of it there.
///
/// # Errors
/// When the director does not do it.
pub fn run(options: &Options, out: &mut impl Write) -> Result<(), DrainError> {
    let shows = !options.json && io::stderr().is_terminal();
    let last = connect::run(&options.connect, async |channel| {
        let mut client = connect::connections(channel);
        let refused = |status| connect::refused(&options.connect, status);
        let stream = client.drain(options.message()).await.map_err(refused)?;
        let mut stream = stream.into_inner();
        let mut stop = Stop::new().map_err(ConnectError::Runtime)?;
        let mut last = v1::DrainResponse::default();
        loop {
            let message = tokio::select! {
                message = stream.message() => Some(message),
                () = stop.wanted() => None,
            };
            if shows {
                eprint!("\r\x1b[K");
            }
            let Some(message) = message else {
                return Err(DrainError::Interrupted(left(&last)));
            };
            let told = match message {
                Ok(Some(told)) => told,
                Ok(None) => return Ok(last),
                // It was there before: what holds is worth more than the socket's name.
                Err(status) if connect::broken(&status).is_some() => return Ok(last),
                Err(status) => return Err(DrainError::Connect(refused(status))),
            };
            if shows && !told.done {
                eprint!("draining: {}", left(&told));
            }
            if options.json {
                output::tell(out, &format!("{}\n", json::of("DrainResponse", &told)))?;
            }
            last = told;
        }
    })?;
    if !last.done {
        return Err(DrainError::Cut(left(&last)));
    }
    if !options.json {
        output::tell(out, &format!("{}\n", summary(&last)))?;
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
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_in_a_line() {
        let told = v1::DrainResponse {
            active: 2,
            inactive: 1,
            done: true,
            ended: 3,
            revision: 7,
            ..v1::DrainResponse::default()
        };
        assert_eq!(
            summary(&told),
            "drained (revision 7), 3 ended at the deadline: 2 active, 1 inactive left"
        );
        let cut = v1::DrainResponse {
            persistent: 4,
            ..told
        };
        assert_eq!(left(&cut), "2 active, 1 inactive, 4 persistent");
    }
}
