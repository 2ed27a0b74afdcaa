//! Does anybody else answer ARP for a virtual address? Real servers by DR have it, and must keep quiet about it.

use super::report::Report;
use conntrack::Method;
use control::config::{Configuration, Listen, PortSettings};
use dataplane::frame::Offload;
use dataplane::packet::arp::{self, Operation};
use dataplane::packet::wire::ETHER_TYPE_ARP;
use dataplane::port::{Burst, Mac, Port, PortId, af_packet};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// How long answers are waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// Addresses that are asked for on one link.
const ASKED: usize = 256;

/// Asks on the link of each port that has an interface of the kernel's, by probes (RFC 5227 §2.1.1) that change nobody's
/// neighbours. uvsd does not see what its own host sends, so it is not uvsd that answers.
pub(super) fn answered(configuration: &Configuration, report: &mut Report) {
    for (id, port) in (0u16..).map(PortId).zip(&configuration.ports) {
        let Some(interface) = port.driver.interface() else {
            continue;
        };
        let mut addresses = asked(configuration, id, port);
        if addresses.is_empty() {
            continue;
        }
        let check = format!("port {}", port.name);
        if addresses.len() > ASKED {
            let left = addresses.len() - ASKED;
            addresses = addresses.into_iter().take(ASKED).collect();
            report.note(
                &check,
                format!("{left} virtual addresses more are not asked for by ARP"),
            );
        }
        match probe(interface, &addresses) {
            Err(error) => report.note(
                &check,
                format!("not found out who answers ARP for virtual addresses: {error}"),
            ),
            Ok(answers) => tell(&check, addresses.len(), &answers, report),
        }
    }
}

fn tell(check: &str, asked: usize, answers: &BTreeMap<Ipv4Addr, Mac>, report: &mut Report) {
    for (address, mac) in answers {
        report.fail(
            check,
            format!("{mac} answers ARP for the virtual address {address}"),
            "it must not: a real server by DR has the address on lo, with arp_ignore = 1 and arp_announce = 2 \
             (configs/realserver/uvs-dr); another host has to give the address up",
        );
    }
    if answers.is_empty() {
        let addresses = if asked == 1 { "address" } else { "addresses" };
        report.ok(
            check,
            format!("nobody else answers ARP for {asked} virtual {addresses}"),
        );
    }
}

/// Virtual addresses of the port's own networks, and those that a server by DR on its link has.
fn asked(configuration: &Configuration, id: PortId, port: &PortSettings) -> BTreeSet<Ipv4Addr> {
    let routes = configuration.routing();
    let is_here = |server: IpAddr| routes.lookup(server) == Some((id, server));
    let mut asked = BTreeSet::new();
    for service in &configuration.services {
        let Listen::Address { address, .. } = service.listen else {
            continue;
        };
        let IpAddr::V4(address) = address.ip() else {
            continue;
        };
        let mut own = port.addresses.iter();
        let mut servers = service.servers.iter();
        if own.any(|own| own.contains(address.into()))
            || servers.any(|of| of.method == Method::Dr && is_here(of.address.ip()))
        {
            asked.insert(address);
        }
    }
    asked
}

/// Who answers for which of them on the link of an interface.
fn probe(
    interface: &str,
    addresses: &BTreeSet<Ipv4Addr>,
) -> Result<BTreeMap<Ipv4Addr, Mac>, Box<dyn Error>> {
    let opened = af_packet::open(af_packet::Config::new(PortId(0), interface))?;
    let mut queues = opened.queues.into_iter();
    let mut port = queues.next().ok_or("no queue")?;
    let own = port.info().mac;
    for &address in addresses {
        let request = arp::request(own, Ipv4Addr::UNSPECIFIED, address, None);
        if !port.send(&request, &Offload::NONE) {
            return Err("the interface takes no more frames".into());
        }
    }
    port.flush();
    let mut answers = BTreeMap::new();
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let mut burst = Burst::new();
        port.receive(&mut burst);
        for frame in burst.drain(..) {
            if let Some((address, mac)) = answer(frame.bytes())
                && mac != own
                && addresses.contains(&address)
            {
                answers.insert(address, mac);
            }
            port.release(frame);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(answers)
}

/// Who says of himself that he has which address.
fn answer(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let is_arp = frame.get(12..14) == Some(&ETHER_TYPE_ARP.to_be_bytes()[..]);
    let arp = arp::parse(frame).ok().filter(|_| is_arp)?;
    (arp.operation == Operation::Reply).then_some((arp.sender, arp.sender_mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_somebody_on_the_link_could_have() {
        let text = r#"
[port.wan]
driver = "memory"
addresses = ["192.0.2.1/24"]
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
[[service]]
listen = "tcp 192.0.2.100:80"
method = "dr"
server = [{ address = "10.1.0.11" }]
[[service]]
listen = "tcp 192.0.2.101:80"
method = "nat"
server = [{ address = "10.1.0.11" }]
[[service]]
listen = "tcp [fd00::1]:80"
method = "nat"
"#;
        let configuration = Configuration::parse("t", text).unwrap().configuration;
        let of_port = |number: u16| {
            let port = &configuration.ports[usize::from(number)];
            let asked = asked(&configuration, PortId(number), port).into_iter();
            asked.map(|address| address.octets()[3]).collect::<Vec<_>>()
        };
        assert_eq!((of_port(0), of_port(1)), (vec![100, 101], vec![100]));
    }

    #[test]
    fn answers_are_told_apart_from_questions_and_other_frames() {
        let (mac, address) = (Mac([2, 0, 0, 0, 0, 7]), Ipv4Addr::new(192, 0, 2, 100));
        let question = arp::request(
            Mac([2, 0, 0, 0, 0, 1]),
            Ipv4Addr::UNSPECIFIED,
            address,
            None,
        );
        assert_eq!(answer(&question), None);
        let mut reply = arp::reply(mac, &arp::parse(&question).unwrap());
        assert_eq!(answer(&reply), Some((address, mac)));
        reply[12] = 0x86;
        assert_eq!(answer(&reply), None);
        assert_eq!(answer(&[0; 14]), None);
    }
}
