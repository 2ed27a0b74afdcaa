//! `uvs explain`: what a running director would do with a packet, and why.

use crate::connect::{self, ConnectError, ask};
use crate::endpoint;
use proto::v1;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::SocketAddr;

/// Which packet.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// tcp, udp or sctp.
    #[arg(value_name = "PROTOCOL")]
    protocol: Protocol,
    /// Who sends it, such as 10.0.0.9:40000 or [fd00::9]:40000.
    #[arg(value_name = "SOURCE", value_parser = endpoint::packet_end)]
    source: SocketAddr,
    /// To whom, such as 10.0.0.100:80.
    #[arg(value_name = "DESTINATION", value_parser = endpoint::packet_end)]
    destination: SocketAddr,
    /// The director's port (NIC) that it comes in by; otherwise the one where the way to its sender leads.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    port: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: connect::Options,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// The answer as text.
///
/// # Errors
/// When the director does not answer.
pub fn run(options: &Options) -> Result<String, ConnectError> {
    let protocol = match options.protocol {
        Protocol::Tcp => v1::Protocol::Tcp,
        Protocol::Udp => v1::Protocol::Udp,
        Protocol::Sctp => v1::Protocol::Sctp,
    };
    let request = v1::ExplainRequest {
        protocol: protocol.into(),
        source: options.source.ip().to_string(),
        source_port: options.source.port().into(),
        destination: options.destination.ip().to_string(),
        destination_port: options.destination.port().into(),
        port: options.port.clone(),
    };
    let answer = ask(&options.connect, async |channel| {
        connect::connections(channel).explain(request).await
    })?;
    Ok(if options.json {
        format!("{:#}\n", as_json(&answer))
    } else {
        text(&answer)
    })
}

fn text(answer: &v1::ExplainResponse) -> String {
    let mut text = String::new();
    for (number, step) in (1..).zip(&answer.steps) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{number:>2}. {step}");
    }
    let server = match (answer.server.is_empty(), answer.verdict()) {
        (false, _) => format!(", server {}", end(&answer.server, answer.server_port)),
        (true, v1::Verdict::Forwarded) => ", to one of several servers (see above)".to_owned(),
        (true, _) => String::new(),
    };
    let reason = match answer.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    let _ = writeln!(text, "=> {}{reason}{server}", verdict(answer.verdict()));
    text
}

fn verdict(verdict: v1::Verdict) -> &'static str {
    match verdict {
        v1::Verdict::Forwarded => "forwarded",
        v1::Verdict::Replied => "answered",
        v1::Verdict::Left => "left to the kernel",
        v1::Verdict::Dropped => "dropped",
        v1::Verdict::Unspecified => "unknown",
    }
}

fn end(address: &str, port: u32) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

fn as_json(answer: &v1::ExplainResponse) -> Value {
    let method = match answer.method() {
        v1::Method::Unspecified => Value::Null,
        method => json!(
            method
                .as_str_name()
                .trim_start_matches("METHOD_")
                .to_lowercase()
        ),
    };
    let text = |text: &str| match text {
        "" => Value::Null,
        text => json!(text),
    };
    let server = match answer.server.as_str() {
        "" => Value::Null,
        server => json!(end(server, answer.server_port)),
    };
    json!({
        "steps": answer.steps,
        "verdict": verdict(answer.verdict()),
        "reason": text(&answer.reason),
        "service": answer.service.as_ref().map(service),
        "template": answer.template.as_ref().map(connection),
        "connection": answer.connection.as_ref().map(connection),
        "server": server,
        "method": method,
        "out_port": text(&answer.out_port),
        "next_hop": text(&answer.next_hop),
        "next_hop_mac": text(&answer.next_hop_mac),
        "worker": answer.worker,
    })
}

pub(crate) fn service(key: &v1::ServiceKey) -> String {
    if key.mark != 0 {
        let family = if key.mark_ipv6 { " ipv6" } else { "" };
        return format!("mark {}{family}", key.mark);
    }
    let protocol = key.protocol().as_str_name();
    let protocol = protocol.trim_start_matches("PROTOCOL_").to_lowercase();
    format!("{protocol} {}", end(&key.address, key.port))
}

fn connection(of: &v1::Connection) -> Value {
    json!({
        "client": end(&of.client, of.client_port),
        "virtual": end(&of.r#virtual, of.virtual_port),
        "server": end(&of.server, of.server_port),
        "state": of.state,
        "expires_ms": of.expires_ms,
        "worker": of.worker,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> v1::ExplainResponse {
        v1::ExplainResponse {
            steps: vec!["It comes.".to_owned(), "It goes.".to_owned()],
            verdict: v1::Verdict::Forwarded.into(),
            service: Some(v1::ServiceKey {
                protocol: v1::Protocol::Tcp.into(),
                address: "fd00::100".to_owned(),
                port: 80,
                ..v1::ServiceKey::default()
            }),
            server: "fd00::1".to_owned(),
            server_port: 8080,
            method: v1::Method::Nat.into(),
            ..v1::ExplainResponse::default()
        }
    }

    #[test]
    fn steps_are_numbered_and_the_outcome_comes_last() {
        assert_eq!(
            text(&answer()),
            " 1. It comes.\n 2. It goes.\n=> forwarded, server [fd00::1]:8080\n"
        );
        let dropped = v1::ExplainResponse {
            verdict: v1::Verdict::Dropped.into(),
            reason: "no-server".to_owned(),
            ..v1::ExplainResponse::default()
        };
        assert_eq!(text(&dropped), "=> dropped (no-server)\n");
        let open = v1::ExplainResponse {
            verdict: v1::Verdict::Forwarded.into(),
            ..v1::ExplainResponse::default()
        };
        assert_eq!(
            text(&open),
            "=> forwarded, to one of several servers (see above)\n"
        );
    }

    #[test]
    fn json_says_what_is_known_and_null_elsewhere() {
        let told = as_json(&answer());
        assert_eq!(told["service"], "tcp [fd00::100]:80");
        assert_eq!(told["method"], "nat");
        assert_eq!(told["server"], "[fd00::1]:8080");
        assert!(told["reason"].is_null() && told["connection"].is_null());
    }
}
