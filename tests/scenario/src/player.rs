//! Plays the steps of a scenario, and records what happens in the form of the recordings.

use crate::bench::Bench;
use crate::build::{BuildError, Builder};
use crate::command::Console;
use crate::describe::{describe, hex};
use crate::endpoint::Endpoint;
use crate::proc;
use crate::scenario::{Scenario, Step};
use crate::tables;
use crate::topology::{self, Side, mac_of};
use control::StartError;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::IpAddr;

/// The kernel sums its counters up every two seconds; a recording of them waits that long.
const STATISTICS_MS: u64 = 2200;

/// Why a scenario cannot be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// There is no director.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A packet cannot be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A step whose value makes no sense.
    #[error("a step \"{kind}\" with {value}")]
    Step {
        /// Its kind.
        kind: &'static str,
        /// Its value, as JSON.
        value: String,
    },
}

/// See the module's text.
pub struct Player {
    bench: Bench,
    console: Console,
    builder: Builder,
    settle_ms: u64,
    /// Who has a hardware address.
    holders: HashMap<String, String>,
    /// The first packet of connections that were opened, and who answers.
    open: HashMap<u64, (Value, Option<Answer>)>,
    /// What came out between two injections.
    early: Vec<(Side, Vec<u8>)>,
}

/// The two ends of what a server answers a client's packet with.
#[derive(Clone)]
struct Answer {
    server: String,
    /// Whom the server takes for the client.
    to: Value,
}

impl Player {
    /// Ready to play.
    ///
    /// # Errors
    /// When there is no director, or what comes before the steps cannot be done.
    pub fn new(scenario: &Scenario) -> Result<Player, PlayError> {
        let neighbours = topology::neighbours(&scenario.text);
        let mac = |address: &IpAddr| {
            describe(&[&mac_of(*address).0, [0; 8].as_slice()].concat())["dmac"].clone()
        };
        let holders = neighbours.iter().map(|address| {
            let mac = mac(address).as_str().unwrap_or_default().to_owned();
            (mac, address.to_string())
        });
        let mut player = Player {
            holders: holders.collect(),
            bench: Bench::new(neighbours)?,
            console: Console::new(scenario),
            builder: Builder::default(),
            settle_ms: scenario.settle_ms,
            open: HashMap::new(),
            early: Vec::new(),
        };
        for step in &scenario.setup {
            player.step(step)?;
        }
        Ok(player)
    }

    /// What uvs cannot do of what the scenario wanted so far.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.console.missing
    }

    /// Whether an address is the director's own, as the recordings' host has it.
    #[must_use]
    pub fn is_directors(&self, address: IpAddr) -> bool {
        topology::is_own(address) || self.console.vips.contains(&address)
    }

    /// Plays a step; its record.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn step(&mut self, step: &Step) -> Result<Value, PlayError> {
        let value = &step.value;
        let record = match step.kind.as_str() {
            "ipvsadm" => self.commands("ipvsadm", value)?,
            "ip" => self.commands("ip", value)?,
            "iptables" => self.commands("iptables-legacy", value)?,
            "ip6tables" => self.commands("ip6tables-legacy", value)?,
            "sysctl" => self.sysctl(value)?,
            "inject" => self.inject(value)?,
            "open" => self.open(value)?,
            "close" => self.close(value)?,
            "sleep" => self.sleep(value)?,
            "dump" => self.dump(value)?,
            _ => value.clone(),
        };
        let mut late = std::mem::take(&mut self.early);
        late.extend(self.bench.take());
        let mut result = json!({});
        result[&step.kind] = record;
        if !late.is_empty() {
            result["also_out"] = seen(&late);
        }
        Ok(result)
    }

    fn commands(&mut self, program: &str, value: &Value) -> Result<Value, PlayError> {
        let lines = list(value);
        let records = lines.into_iter().map(|line| {
            let line = line.as_str().ok_or_else(|| nonsense("ipvsadm", value))?;
            let (status, output) = self.console.run(&mut self.bench, program, line);
            Ok(json!({"command": format!("{program} {line}"), "rc": status, "output": output.trim()}))
        });
        records
            .collect::<Result<Vec<_>, PlayError>>()
            .map(Value::Array)
    }

    fn sysctl(&mut self, value: &Value) -> Result<Value, PlayError> {
        let settings = value.as_object().ok_or_else(|| nonsense("sysctl", value))?;
        for (name, value) in settings {
            self.console
                .set(&mut self.bench, name, value.to_string().trim_matches('"'));
        }
        Ok(value.clone())
    }

    /// Sends one frame; what came of it.
    fn exchange(&mut self, side: Side, frame: &[u8]) -> Vec<(Side, Vec<u8>)> {
        self.early.extend(self.bench.take());
        self.bench.exchange(side, frame)
    }

    fn inject(&mut self, value: &Value) -> Result<Value, PlayError> {
        let mut records = Vec::new();
        for packet in list(value) {
            for (side, frame) in self.builder.frames(packet)? {
                let captured = self.exchange(side, &frame);
                self.bench.pass_ms(self.settle_ms);
                let mut record =
                    json!({"side": side.name(), "in": hex(&frame), "out": seen(&captured)});
                // For the comparison: what the kernel's own stack would answer depends on it.
                record["for_service"] = json!(self.console.is_for_service(&describe(&frame)));
                records.push(record);
            }
        }
        Ok(Value::Array(records))
    }

    fn open(&mut self, value: &Value) -> Result<Value, PlayError> {
        let wrong = || nonsense("open", value);
        let number = |key: &str, default| {
            value
                .get(key)
                .map_or(Some(default), Value::as_u64)
                .ok_or_else(wrong)
        };
        let source: Endpoint = text(value, "src")
            .and_then(|text| text.parse().ok())
            .ok_or_else(wrong)?;
        let target = text(value, "dst").ok_or_else(wrong)?;
        let protocol = text(value, "proto").unwrap_or("tcp");
        let (by_address, by_port) = match text(value, "vary").unwrap_or("port") {
            "port" => (0, 1),
            "addr" => (1, 0),
            "both" => (1, 1),
            _ => return Err(wrong()),
        };
        let until_established = protocol == "tcp" && text(value, "until") == Some("established");
        let (first, stride) = (number("first", 0)?, number("stride", 1)?);
        let mut choices = Vec::new();
        for index in first..first + number("n", 0)? {
            let step = index * stride;
            let port = u64::from(source.port.unwrap_or(0)) + step * by_port;
            let client = Endpoint {
                address: plus(source.address, step * by_address),
                port: Some(u16::try_from(port).map_err(|_| wrong())?),
            };
            let packet = json!({"src": client.to_string(), "dst": target, "proto": protocol});
            let captured = self.send(&packet, &json!({"flags": "S"}))?;
            let (name, server) = self.chosen(&packet, &captured);
            let has_name = name.is_some();
            choices.push(json!(name));
            self.open.insert(index, (packet, server));
            if has_name && until_established {
                self.server_sends(index, "SA", 1000)?;
                self.client_sends(index, "A", 1001)?;
            }
        }
        Ok(json!({"choices": choices}))
    }

    fn close(&mut self, value: &Value) -> Result<Value, PlayError> {
        let wrong = || nonsense("close", value);
        let which = value["which"].as_array().ok_or_else(wrong)?;
        for index in which {
            let index = index
                .as_u64()
                .filter(|index| self.open.contains_key(index))
                .ok_or_else(wrong)?;
            if text(value, "how") == Some("rst") {
                self.client_sends(index, "R", 1001)?;
                continue;
            }
            self.client_sends(index, "FA", 1001)?;
            self.server_sends(index, "FA", 1001)?;
            self.client_sends(index, "A", 1002)?;
        }
        Ok(json!({"closed": which.len()}))
    }

    /// Sends a packet with some fields changed.
    fn send(&mut self, packet: &Value, changes: &Value) -> Result<Vec<(Side, Vec<u8>)>, PlayError> {
        let mut packet = packet.clone();
        for (key, value) in changes.as_object().into_iter().flatten() {
            packet[key] = value.clone();
        }
        let (side, frame) = self.builder.frames(&packet)?.remove(0);
        let captured = self.exchange(side, &frame);
        if captured.is_empty() {
            // Who records waits for something to come.
            self.bench.pass_ms(self.settle_ms);
        }
        Ok(captured)
    }

    fn client_sends(&mut self, index: u64, flags: &str, seq: u32) -> Result<(), PlayError> {
        let (packet, _) = self.open[&index].clone();
        self.send(&packet, &json!({"flags": flags, "seq": seq}))?;
        Ok(())
    }

    fn server_sends(&mut self, index: u64, flags: &str, seq: u32) -> Result<(), PlayError> {
        let (_, server) = self.open[&index].clone();
        if let Some(Answer { server, to }) = server {
            let answer = json!({"src": server, "dst": to, "proto": "tcp", "flags": flags, "seq": seq,
                "ack": 1001});
            self.send(&answer, &json!({}))?;
        }
        Ok(())
    }

    /// Which server a client's packet went to, as what came out tells: a printable name, and what it answers, which by NAT
    /// and FULLNAT alone comes this way.
    fn chosen(
        &self,
        packet: &Value,
        captured: &[(Side, Vec<u8>)],
    ) -> (Option<String>, Option<Answer>) {
        for (_, frame) in captured {
            let info = describe(frame);
            let target = info["dst"].as_str().unwrap_or_default().to_owned();
            if info.get("inner").is_some() {
                return (
                    tables::address_of(&target).map(|address| address.to_string()),
                    None,
                );
            }
            let is_fullnat = info["proto"] == packet["proto"] && info["dst"] != packet["dst"];
            if info["src"] != packet["src"] && !is_fullnat {
                continue;
            }
            if info["dst"] == packet["dst"] {
                let mac = info["dmac"].as_str().unwrap_or_default();
                return (
                    Some(self.holders.get(mac).map_or(mac, String::as_str).to_owned()),
                    None,
                );
            }
            let answer = Answer {
                server: target.clone(),
                to: info["src"].clone(),
            };
            return (Some(target), Some(answer));
        }
        (None, None)
    }

    fn sleep(&mut self, value: &Value) -> Result<Value, PlayError> {
        let seconds = value
            .as_f64()
            .filter(|seconds| (0.0..1e7).contains(seconds));
        let seconds = seconds.ok_or_else(|| nonsense("sleep", value))?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the bounds were checked, and a millisecond does not matter"
        )]
        self.bench.pass_ms((seconds * 1000.0) as u64);
        Ok(value.clone())
    }

    fn dump(&mut self, value: &Value) -> Result<Value, PlayError> {
        let mut record = json!({});
        for item in list(value) {
            let item = item.as_str().ok_or_else(|| nonsense("dump", value))?;
            record[item] = match item {
                "services" => tables::services_dump(&self.console.services(&self.bench)),
                "stats" => {
                    self.bench.pass_ms(STATISTICS_MS);
                    tables::statistics_dump(&self.console.services(&self.bench))
                }
                "conns" => tables::connections_dump(&tables::connections(&self.bench)),
                _ if item.starts_with("/proc/") => self.proc(item),
                _ => {
                    let (_, output) = self.console.run(&mut self.bench, "ipvsadm", item);
                    json!(output.trim().lines().collect::<Vec<_>>())
                }
            };
        }
        Ok(record)
    }

    fn proc(&mut self, path: &str) -> Value {
        match path {
            "/proc/net/ip_vs" => return json!(proc::services(&self.console.services(&self.bench))),
            "/proc/net/ip_vs_conn" => {
                return json!(proc::connections(&tables::connections(&self.bench), false));
            }
            "/proc/net/ip_vs_conn_sync" => {
                return json!(proc::connections(&tables::connections(&self.bench), true));
            }
            "/proc/net/ip_vs_stats" => {
                return json!(proc::statistics(&self.console.services(&self.bench)));
            }
            _ => {}
        }
        let name = path.strip_prefix("/proc/sys/net/ipv4/vs/");
        match name.and_then(|name| self.console.setting(name)) {
            Some(value) => json!([value]),
            None => {
                self.console.miss(path.to_owned());
                json!([])
            }
        }
    }
}

fn seen(captured: &[(Side, Vec<u8>)]) -> Value {
    let frames = captured.iter().map(|(side, frame)| {
        let mut info = describe(frame);
        info["side"] = json!(side.name());
        info
    });
    frames.collect()
}

/// One thing stands for a list of one.
fn list(value: &Value) -> Vec<&Value> {
    value
        .as_array()
        .map_or_else(|| vec![value], |values| values.iter().collect())
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn nonsense(kind: &'static str, value: &Value) -> PlayError {
    PlayError::Step {
        kind,
        value: value.to_string(),
    }
}

fn plus(address: IpAddr, step: u64) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let step = u32::try_from(step).unwrap_or(u32::MAX);
            IpAddr::V4(address.to_bits().wrapping_add(step).into())
        }
        IpAddr::V6(address) => IpAddr::V6(address.to_bits().wrapping_add(step.into()).into()),
    }
}
