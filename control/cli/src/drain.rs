//! `uvs drain`: takes a server out of service while its connections end by themselves.

use crate::connect::{self, ConnectError};
use crate::endpoint;
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

/// Drains, telling how it goes on standard error if that is a terminal, and the end in `out`.
///
/// # Errors
/// When the director does not do it.
pub fn run(options: &Options, out: &mut impl Write) -> Result<(), ConnectError> {
    let shows = io::stderr().is_terminal();
    let last = connect::run(&options.connect, async |channel| {
        let mut client = ConnectionsClient::new(channel);
        let stream = client.drain(options.message()).await.map_err(Box::new)?;
        let mut stream = stream.into_inner();
        let mut last = v1::DrainResponse::default();
        while let Some(told) = stream.message().await.map_err(Box::new)? {
            if shows {
                eprint!("\r\x1b[Kdraining: {}", left(&told));
            }
            last = told;
        }
        if shows {
            eprint!("\r\x1b[K");
        }
        Ok::<_, ConnectError>(last)
    })?;
    writeln!(out, "{}", summary(&last)).map_err(ConnectError::Runtime)
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
    if told.done {
        format!(
            "drained (revision {}){ended}: {} left",
            told.revision,
            left(told)
        )
    } else {
        format!(
            "the director stopped telling: {} left, weight 0",
            left(told)
        )
    }
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
            done: false,
            persistent: 4,
            ..told
        };
        assert!(
            summary(&cut)
                .starts_with("the director stopped telling: 2 active, 1 inactive, 4 persistent")
        );
    }
}
