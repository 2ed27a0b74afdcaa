//! `uvs capture`: the packets of a running director, into a pcapng file or a line for each.

mod line;
mod words;

pub use words::WordError;

use crate::connect::{self, ConnectError};
use crate::stop::Stop;
use line::Lines;
use proto::v1;
use proto::v1::capture_client::CaptureClient;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Which packets, and where to.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Write them to a pcapng file; "-": to standard output, such as into `tcpdump -r -`. Otherwise a line is printed for each.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Only packets as they come.
    #[arg(long, conflicts_with = "after")]
    before: bool,
    /// Only packets as they leave.
    #[arg(long)]
    after: bool,
    /// End after so many packets.
    #[arg(short, long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time, such as 10s, 5m or 1h, at most an hour.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// Keep no more of each packet than its first bytes.
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "0",
        hide_default_value = true
    )]
    snap_len: u32,
    /// Which packets: tcp, udp or sctp; host ADDRESS (or 10.3.0.0/16; twice: both ends); port NUMBER; on NAME (the director's
    /// port); dropped, or dropped REASON.
    #[arg(long, value_name = "WORDS", num_args = 1..)]
    filter: Vec<String>,
    /// Print a JSON object for each packet, on a line of its own.
    #[arg(long, conflicts_with = "write")]
    json: bool,
    #[command(flatten)]
    connect: connect::Options,
}

/// Why a capture ends badly.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The filter.
    #[error(transparent)]
    Words(#[from] WordError),
    /// There is no director.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It cannot be written.
    #[error("{}: {error}; accepted: a file that can be written, or - (--write)", .path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// What came is no capture.
    #[error("the director's capture cannot be read: {0}")]
    Unreadable(String),
}

/// Captures until it is over, or the user has enough. Returns a sentence about it.
///
/// # Errors
/// When there is no director, it refuses, or the packets cannot be written.
pub fn run(options: &Options) -> Result<String, CaptureError> {
    let point = match (options.before, options.after) {
        (true, _) => v1::CapturePoint::Before,
        (_, true) => v1::CapturePoint::After,
        _ => v1::CapturePoint::Unspecified,
    };
    let request = v1::CapturePacketsRequest {
        filter: Some(words::filter(&options.filter)?),
        point: point.into(),
        snap_len: options.snap_len,
        packets: options.count.unwrap_or(0),
        duration: options.duration.map(|span| {
            // It is bounded.
            span.try_into().unwrap_or_default()
        }),
    };
    connect::run(&options.connect, async |channel| {
        let mut stop = Stop::new().map_err(ConnectError::Runtime)?;
        let refused = |status| connect::refused(&options.connect, status);
        let asked = CaptureClient::new(channel).capture_packets(request).await;
        let mut stream = asked.map_err(refused)?.into_inner();
        // Only now: where nobody captures, no file is overwritten.
        let mut sink = Sink::open(options)?;
        let (mut packets, mut missed) = (0, 0);
        loop {
            let message = tokio::select! {
                () = stop.wanted() => break,
                // What was captured before stays.
                message = stream.message() => message.map_err(|status| ConnectError::Refused(Box::new(status)))?,
            };
            let Some(message) = message else {
                break;
            };
            (packets, missed) = (message.packets, message.missed);
            if !sink.take(&message.pcapng)? {
                break;
            }
        }
        Ok(format!(
            "{packets} packets, {missed} missed for want of room"
        ))
    })
}

/// Where packets go.
enum Sink {
    File(PathBuf, Box<dyn Write>),
    Lines(Lines),
}

impl Sink {
    fn open(options: &Options) -> Result<Sink, CaptureError> {
        let Some(path) = &options.write else {
            return Ok(Sink::Lines(Lines::new(options.json)));
        };
        if path.as_os_str() == "-" {
            return Ok(Sink::File(path.clone(), Box::new(io::stdout())));
        }
        match File::create(path) {
            Ok(file) => Ok(Sink::File(path.clone(), Box::new(file))),
            Err(error) => Err(CaptureError::Write {
                path: path.clone(),
                error,
            }),
        }
    }

    /// False where nobody reads any more.
    fn take(&mut self, blocks: &[u8]) -> Result<bool, CaptureError> {
        let (path, written) = match self {
            Sink::File(path, file) => {
                let written = file.write_all(blocks).and_then(|()| file.flush());
                (path.clone(), written)
            }
            Sink::Lines(lines) => {
                let text = match blocks {
                    [] => String::new(),
                    blocks => lines
                        .of(blocks)
                        .map_err(|error| CaptureError::Unreadable(error.to_string()))?,
                };
                let mut out = io::stdout().lock();
                let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                (PathBuf::from("-"), written)
            }
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(CaptureError::Write { path, error }),
        }
    }
}

/// A number of seconds, minutes or hours.
fn time(text: &str) -> Result<Duration, String> {
    let (number, seconds) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => (text, 1),
    };
    let count = number.parse::<u64>().ok();
    let span = count.and_then(|count| count.checked_mul(seconds));
    match span {
        Some(span @ 1..=3600) => Ok(Duration::from_secs(span)),
        _ => Err("not a time; accepted: 1s to 1h, such as 10s or 5m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_minutes_or_an_hour() {
        for (text, seconds) in [("10", 10), ("10s", 10), ("5m", 300), ("1h", 3600)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "0", "s", "2h", "3601", "-1s", "1d", "1.5s", "10 s"] {
            assert!(time(text).is_err(), "{text:?}");
        }
    }
}
