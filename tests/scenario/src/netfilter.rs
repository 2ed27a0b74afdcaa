//! `iptables -t mangle`: the rules of the recordings' host that give marks, as rules of uvs.

use crate::topology::Side;
use control::config::{Mark, Prefix, Protocol};
use std::net::IpAddr;

/// The rules of both families, in the order of adding.
#[derive(Debug, Default)]
pub struct Netfilter {
    rules: Vec<Rule>,
}

/// One line of iptables: sorts of what it looks at, of each of which one must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    ipv6: bool,
    mark: u32,
    ports: Vec<Option<String>>,
    sources: Vec<Option<Prefix>>,
    destinations: Vec<Option<Prefix>>,
    protocols: Vec<Option<Protocol>>,
    source_ports: Vec<Option<(u16, u16)>>,
    destination_ports: Vec<Option<(u16, u16)>>,
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
                let number = rest.first().and_then(|word| word.parse().ok());
                let rest = if number.is_some() { &rest[1..] } else { rest };
                let rule = rule(ipv6, rest).ok_or_else(refused)?;
                let place = self.numbered(ipv6, number.unwrap_or(1));
                self.rules.insert(place.unwrap_or(self.rules.len()), rule);
            }
            ["-D", "PREROUTING", number] => {
                let number = number.parse().map_err(|_| refused())?;
                let place = self.numbered(ipv6, number);
                self.rules.remove(place.ok_or_else(refused)?);
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

    /// Where the rule of a number, which counts from 1, is.
    fn numbered(&self, ipv6: bool, number: usize) -> Option<usize> {
        let rules = self.rules.iter().enumerate();
        let mut of_family = rules.filter(|(_, rule)| rule.ipv6 == ipv6);
        of_family
            .nth(number.checked_sub(1)?)
            .map(|(place, _)| place)
    }

    /// The same as marks of uvs, where the first that matches holds: with iptables it is the last.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        self.rules.iter().rev().flat_map(Rule::marks).collect()
    }
}

impl Rule {
    fn marks(&self) -> Vec<Mark> {
        let mut marks = vec![Mark {
            mark: self.mark,
            port: None,
            source: None,
            destination: None,
            protocol: None,
            source_ports: None,
            destination_ports: None,
        }];
        spread(&mut marks, &self.ports, |mark| &mut mark.port);
        spread(&mut marks, &self.sources, |mark| &mut mark.source);
        spread(&mut marks, &self.destinations, |mark| &mut mark.destination);
        spread(&mut marks, &self.protocols, |mark| &mut mark.protocol);
        spread(&mut marks, &self.source_ports, |mark| {
            &mut mark.source_ports
        });
        spread(&mut marks, &self.destination_ports, |mark| {
            &mut mark.destination_ports
        });
        marks
    }
}

/// Makes of each mark one for each of the choices.
fn spread<T: Clone>(marks: &mut Vec<Mark>, choices: &[T], field: impl Fn(&mut Mark) -> &mut T) {
    let all = std::mem::take(marks).into_iter().flat_map(|mark| {
        let field = &field;
        choices.iter().map(move |choice| {
            let mut mark = mark.clone();
            *field(&mut mark) = choice.clone();
            mark
        })
    });
    *marks = all.collect();
}

/// `-i`, `-s`, `-d`, `-p`, `--sport`, `--dport`, each perhaps behind a `!`, `-m multiport --dports`, `-j MARK --set-mark`.
fn rule(ipv6: bool, words: &[&str]) -> Option<Rule> {
    // Of its family alone, whatever the addresses.
    let everything: Prefix = if ipv6 { "::/0" } else { "0.0.0.0/0" }.parse().ok()?;
    let mut rule = Rule {
        ipv6,
        mark: 0,
        ports: vec![None],
        sources: vec![Some(everything)],
        destinations: vec![None],
        protocols: vec![None],
        source_ports: vec![None],
        destination_ports: vec![None],
    };
    let mut words = words.iter().copied().peekable();
    while let Some(word) = words.next() {
        let not = word == "!";
        let option = if not { words.next()? } else { word };
        let value = words.next()?;
        match option {
            "-i" if not => {
                let others = Side::ALL.map(Side::name).into_iter();
                let others = others.filter(|name| *name != value);
                rule.ports = others.map(|name| Some(name.to_owned())).collect();
            }
            "-i" => rule.ports = vec![Some(value.to_owned())],
            "-s" => rule.sources = networks(value, not)?,
            "-d" => rule.destinations = networks(value, not)?,
            "-p" => rule.protocols = protocols(value, not)?,
            "-m" if matches!(value, "tcp" | "udp" | "icmp" | "multiport") => {}
            "--sport" | "--source-port" => rule.source_ports = ranges(value, not)?,
            "--dport" | "--destination-port" => rule.destination_ports = ranges(value, not)?,
            "--dports" if !not => {
                let ports = value.split(',').map(|value| Some(Some(range(value)?)));
                rule.destination_ports = ports.collect::<Option<_>>()?;
            }
            "-j" if value == "MARK" => {}
            "--set-mark" | "--set-xmark" => {
                let value = value.split('/').next()?;
                rule.mark = match value.strip_prefix("0x") {
                    Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                    None => value.parse().ok()?,
                };
            }
            _ => return None,
        }
    }
    (rule.mark != 0).then_some(rule)
}

/// A network, or what together is everything else of its family.
fn networks(text: &str, not: bool) -> Option<Vec<Option<Prefix>>> {
    let network = network(text)?;
    if !not {
        return Some(vec![Some(network)]);
    }
    let beside = (1..=network.len).map(|len| {
        // As the network up to its bit number `len`, which is the other one.
        let address = match network.address {
            IpAddr::V4(address) => {
                IpAddr::V4((address.to_bits() ^ (1 << (32 - u32::from(len)))).into())
            }
            IpAddr::V6(address) => {
                IpAddr::V6((address.to_bits() ^ (1 << (128 - u32::from(len)))).into())
            }
        };
        let other = Prefix { address, len };
        Some(Prefix {
            address: other.network(),
            len,
        })
    });
    Some(beside.collect())
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

/// None of those that have services, for ICMP.
fn protocols(text: &str, not: bool) -> Option<Vec<Option<Protocol>>> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let named = match text {
        "tcp" | "6" => vec![Protocol::Tcp],
        "udp" | "17" => vec![Protocol::Udp],
        "sctp" | "132" => vec![Protocol::Sctp],
        "icmp" | "1" | "icmpv6" | "ipv6-icmp" | "58" => vec![],
        "all" | "0" => all.to_vec(),
        _ => return None,
    };
    let meant = all.into_iter().filter(|known| named.contains(known) != not);
    Some(meant.map(Some).collect())
}

/// A range of ports, or what together is all others.
fn ranges(text: &str, not: bool) -> Option<Vec<Option<(u16, u16)>>> {
    let (low, high) = range(text)?;
    if !not {
        return Some(vec![Some((low, high))]);
    }
    let below = low.checked_sub(1).map(|end| (0, end));
    let above = high.checked_add(1).map(|start| (start, u16::MAX));
    Some(below.into_iter().chain(above).map(Some).collect())
}

/// Either end may be left out.
fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once(':').unwrap_or((text, text));
    let end = |text: &str, default| match text {
        "" => Some(default),
        text => text.parse().ok(),
    };
    Some((end(low, 0)?, end(high, u16::MAX)?))
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
    fn what_a_rule_excludes_is_marked_by_no_part_of_it() {
        let mut netfilter = Netfilter::default();
        let line = "-t mangle -A PREROUTING ! -s 10.64.0.0/16 ! -i client -p tcp ! --dport 80 -j MARK --set-mark 4";
        netfilter.run(false, line).unwrap();
        let marks = netfilter.marks();
        let contains = |mark: &Mark, text: &str| {
            let source = mark.source.unwrap();
            let address = text.parse().unwrap();
            let len = source.len;
            Prefix { address, len }.network() == source.address
        };
        for (address, count) in [("10.64.3.4", 0), ("10.65.0.1", 2), ("192.0.2.1", 2)] {
            let matching = marks.iter().filter(|mark| contains(mark, address));
            assert_eq!(matching.count(), count, "{address}");
        }
        let ports = marks.iter().map(|mark| mark.destination_ports.unwrap());
        assert!(ports.clone().all(|(low, high)| high == 79 || low == 81));
        assert!(
            marks
                .iter()
                .all(|mark| mark.port.as_deref() == Some("server"))
        );
    }

    #[test]
    fn rules_have_numbers_and_icmp_marks_nothing() {
        let mut netfilter = Netfilter::default();
        for line in [
            "-t mangle -A PREROUTING -d 10.5.0.1 -j MARK --set-mark 1",
            "-t mangle -I PREROUTING 1 -p icmp -j MARK --set-mark 2",
            "-t mangle -I PREROUTING 2 -p udp --sport :99 -j MARK --set-mark 3",
        ] {
            netfilter.run(false, line).unwrap();
        }
        let told = |netfilter: &Netfilter| -> Vec<_> {
            let marks = netfilter.marks().into_iter();
            marks.map(|mark| (mark.mark, mark.source_ports)).collect()
        };
        assert_eq!(told(&netfilter), [(1, None), (3, Some((0, 99)))]);
        netfilter.run(false, "-t mangle -D PREROUTING 3").unwrap();
        assert_eq!(told(&netfilter), [(3, Some((0, 99)))]);
    }

    #[test]
    fn what_it_does_not_know_it_says() {
        for line in [
            "-A INPUT -j DROP",
            "-t mangle -A PREROUTING -m state -j MARK --set-mark 1",
        ] {
            assert!(Netfilter::default().run(false, line).is_err(), "{line}");
        }
    }
}
