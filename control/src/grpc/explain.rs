//! `Connections.Explain`.

use super::place::Place;
use super::refusal::invalid;
use super::{connections, key, read, write};
use crate::config::Problem;
use crate::director::Director;
use crate::explain::{Explanation, Question, QuestionError, Verdict};
use proto::v1;
use std::cell::RefCell;
use std::net::SocketAddr;
use tonic::Status;

/// What would become of a packet.
pub(super) fn explain(
    director: &Director,
    request: &v1::ExplainRequest,
) -> Result<v1::ExplainResponse, Status> {
    let found = RefCell::new(Vec::new());
    let top = Place::top(&found);
    let answer = question(request, &top).and_then(|question| {
        let answer = director.explain(&question);
        answer.map_err(|error| refuse(&error, &top)).ok()
    });
    let found = found.take();
    match answer {
        Some(answer) if found.is_empty() => Ok(response(answer)),
        _ => Err(invalid(&found, ToString::to_string)),
    }
}

fn question(of: &v1::ExplainRequest, top: &Place<'_>) -> Option<Question> {
    let protocol = read::protocol(of.protocol, &top.key("protocol"))?;
    if protocol.is_none() {
        let accepted = "PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_SCTP";
        top.key("protocol").missing("a protocol", accepted);
    }
    let source = end(&of.source, of.source_port, ["source", "source_port"], top);
    let names = ["destination", "destination_port"];
    let destination = end(&of.destination, of.destination_port, names, top);
    Some(Question {
        protocol: protocol?,
        source: source?,
        destination: destination?,
        port: (!of.port.is_empty()).then(|| of.port.clone()),
    })
}

fn end(address: &str, port: u32, names: [&str; 2], top: &Place<'_>) -> Option<SocketAddr> {
    let [address_name, port_name] = names;
    let address = match address.parse() {
        Ok(address) => Some(address),
        // Also what no host may have can be asked about.
        Err(_) => read::address(address, &top.key(address_name)),
    };
    let port = u16::try_from(port)
        .ok()
        .filter(|port| *port != 0)
        .or_else(|| {
            top.key(port_name).note(Problem::NotA {
                value: port.to_string(),
                what: "a port",
                accepted: "1 to 65535".to_owned(),
            });
            None
        });
    Some(SocketAddr::new(address?, port?))
}

fn refuse(error: &QuestionError, top: &Place<'_>) {
    match error {
        QuestionError::NoPort { name, accepted } => top.key("port").note(Problem::NotA {
            value: format!("{name:?}"),
            what: "the name of a port",
            accepted: accepted.clone(),
        }),
        QuestionError::Families {
            source_address,
            destination,
        } => top.key("destination").note(Problem::NotA {
            value: destination.to_string(),
            what: "of the source's family",
            accepted: format!(
                "an {} address, as {source_address} is one",
                if source_address.is_ipv4() {
                    "IPv4"
                } else {
                    "IPv6"
                }
            ),
        }),
    }
}

fn response(of: Explanation) -> v1::ExplainResponse {
    let (verdict, reason) = match of.verdict {
        Verdict::Forwarded => (v1::Verdict::Forwarded, String::new()),
        Verdict::Left => (v1::Verdict::Left, String::new()),
        Verdict::Dropped(reason) => (v1::Verdict::Dropped, reason.name().to_owned()),
    };
    let server = of.server;
    let way = of.way;
    v1::ExplainResponse {
        steps: of.steps,
        verdict: verdict.into(),
        reason,
        service: of.service.as_ref().map(key),
        template: of.template.as_ref().map(connections::connection),
        worker: of.connection.as_ref().map(|view| view.owner.into()),
        connection: of.connection.as_ref().map(connections::connection),
        server: server.map_or(String::new(), |end| end.ip().to_string()),
        server_port: server.map_or(0, |end| end.port().into()),
        method: of
            .method
            .map_or(v1::Method::Unspecified, write::method)
            .into(),
        next_hop: way
            .as_ref()
            .map_or(String::new(), |way| way.next_hop.to_string()),
        next_hop_mac: way
            .as_ref()
            .and_then(|way| way.mac)
            .map_or(String::new(), |mac| mac.to_string()),
        out_port: way.map_or(String::new(), |way| way.port),
    }
}
