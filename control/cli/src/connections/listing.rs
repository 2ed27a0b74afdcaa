//! Connections as a table, or as JSON, while they come.

use crate::endpoint::joined;
use proto::v1::{Connection, Method, Protocol};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The narrowest column of addresses: that of IPv4.
const NARROW: usize = 21;

/// What was written so far.
pub(super) struct Listing {
    json: bool,
    /// Of columns of addresses; 0 before the head was written.
    width: usize,
    is_empty: bool,
}

impl Listing {
    pub(super) fn new(json: bool) -> Listing {
        Listing {
            json,
            width: 0,
            is_empty: true,
        }
    }

    /// The text of some more connections.
    pub(super) fn part(&mut self, connections: &[Connection]) -> String {
        let mut text = String::new();
        if !self.json && self.width == 0 {
            self.head(&mut text, connections);
        }
        for connection in connections {
            // Writing to a String cannot fail.
            let _ = match self.json {
                true => write!(
                    text,
                    "{}{}",
                    if self.is_empty { "[\n" } else { ",\n" },
                    object(connection)
                ),
                false => self.row(&mut text, connection),
            };
            self.is_empty = false;
        }
        text
    }

    /// The text after the last.
    pub(super) fn end(&mut self) -> String {
        match (self.json, self.is_empty) {
            (true, true) => "[]\n".to_owned(),
            (true, false) => "\n]\n".to_owned(),
            (false, _) if self.width == 0 => self.part(&[]),
            (false, _) => String::new(),
        }
    }

    /// The columns are as wide as the first connections need.
    fn head(&mut self, text: &mut String, connections: &[Connection]) {
        let lens = connections
            .iter()
            .flat_map(|one| [client(one), virtual_end(one), server(one)].map(|end| end.len()));
        self.width = lens.max().unwrap_or(0).max(NARROW);
        let width = self.width;
        let _ = writeln!(
            text,
            "{:<5}{:>8}  {:<12}{:<width$}  {:<width$}  {:<width$}  {:<8}Worker",
            "Pro", "Expire", "State", "Client", "Virtual", "Server", "Method"
        );
    }

    fn row(&self, text: &mut String, one: &Connection) -> std::fmt::Result {
        let width = self.width;
        let seconds = one.expires_ms / 1000;
        let expire = format!("{:02}:{:02}", seconds / 60, seconds % 60);
        write!(
            text,
            "{:<5}{expire:>8}  {:<12}{:<width$}  {:<width$}  {:<width$}  {:<8}{}",
            protocol(one),
            one.state,
            client(one),
            virtual_end(one),
            server(one),
            method(one.method()),
            one.worker,
        )?;
        if !one.local.is_empty() {
            write!(text, "  by {}", joined(&one.local, one.local_port))?;
        }
        if !one.engine.is_empty() {
            write!(text, "  {} {}", one.engine, one.engine_data)?;
        }
        if !one.has_service {
            text.push_str("  no service");
        }
        writeln!(text)
    }
}

fn protocol(one: &Connection) -> &'static str {
    match one.protocol() {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        // A template of a mark is for all of them.
        Protocol::Unspecified => "IP",
    }
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Nat => "Masq",
        Method::Dr => "Route",
        Method::Tun => "Tunnel",
        Method::Fullnat => "FullNat",
        Method::Unspecified => "?",
    }
}

fn client(one: &Connection) -> String {
    joined(&one.client, one.client_port)
}

fn virtual_end(one: &Connection) -> String {
    joined(&one.r#virtual, one.virtual_port)
}

fn server(one: &Connection) -> String {
    joined(&one.server, one.server_port)
}

fn object(one: &Connection) -> Value {
    json!({
        "protocol": protocol(one).to_lowercase(),
        "client": client(one),
        "virtual": virtual_end(one),
        "server": server(one),
        "local": (!one.local.is_empty()).then(|| joined(&one.local, one.local_port)),
        "method": match one.method() {
            Method::Nat => "nat",
            Method::Dr => "dr",
            Method::Tun => "tun",
            Method::Fullnat => "fullnat",
            Method::Unspecified => "",
        },
        "state": one.state,
        "expires_ms": one.expires_ms,
        "template": one.template,
        "worker": one.worker,
        "has_service": one.has_service,
        "mark": (one.mark != 0).then_some(one.mark),
        "engine": (!one.engine.is_empty()).then_some(&one.engine),
        "engine_data": (!one.engine.is_empty()).then_some(&one.engine_data),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]
mod tests {
    use super::*;

    fn connection(client: &str) -> Connection {
        Connection {
            protocol: Protocol::Tcp.into(),
            client: client.to_owned(),
            client_port: 40_001,
            r#virtual: "10.0.0.100".to_owned(),
            virtual_port: 80,
            server: "10.2.0.11".to_owned(),
            server_port: 8080,
            method: Method::Fullnat.into(),
            state: "ESTABLISHED".to_owned(),
            expires_ms: 899_500,
            local: "10.2.0.1".to_owned(),
            local_port: 1024,
            worker: 1,
            has_service: true,
            ..Connection::default()
        }
    }

    #[test]
    fn a_table_has_its_columns_under_each_other() {
        let mut listing = Listing::new(false);
        let text = listing.part(&[connection("10.64.0.7"), connection("fd00:64::7:8:9:a")]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "TCP     14:59  ESTABLISHED 10.64.0.7:40001           10.0.0.100:80             10.2.0.11:8080            FullNat 1  by 10.2.0.1:1024"
        );
        for (head, value) in [
            ("Virtual", "10.0.0.100:80"),
            ("Server", "10.2.0.11:8080"),
            ("Worker", "1  by"),
        ] {
            for line in &lines[1..] {
                assert_eq!(lines[0].find(head), line.find(value), "{text}");
            }
        }
        assert_eq!(listing.part(&[connection("10.64.0.7")]).lines().count(), 1);
    }

    #[test]
    fn json_is_one_array_however_it_comes() {
        let mut listing = Listing::new(true);
        let mut text = listing.part(&[connection("10.64.0.7")]);
        text += &listing.part(&[connection("10.64.0.8")]);
        text += &listing.end();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read[1]["client"], "10.64.0.8:40001");
        assert_eq!(
            (&read[0]["method"], &read[0]["expires_ms"]),
            (&json!("fullnat"), &json!(899_500))
        );
        assert_eq!(Listing::new(true).end(), "[]\n");
        assert!(Listing::new(false).end().starts_with("Pro"));
    }
}
