//! The service `uvs.v1.Capture`.

use super::place::Place;
use super::read;
use super::refusal::invalid;
use crate::capture::Captured;
use crate::config::{Prefix, Problem};
use crate::director::Director;
use dataplane::capture::{Dropped, Filter, LARGEST_SNAP, Wanted};
use dataplane::mark::Network;
use dataplane::port::PortId;
use dataplane::reason::Reason;
use proto::v1;
use proto::v1::capture_server as server;
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Bytes of a message, about; it ends with a packet.
const MESSAGE_LEN: usize = 256 << 10;
/// Messages that wait for a reader.
const MESSAGES: usize = 4;
/// Between two looks at what the workers have told.
const PAUSE: Duration = Duration::from_millis(2);
/// Packets of a capture, where the caller does not say.
const PACKETS: u64 = 1_000_000;
/// The longest capture.
const DURATION_MAX: Duration = Duration::from_secs(3600);
/// The largest snap length that may be asked for, as with tcpdump.
const SNAP_LEN_MAX: u32 = 262_144;

/// What the caller gets.
type Packets = Pin<Box<dyn Stream<Item = Result<v1::CapturePacketsResponse, Status>> + Send>>;

/// Answers for one director.
#[derive(Clone)]
pub struct CaptureService {
    director: Arc<Director>,
}

impl CaptureService {
    /// The service of `director`, to be handed to a tonic server.
    #[must_use]
    pub fn server(director: Arc<Director>) -> server::CaptureServer<CaptureService> {
        server::CaptureServer::new(CaptureService { director })
    }
}

#[tonic::async_trait]
impl server::Capture for CaptureService {
    type CapturePacketsStream = Packets;

    async fn capture_packets(
        &self,
        request: Request<v1::CapturePacketsRequest>,
    ) -> Result<Response<Packets>, Status> {
        let request = request.into_inner();
        let found = RefCell::new(Vec::new());
        let asked = asked(&request, &Place::top(&found), &self.director);
        let found = found.take();
        let asked = match asked {
            Some(asked) if found.is_empty() => asked,
            _ => return Err(invalid(&found, ToString::to_string)),
        };
        let Some(captured) = self.director.capture(asked.wanted) else {
            return Err(Status::resource_exhausted(
                "somebody captures already: there is one capture at a time, try again when it has ended",
            ));
        };
        let (sender, receiver) = mpsc::channel(MESSAGES);
        tokio::task::spawn_blocking(move || send(captured, &asked, &sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// A capture as it was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    wanted: Wanted,
    packets: u64,
    duration: Duration,
}

/// Sends packets until there are as many as wanted, the time is over, or the reader goes.
fn send(
    mut captured: Captured,
    asked: &Asked,
    sender: &mpsc::Sender<Result<v1::CapturePacketsResponse, Status>>,
) {
    let until = Instant::now() + asked.duration;
    let mut packets = 0;
    // The beginning of the file is there before any packet.
    let mut is_first = true;
    loop {
        let is_last = Instant::now() >= until;
        if is_last {
            captured.end();
        }
        loop {
            let count = captured.write(MESSAGE_LEN, asked.packets - packets);
            packets += count;
            if count == 0 && !is_first {
                break;
            }
            is_first = false;
            let message = v1::CapturePacketsResponse {
                pcapng: captured.take(),
                packets,
                missed: captured.missed(),
            };
            if sender.blocking_send(Ok(message)).is_err() {
                return;
            }
        }
        if is_last || packets == asked.packets || sender.is_closed() {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    captured.end();
    let last = v1::CapturePacketsResponse {
        pcapng: Vec::new(),
        packets,
        missed: captured.missed(),
    };
    // The last; whether it is read does not matter.
    let _ = sender.blocking_send(Ok(last));
}

fn asked(of: &v1::CapturePacketsRequest, top: &Place<'_>, director: &Director) -> Option<Asked> {
    let filter = match &of.filter {
        None => Some(Filter::default()),
        Some(filter) => read_filter(filter, &top.key("filter"), director),
    };
    let points = points(of.point, &top.key("point"));
    let snap_len = match of.snap_len {
        0 => Some(LARGEST_SNAP),
        len if len <= SNAP_LEN_MAX => usize::try_from(len).ok(),
        len => not_a(
            &top.key("snap_len"),
            len,
            "a number of bytes",
            "0 to 262144",
        ),
    };
    let duration = match of.duration {
        None => Some(DURATION_MAX),
        Some(span) => Duration::try_from(span)
            .ok()
            .filter(|span| !span.is_zero() && *span <= DURATION_MAX)
            .or_else(|| {
                let text = format!("{} s", span.seconds);
                not_a(
                    &top.key("duration"),
                    text,
                    "a time",
                    "more than 0, at most an hour",
                )
            }),
    };
    let [before, after] = points?;
    Some(Asked {
        wanted: Wanted {
            filter: filter?,
            before,
            after,
            snap_len: snap_len?,
        },
        packets: match of.packets {
            0 => PACKETS,
            packets => packets,
        },
        duration: duration?,
    })
}

/// Whether packets are wanted as they came, and as they leave.
fn points(value: i32, place: &Place<'_>) -> Option<[bool; 2]> {
    match v1::CapturePoint::try_from(value) {
        Ok(v1::CapturePoint::Unspecified) => Some([true, true]),
        Ok(v1::CapturePoint::Before) => Some([true, false]),
        Ok(v1::CapturePoint::After) => Some([false, true]),
        Err(_) => not_a(
            place,
            value,
            "where packets are looked at",
            "CAPTURE_POINT_BEFORE, CAPTURE_POINT_AFTER, or neither for both",
        ),
    }
}

fn read_filter(of: &v1::PacketFilter, place: &Place<'_>, director: &Director) -> Option<Filter> {
    let protocol = read::protocol(of.protocol, &place.key("protocol"));
    let host = network(&of.host, &place.key("host"));
    let other_host = network(&of.other_host, &place.key("other_host"));
    let transport_port = read::port(of.transport_port, &place.key("transport_port"));
    let port = port(&of.port, &place.key("port"), director);
    let dropped = dropped(of, &place.key("reason"));
    Some(Filter {
        protocol: protocol?.map(crate::config::Protocol::number),
        host: host?,
        other_host: other_host?,
        transport_port: transport_port.map(|port| (port != 0).then_some(port))?,
        port: port?,
        dropped: dropped?,
    })
}

/// The inner `None` for none, as in the others.
fn network(text: &str, place: &Place<'_>) -> Option<Option<Network>> {
    if text.is_empty() {
        return Some(None);
    }
    let network = match text.parse() {
        Ok(address) => Some(Network::new(address, 128)),
        Err(_) => text
            .parse()
            .ok()
            .map(|Prefix { address, len }| Network::new(address, len)),
    };
    let accepted = "an address, or one with a length, such as \"10.3.0.0/16\" or \"fd00::/64\"";
    match network {
        Some(network) => Some(Some(network)),
        None => not_a(place, format!("{text:?}"), "a network", accepted),
    }
}

fn port(name: &str, place: &Place<'_>, director: &Director) -> Option<Option<PortId>> {
    if name.is_empty() {
        return Some(None);
    }
    let mut numbered = (0u16..).map(PortId).zip(&director.ports);
    if let Some((id, _)) = numbered.find(|(_, port)| port.name == name) {
        return Some(Some(id));
    }
    let names = director.ports.iter().map(|port| port.name.as_str());
    let names = names.collect::<Vec<_>>().join(", ");
    not_a(place, format!("{name:?}"), "the name of a port", &names)
}

fn dropped(of: &v1::PacketFilter, place: &Place<'_>) -> Option<Option<Dropped>> {
    if of.reason.is_empty() {
        return Some(of.only_dropped.then_some(Dropped::All));
    }
    let mut reasons = Reason::ALL.iter();
    if let Some(reason) = reasons.find(|reason| reason.name() == of.reason) {
        return Some(Some(Dropped::For(*reason)));
    }
    let names = Reason::ALL.iter().map(|reason| reason.name());
    let names = names.collect::<Vec<_>>().join(", ");
    not_a(place, format!("{:?}", of.reason), "a reason", &names)
}

fn not_a<T>(
    place: &Place<'_>,
    value: impl ToString,
    what: &'static str,
    accepted: &str,
) -> Option<T> {
    place.note(Problem::NotA {
        value: value.to_string(),
        what,
        accepted: accepted.to_owned(),
    });
    None
}
