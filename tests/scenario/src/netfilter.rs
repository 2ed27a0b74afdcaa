//! `iptables -t mangle`: the rules of the recordings' host that give marks, as rules of uvs.

use control::config::{Mark, Prefix, Protocol};
use std::net::IpAddr;

/// The rules of both families, in the order of adding.
#[derive(Debug, Default)]
pub struct Netfilter {
    rules: Vec<Rule>,
}

/// One line of iptables.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    ipv6: bool,
    mark: Mark,
    /// Sorts of ports, each a range, of which one suffices.
    destination_ports: Vec<(u16, u16)>,
}

impl Netfilter {
    /// Runs a command of `iptables` or `ip6tables`; what of it is not understood.
    ///
    /// # Errors
    /// It is not a rule that gives a mark.
    pub fn run(&mut self, ipv6: bool, line: &str) -> Result<(), String> {
        let refused = || format!("iptables {line}");
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let is_table = |pair: &[&str]| pair == ["-t", "mangle"];
        let table = words.windows(2).position(is_table).ok_or_else(refused)?;
        words.drain(table..table + 2);
        match words.as_slice() {
            ["-F"] | ["-F", "PREROUTING"] => self.rules.retain(|rule| rule.ipv6 != ipv6),
            ["-A", "PREROUTING", rest @ ..] => {
                let rule = rule(ipv6, rest).ok_or_else(refused)?;
                self.rules.push(rule);
            }
            ["-I", "PREROUTING", rest @ ..] => {
                let rule = rule(ipv6, rest).ok_or_else(refused)?;
                self.rules.insert(0, rule);
            }
            ["-D", "PREROUTING", rest @ ..] => {
                let rule = rule(ipv6, rest).ok_or_else(refused)?;
                let place = self.rules.iter().position(|known| *known == rule);
                self.rules.remove(place.ok_or_else(refused)?);
            }
            _ => return Err(refused()),
        }
        Ok(())
    }

    /// The same as marks of uvs, where the first that matches holds: with iptables it is the last.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        let rules = self.rules.iter().rev();
        let marks = rules.flat_map(|rule| {
            let all = [None];
            let some: Vec<_> = rule.destination_ports.iter().copied().map(Some).collect();
            let ports = if some.is_empty() { all.to_vec() } else { some };
            ports.into_iter().map(|destination_ports| Mark {
                destination_ports,
                ..rule.mark.clone()
            })
        });
        marks.collect()
    }
}

/// `-i`, `-s`, `-d`, `-p`, `--sport`, `--dport`, `-m multiport --dports`, `-j MARK --set-mark`.
fn rule(ipv6: bool, words: &[&str]) -> Option<Rule> {
    // Of its family alone, whatever the addresses.
    let everything: Prefix = if ipv6 { "::/0" } else { "0.0.0.0/0" }.parse().ok()?;
    let mut rule = Rule {
        ipv6,
        mark: Mark {
            mark: 0,
            port: None,
            source: Some(everything),
            destination: None,
            protocol: None,
            source_ports: None,
            destination_ports: None,
        },
        destination_ports: Vec::new(),
    };
    for pair in words.chunks(2) {
        let [option, value] = pair else { return None };
        match *option {
            "-i" => rule.mark.port = Some((*value).to_owned()),
            "-s" => rule.mark.source = Some(network(value)?),
            "-d" => rule.mark.destination = Some(network(value)?),
            "-p" => rule.mark.protocol = Some(protocol(value)?),
            "-m" if matches!(*value, "tcp" | "udp" | "multiport") => {}
            "--sport" => rule.mark.source_ports = Some(range(value)?),
            "--dport" => rule.destination_ports = vec![range(value)?],
            "--dports" => {
                rule.destination_ports = value.split(',').map(range).collect::<Option<_>>()?;
            }
            "-j" if *value == "MARK" => {}
            "--set-mark" | "--set-xmark" => {
                let value = value.split('/').next()?;
                rule.mark.mark = match value.strip_prefix("0x") {
                    Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                    None => value.parse().ok()?,
                };
            }
            _ => return None,
        }
    }
    (rule.mark.mark != 0).then_some(rule)
}

fn network(text: &str) -> Option<Prefix> {
    let prefix = text.parse().ok().or_else(|| {
        let address: IpAddr = text.parse().ok()?;
        let len = if address.is_ipv4() { 32 } else { 128 };
        Some(Prefix { address, len })
    })?;
    Some(Prefix {
        address: prefix.network(),
        ..prefix
    })
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "tcp" | "6" => Some(Protocol::Tcp),
        "udp" | "17" => Some(Protocol::Udp),
        _ => None,
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once(':').unwrap_or((text, text));
    Some((low.parse().ok()?, high.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_rule_goes_first_and_ports_become_rules() {
        let mut netfilter = Netfilter::default();
        for line in [
            "-t mangle -A PREROUTING -d 10.5.0.0/24 -j MARK --set-mark 7",
            "-t mangle -A PREROUTING -d 10.5.0.1 -p tcp -m multiport --dports 80,443 -j MARK --set-mark 0x8",
        ] {
            netfilter.run(false, line).unwrap();
        }
        let marks = netfilter.marks();
        let told: Vec<_> = marks
            .iter()
            .map(|mark| (mark.mark, mark.destination_ports))
            .collect();
        assert_eq!(
            told,
            [(8, Some((80, 80))), (8, Some((443, 443))), (7, None)]
        );
        netfilter
            .run(
                false,
                "-t mangle -D PREROUTING -d 10.5.0.0/24 -j MARK --set-mark 7",
            )
            .unwrap();
        assert_eq!(netfilter.marks().len(), 2);
        netfilter.run(false, "-t mangle -F").unwrap();
        assert!(netfilter.marks().is_empty());
    }

    #[test]
    fn what_it_does_not_know_it_says() {
        for line in [
            "-A INPUT -j DROP",
            "-t mangle -A PREROUTING ! -s 10.0.0.1 -j MARK --set-mark 1",
        ] {
            assert!(Netfilter::default().run(false, line).is_err(), "{line}");
        }
    }
}
