//! The configuration as people meet it: every mistake has its message, every example is accepted.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use control::config::{
    Configuration, Driver, Granularity, GueChecksum, KeyPath, Listen, MISTAKES_TOLD, Mark,
    Persistence, Pin, Protocol, TunnelKind, keys,
};
use dataplane::helper::Helper;
use dataplane::snapshot::{Engine, Ipvs};
use proptest::prelude::*;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// A configuration that is accepted; each case changes a line of it. Its lines are counted in the messages.
const GOOD: &str = r#"[director]
workers = 2

[port.wan]
driver = "af_packet"
interface = "eth0"
addresses = ["10.1.0.1/24", "fd00:1::1/64"]

[port.lan]
driver = "memory"
addresses = ["10.2.0.1/24"]

[[route]]
to = "10.3.0.0/16"
via = "10.2.0.254"

[[lip_pool]]
name = "pool"
addresses = ["10.2.0.200"]

[[service]]
listen = "tcp 10.1.0.100:80"
method = "nat"
[[service.server]]
address = "10.2.0.11:8080"

[[service]]
listen = "udp 10.1.0.100:53"
method = "fullnat"
lip_pool = "pool"
[[service.server]]
address = "10.2.0.12"
weight = 3
[[service.server]]
address = "10.3.0.13:53"

[timeouts]
tcp = 900
"#;

fn mistakes(text: &str) -> String {
    match Configuration::parse("f.toml", text) {
        Ok(accepted) => format!("accepted: {:?}", accepted.warnings),
        Err(mistakes) => mistakes.to_string(),
    }
}

#[test]
fn the_base_of_the_cases_is_accepted() {
    let accepted = Configuration::parse("f.toml", GOOD).unwrap();
    assert_eq!(accepted.warnings, []);
    assert_eq!(
        accepted.configuration.services[1].servers[0].address,
        "10.2.0.12:53".parse().unwrap()
    );
}

#[test]
fn every_mistake_is_told_with_its_line_key_and_what_is_accepted() {
    for (from, to, expected) in CASES {
        assert!(from.is_empty() || GOOD.contains(from), "{from}");
        let text = if from.is_empty() {
            format!("{GOOD}{to}")
        } else {
            GOOD.replacen(from, to, 1)
        };
        assert_eq!(mistakes(&text), *expected, "\n{from} -> {to}");
    }
}

include!("config/cases.rs");

#[test]
fn an_unknown_scheduler_is_told_the_known_ones() {
    let text = GOOD.replacen(
        "method = \"nat\"",
        "method = \"nat\"\nscheduler = \"fastest\"",
        1,
    );
    let known: Vec<_> = scheduler::NAMES
        .iter()
        .map(|name| format!("{name:?}"))
        .collect();
    let expected = format!(
        "f.toml:24: service[0].scheduler: \"fastest\" is not a scheduler; accepted: {}",
        known.join(", ")
    );
    assert_eq!(mistakes(&text), expected);
}

#[test]
fn mistakes_are_told_all_at_once_in_the_order_of_lines() {
    let text = GOOD
        .replacen("workers = 2", "workers = 0\ncolour = 1", 1)
        .replacen(
            "listen = \"tcp 10.1.0.100:80\"",
            "listen = \"tcp 10.1.0.100\"",
            1,
        )
        .replacen("weight = 3", "weight = 70000", 1)
        .replacen("10.3.0.13:53", "10.4.0.13:53", 1)
        .replacen("tcp = 900", "tcp = 0", 1);
    let told = mistakes(&text);
    let starts: Vec<_> = told
        .lines()
        .map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        starts,
        [
            "f.toml:2 director.workers",
            "f.toml:3 director.colour",
            "f.toml:23 service[0].listen",
            "f.toml:34 service[1].server[0].weight",
            "f.toml:36 service[1].server[1].address",
            "f.toml:39 timeouts.tcp",
        ]
    );
}

#[test]
fn no_more_than_twenty_mistakes_are_told_and_the_others_are_counted() {
    let mut text = GOOD.to_owned();
    for index in 0..30 {
        writeln!(text, "nonsense{index} = 1").unwrap();
    }
    let wrong = Configuration::parse("f.toml", &text).unwrap_err();
    assert_eq!((wrong.told.len(), wrong.more), (MISTAKES_TOLD, 10));
    assert!(wrong.to_string().ends_with("\nand 10 more"));
}

#[test]
fn lists_are_limited() {
    let addresses = (0..65)
        .map(|index| format!("\"10.9.{index}.1/24\""))
        .collect::<Vec<_>>()
        .join(", ");
    let text = GOOD.replacen("\"10.2.0.1/24\"", &addresses, 1);
    assert!(
        mistakes(&text).contains(
            "f.toml:11: port.lan.addresses: 65 entries are too many; accepted: at most 64"
        )
    );
    let mut text = GOOD.to_owned();
    for index in 0..1024 {
        write!(
            text,
            "[[route]]\nto = \"10.200.{}.{}/32\"\nvia = \"10.2.0.254\"\n",
            index / 256,
            index % 256
        )
        .unwrap();
    }
    assert!(mistakes(&text).contains("route: 1025 entries are too many; accepted: at most 1024"));
    let text = GOOD.replacen("workers = 2", "servers = 2", 1);
    let expected =
        "f.toml:21: service: 3 servers (director.servers) are too many; accepted: at most 2";
    assert_eq!(mistakes(&text), expected);
    let mut text = GOOD.to_owned();
    for index in 0..15 {
        write!(text, "[port.p{index}]\ndriver = \"memory\"\n").unwrap();
    }
    assert!(mistakes(&text).contains("port: 17 ports are too many; accepted: at most 16"));
}

#[test]
fn all_services_and_servers_up_to_the_limit_are_accepted() {
    let mut text = String::from(
        "[director]\nservers = 131072\n[port.lan]\ndriver = \"memory\"\naddresses = [\"10.0.0.1/8\"]\n",
    );
    for service in 0..16_384u32 {
        let port = 1 + service % 60_000;
        write!(
            text,
            "[[service]]\nlisten = \"tcp 10.1.0.1:{port}\"\nmethod = \"nat\"\nserver = ["
        )
        .unwrap();
        for server in 0..8 {
            write!(text, "{{address=\"10.2.0.{}:80\"}},", server + 1).unwrap();
        }
        text.push_str("]\n");
    }
    let accepted = Configuration::parse("f.toml", &text).unwrap();
    assert_eq!(accepted.configuration.services.len(), 16_384);
    text.push_str("[[service]]\nlisten = \"udp 10.1.0.1:1\"\nmethod = \"nat\"\n");
    assert!(
        mistakes(&text).contains("service: 16385 entries are too many; accepted: at most 16384")
    );
}

#[test]
fn a_server_behind_a_port_without_an_address_of_its_family_is_refused() {
    let text = GOOD.replacen(
        "[timeouts]",
        "[[route]]\nto = \"fd00:9::/64\"\nport = \"lan\"\n[timeouts]",
        1,
    );
    let text = text.replacen("10.2.0.11:8080", "fd00:9::11", 1).replacen(
        "method = \"nat\"",
        "method = \"tun\"",
        1,
    );
    assert_eq!(
        mistakes(&text),
        "f.toml:25: service[0].server[0].address: fd00:9::11 is reached by a port without an address of this family; \
         accepted: an IPv6 address in port.lan.addresses"
    );
}

#[test]
fn dr_and_tun_servers_get_the_port_of_their_service_and_the_operator_is_told() {
    let text = GOOD.replacen("method = \"nat\"", "method = \"dr\"", 1);
    let accepted = Configuration::parse("f.toml", &text).unwrap();
    assert_eq!(
        accepted.configuration.services[0].servers[0].address,
        "10.2.0.11:80".parse().unwrap()
    );
    assert_eq!(
        accepted.warnings[0].to_string(),
        "f.toml:25: service[0].server[0].address: 10.2.0.11:8080 is used with port 80: DR and TUN leave the service's \
         port as it is"
    );
}

#[test]
fn tunnels_are_what_the_file_says() {
    let kind = |keys: &str| {
        let keys = format!("address = \"10.2.0.11:80\"\nmethod = \"tun\"\n{keys}");
        let text = GOOD.replacen("address = \"10.2.0.11:8080\"", &keys, 1);
        Configuration::parse("f.toml", &text)
            .unwrap()
            .configuration
            .services[0]
            .servers[0]
            .tunnel
    };
    assert_eq!(kind(""), TunnelKind::Ipip);
    assert_eq!(kind("tunnel = \"ipip\""), TunnelKind::Ipip);
    for (checksum, full) in [("", false), ("none", false), ("full", true)] {
        let mut keys = "tunnel = \"gre\"\n".to_owned();
        if !checksum.is_empty() {
            write!(keys, "tunnel_checksum = {checksum:?}").unwrap();
        }
        assert_eq!(kind(&keys), TunnelKind::Gre { checksum: full });
    }
    for (word, checksum) in [
        ("none", GueChecksum::None),
        ("full", GueChecksum::Full),
        ("remote", GueChecksum::Remote),
    ] {
        let keys = format!("tunnel = \"gue\"\ntunnel_port = 6080\ntunnel_checksum = {word:?}");
        let port = 6080;
        assert_eq!(kind(&keys), TunnelKind::Gue { port, checksum });
    }
}

#[test]
fn a_dr_server_behind_a_gateway_is_doubtful() {
    let text = GOOD
        .replacen("method = \"nat\"", "method = \"dr\"", 1)
        .replacen("10.2.0.11:8080", "10.3.0.11", 1);
    let accepted = Configuration::parse("f.toml", &text).unwrap();
    assert_eq!(
        accepted.warnings[0].to_string(),
        "f.toml:25: service[0].server[0].address: 10.3.0.11 is behind the gateway 10.2.0.254: DR sends it packets for \
         tcp 10.1.0.100:80, which a router would send back"
    );
}

#[test]
fn metrics_for_everybody_are_doubtful() {
    let told = |listen: &str| {
        let text = GOOD.replacen("[timeouts]", &format!("[metrics]\n{listen}\n[timeouts]"), 1);
        let accepted = Configuration::parse("f.toml", &text).unwrap();
        let told = accepted.warnings.iter().map(ToString::to_string);
        told.collect::<Vec<_>>().join("\n")
    };
    for loopback in ["", "listen = \"127.0.0.2:1\"", "listen = \"[::1]:1\""] {
        assert_eq!(told(loopback), "");
    }
    assert_eq!(
        told("listen = \"0.0.0.0:9107\""),
        "f.toml:38: metrics.listen: 0.0.0.0:9107 is no loopback address: whoever reaches it can read all counters, unasked"
    );
}

#[test]
fn a_marks_service_that_nothing_reaches_is_doubtful() {
    let service = "[[service]]\nlisten = \"mark 8\"\nmethod = \"nat\"\n";
    let told = |more: &str| {
        let text = GOOD.replacen("[timeouts]", &format!("{service}{more}[timeouts]"), 1);
        let accepted = Configuration::parse("f.toml", &text).unwrap();
        let told = accepted.warnings.iter().map(ToString::to_string);
        told.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        told(""),
        "f.toml:38: service[2].listen: mark 8 is given by no [[mark]]: the service gets no packet"
    );
    let rule = "[[mark]]\nmark = 8\n";
    assert_eq!(
        told(rule),
        "f.toml:38: service[2].listen: mark 8 has no addresses: packets to addresses of other services alone are looked at"
    );
    assert_eq!(told(&format!("addresses = [\"10.5.0.1\"]\n{rule}")), "");
}

#[test]
fn the_settings_of_the_director_are_what_the_file_says() {
    let director = "connections = 5\nservers = 9\nhalf_open_percent = 7\nidle = \"poll\"\npin = [3, 1]\ncontrol = \"unix:/x\"";
    let text = GOOD.replacen("workers = 2", &format!("workers = 2\n{director}"), 1);
    let settings = Configuration::parse("f.toml", &text)
        .unwrap()
        .configuration
        .director;
    assert_eq!(
        (
            settings.workers,
            settings.connections,
            settings.servers,
            settings.half_open_percent
        ),
        (2, 5, 9, 7)
    );
    assert_eq!(settings.idle, control::config::Idle::Poll);
    assert_eq!(settings.pin, Pin::To(vec![3, 1]));
    assert_eq!(settings.control, Path::new("/x"));
}

#[test]
fn workers_sleep_unless_the_file_says_otherwise() {
    use control::config::Idle;
    for (line, expected) in [
        ("", Idle::Sleep),
        ("idle = \"sleep\"", Idle::Sleep),
        ("idle = \"poll\"", Idle::Poll),
    ] {
        let text = GOOD.replacen("workers = 2", line, 1);
        let accepted = Configuration::parse("f.toml", &text).unwrap();
        assert_eq!(accepted.configuration.director.idle, expected, "{line}");
    }
    let text = GOOD.replacen("[director]\nworkers = 2", "", 1);
    let accepted = Configuration::parse("f.toml", &text).unwrap();
    assert_eq!(accepted.configuration.director.idle, Idle::Sleep);
}

#[test]
fn a_capture_as_a_port_is_what_the_file_says() {
    let port = |keys: &str| {
        let text = GOOD.replacen("driver = \"memory\"", keys, 1);
        let accepted = Configuration::parse("f.toml", &text).unwrap();
        accepted.configuration.ports[1].driver.clone()
    };
    let (file, output) = ("in.pcap".into(), Some("out.pcap".into()));
    assert_eq!(
        port("driver = \"pcap\"\nfile = \"in.pcap\"\ninfinite = true\noutput = \"out.pcap\""),
        Driver::Pcap {
            file,
            infinite: true,
            output
        }
    );
    assert_eq!(
        port("driver = \"pcap\"\nfile = \"in.pcap\""),
        Driver::Pcap {
            file: "in.pcap".into(),
            infinite: false,
            output: None
        }
    );
}

#[test]
fn settings_of_ipvs_thresholds_and_one_packet_scheduling_are_what_the_file_says() {
    let good = Configuration::parse("f.toml", GOOD).unwrap().configuration;
    assert_eq!(good.ipvs, Ipvs::default());
    assert_eq!((good.ipvs.conn_reuse_mode, good.ipvs.pmtu_disc), (1, true));
    let text = GOOD
        .replacen("weight = 3", "upper = 20\nlower = 10", 1)
        .replacen(
            "method = \"fullnat\"\nlip_pool = \"pool\"",
            "method = \"nat\"\none_packet = true\nslow_start = 30",
            1,
        );
    let text = format!(
        "{text}[ipvs]\nconn_reuse_mode = 2\nexpire_nodest_conn = true\nsloppy_tcp = true\nnat_icmp_send = true\nexpire_quiescent_template = true\nschedule_icmp = true\npmtu_disc = false\nlblc_expiration = 0\nlblcr_expiration = 600\nsloppy_sctp = true\nsecure_tcp = 1\ndrop_packet = 2\ndrop_entry = 3\nam_droprate = 20\namemthresh = 4000"
    );
    let read = Configuration::parse("f.toml", &text).unwrap().configuration;
    let expected = Ipvs {
        conn_reuse_mode: 2,
        expire_nodest_conn: true,
        expire_quiescent_template: true,
        sloppy_tcp: true,
        schedule_icmp: true,
        nat_icmp_send: true,
        pmtu_disc: false,
        lblc_expiration: 0,
        lblcr_expiration: 600,
        sloppy_sctp: true,
        secure_tcp: 1,
        drop_packet: 2,
        drop_entry: 3,
        am_droprate: 20,
        amemthresh: 4000,
    };
    assert_eq!(read.ipvs, expected);
    let service = &read.services[1];
    let server = &service.servers[0];
    assert_eq!(
        (service.one_packet, server.upper, server.lower),
        (true, 20, 10)
    );
    assert_eq!(service.flags.slow_start, 30);
    assert_eq!(read.services[0].flags.slow_start, 0);
}

#[test]
fn marks_and_persistence_are_what_the_file_says() {
    let text = GOOD.replacen(
        "[[service]]\nlisten = \"tcp 10.1.0.100:80\"",
        "\
[[mark]]
mark = 7
port = \"wan\"
source = \"10.0.0.0/8\"
destination = \"10.5.0.1/32\"
protocol = \"tcp\"
source_ports = \"1024-65535\"
destination_ports = \"80\"
[[service]]
listen = \"mark 7\"
addresses = [\"10.5.0.1\"]
persistence_timeout = 360
persistence_granularity = \"255.255.0.0\"
persistence_engine = \"sip\"",
        1,
    );
    let read = Configuration::parse("f.toml", &text).unwrap().configuration;
    let network = |text: &str| Some(text.parse().unwrap());
    let mark = Mark {
        mark: 7,
        port: Some("wan".to_owned()),
        source: network("10.0.0.0/8"),
        destination: network("10.5.0.1/32"),
        protocol: Some(Protocol::Tcp),
        source_ports: Some((1024, 65535)),
        destination_ports: Some((80, 80)),
    };
    assert_eq!(read.marks, [mark]);
    let service = &read.services[0];
    let listen = Listen::Mark {
        mark: 7,
        ipv6: false,
    };
    assert_eq!(
        (service.listen, service.listen.to_string()),
        (listen, "mark 7".to_owned())
    );
    assert_eq!(service.addresses, ["10.5.0.1".parse::<IpAddr>().unwrap()]);
    let persistence = Persistence {
        timeout: 360,
        granularity: Granularity::Netmask(Ipv4Addr::new(255, 255, 0, 0)),
        engine: Some(Engine::Sip),
    };
    assert_eq!(service.persistence, Some(persistence));
    assert_eq!(read.services[1].persistence, None);
}

#[test]
fn expirations_are_told_to_the_scheduler_that_they_concern() {
    let text = GOOD.replacen(
        "method = \"nat\"",
        "method = \"nat\"\nscheduler = \"lblcr\"",
        1,
    );
    let text = format!("{text}[ipvs]\nlblc_expiration = 5\nlblcr_expiration = 6");
    let read = Configuration::parse("f.toml", &text).unwrap().configuration;
    let told = |scheduler| {
        let service = control::config::Service {
            scheduler,
            ..read.services[0].clone()
        };
        let options = service.scheduler_options(&read.ipvs);
        (options.lblc_expiration, options.lblcr_expiration)
    };
    assert_eq!(told(read.services[0].scheduler), (86_400, 6));
    assert_eq!(told("lblc"), (5, 86_400));
    assert_eq!(told("wlc"), (86_400, 86_400));
}

#[test]
fn a_service_of_sctp_is_what_the_file_says() {
    let text = GOOD.replacen("listen = \"tcp ", "listen = \"sctp ", 1);
    assert_ne!(text, GOOD);
    let read = Configuration::parse("f.toml", &text).unwrap().configuration;
    let listen = read.services[0].listen;
    let protocol = listen.protocol().unwrap();
    assert_eq!(
        (protocol.number(), protocol.to_string()),
        (132, "sctp".to_owned())
    );
    assert!(text.contains(&format!("listen = \"{listen}\"")));
}

#[test]
fn a_services_helper_is_what_the_file_says() {
    let good = Configuration::parse("f.toml", GOOD).unwrap().configuration;
    assert_eq!(good.services[0].helper, None);
    let text = GOOD.replacen("method = \"nat\"", "method = \"nat\"\nhelper = \"ftp\"", 1);
    let read = Configuration::parse("f.toml", &text).unwrap().configuration;
    assert_eq!(read.services[0].helper, Some(Helper::Ftp));
}

/// The files of configs/, by name.
fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = files.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    let examples: Vec<_> = files
        .map(|path| {
            (
                path.display().to_string(),
                std::fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    assert!(examples.len() >= 5, "configs/ is incomplete");
    examples
}

#[test]
fn every_example_is_accepted_without_a_warning() {
    for (name, text) in examples() {
        match Configuration::parse(&name, &text) {
            Ok(accepted) => assert_eq!(accepted.warnings, [], "{name}"),
            Err(mistakes) => panic!("{mistakes}"),
        }
    }
}

#[test]
fn every_key_stands_in_an_example_below_a_comment() {
    let examples = examples();
    for table in keys::TABLES.iter().filter(|table| !table.name.is_empty()) {
        for key in table
            .keys
            .iter()
            .filter(|key| !matches!(key.accepts, keys::Accepts::Form("a table")))
        {
            let found = examples
                .iter()
                .any(|(_, text)| is_commented(text, table.name, key.name));
            assert!(
                found,
                "[{}] {} is explained in no file of configs/",
                table.name, key.name
            );
            assert!(!key.about.is_empty() && !key.what.is_empty());
        }
    }
}

/// Whether `text` has the key in a section of the table, and a comment right above it.
fn is_commented(text: &str, table: &str, key: &str) -> bool {
    let mut section = String::new();
    let mut above = "";
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        }
        let in_table = section == table
            || section
                .strip_prefix(table)
                .is_some_and(|name| name.starts_with('.') && table == "port");
        if in_table
            && above.starts_with('#')
            && line
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(" ="))
        {
            return true;
        }
        above = line;
    }
    false
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_name() {
    let error = Configuration::from_file(Path::new("/nowhere/x.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("/nowhere/x.toml: No such file"),
        "{error}"
    );
}

#[test]
fn a_path_quotes_keys_that_are_not_bare() {
    assert_eq!(
        KeyPath::top("port").key("a b\n").index(1).to_string(),
        "port.\"a b\\n\"[1]"
    );
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,400}") {
        let _ = Configuration::parse("f.toml", &text);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Configuration::parse("f.toml", &String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_mutated_configuration_never_panics(
        cuts in proptest::collection::vec((0..GOOD.len(), 0..40usize, "[\\[\\]\"=a-z0-9.:/ \n{},-]{0,8}"), 1..6),
    ) {
        let mut text = GOOD.to_owned();
        for (start, len, put) in cuts {
            let start = start.min(text.len());
            let end = (start + len).min(text.len());
            text.replace_range(start..end, &put);
        }
        if let Err(mistakes) = Configuration::parse("f.toml", &text) {
            let lines = text.lines().count() + 1;
            prop_assert!(mistakes.told.iter().all(|mistake| (1..=lines).contains(&mistake.line)));
        }
    }
}
