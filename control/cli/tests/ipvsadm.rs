//! The command lines of ipvsadm and its listings, against recordings of ipvsadm 1.31 on Linux 6.1: those of
//! `tests/scenario/recorded`, which the scenario runner plays as a whole.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cli::ipvsadm::listing::{self, Counters, ListedConnection, ListedServer, ListedService};
use cli::ipvsadm::{Columns, Command, List, Mistake, Names, Role, ServiceKey, Subject, parse};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;

/// Every command line that a recording ran, with its exit status and output.
fn recorded(name: &str) -> Vec<(Vec<String>, u64, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/scenario/recorded")
        .join(name);
    let recording: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let steps = recording["results"].as_array().unwrap().iter();
    let commands = steps
        .filter_map(|step| step.get("ipvsadm"))
        .flat_map(|commands| commands.as_array().unwrap());
    let commands = commands.map(|command| {
        let line = command["command"]
            .as_str()
            .unwrap()
            .strip_prefix("ipvsadm ")
            .unwrap();
        let words = line
            .split(' ')
            .map(|word| word.trim_matches('"').to_owned());
        (
            words.collect(),
            command["rc"].as_u64().unwrap(),
            command["output"].as_str().unwrap().to_owned(),
        )
    });
    commands.collect()
}

/// Refused by the kernel, not by the command line's reader.
fn is_kernels(text: &str) -> bool {
    let starts = [
        "Service",
        "No ",
        "Destination",
        "Scheduler",
        "Numerical",
        "Invalid operation",
        "Daemon",
    ];
    starts.iter().any(|start| text.starts_with(start))
}

#[test]
fn every_recorded_mistake_has_its_text_and_exit_status() {
    let mut mistakes = 0;
    for file in [
        "ipvsadm-errors.expected.json",
        "ipvsadm-options.expected.json",
        "ipvsadm-services.expected.json",
    ] {
        for (words, status, output) in recorded(file) {
            let line = words.join(" ");
            match parse(&words) {
                Err(mistake) => {
                    mistakes += 1;
                    assert_eq!(
                        (mistake.to_string(), u64::from(mistake.exit_status())),
                        (output, status),
                        "{line}"
                    );
                }
                Ok(_) => assert!(
                    status == 0 || is_kernels(&output),
                    "{line}: {status} {output}"
                ),
            }
        }
    }
    assert!(mistakes > 150, "{mistakes} mistakes recorded");
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn list(line: &str) -> List {
    match parse(&words(line)) {
        Ok(Command::List(list)) => list,
        other => panic!("{line}: {other:?}"),
    }
}

/// What the recorded commands leave behind: the newest server first.
#[derive(Default)]
struct Model {
    services: Vec<ListedService>,
}

impl Model {
    fn change(&mut self, command: Command) {
        match command {
            Command::AddService(service) => self.services.push(ListedService {
                service,
                total: Counters::default(),
                rate: Counters::default(),
                servers: Vec::new(),
            }),
            Command::AddServer(key, server) => {
                let listed = ListedServer {
                    server,
                    active: 0,
                    inactive: 0,
                    persistent: 0,
                    total: Counters::default(),
                    rate: Counters::default(),
                };
                self.service(&key).servers.insert(0, listed);
            }
            Command::Clear => self.services.clear(),
            other => panic!("{other:?} is not in the recording"),
        }
    }

    fn service(&mut self, key: &ServiceKey) -> &mut ListedService {
        self.services
            .iter_mut()
            .find(|listed| listed.service.key == *key)
            .unwrap()
    }

    fn show(&self, command: &Command) -> Option<String> {
        match command {
            Command::Save { .. } => Some(listing::save(&self.services, false, &Names::numeric())),
            Command::List(list) => match list.subject {
                Subject::Services(only) => {
                    let mut services = self.services.clone();
                    services.retain(|listed| only.is_none_or(|key| listed.service.key == key));
                    Some(listing::services(list, &services, 4096, &Names::numeric()))
                }
                Subject::Connections => Some(listing::connections(list, &[], &Names::numeric())),
                Subject::Timeouts => Some(listing::timeouts(900, 120, 300)),
                Subject::Daemons => Some(listing::daemons(&[])),
            },
            _ => None,
        }
    }
}

#[test]
fn every_recorded_listing_is_printed_byte_for_byte() {
    let mut model = Model::default();
    let mut listings = 0;
    for (words, status, output) in recorded("ipvsadm-listings.expected.json") {
        let line = words.join(" ");
        match parse(&words) {
            Err(mistake) => assert_eq!(
                (mistake.to_string(), u64::from(mistake.exit_status())),
                (output, status)
            ),
            Ok(command) => match model.show(&command) {
                None => model.change(command),
                Some(text) => {
                    listings += 1;
                    // The recordings leave blanks out at the end.
                    assert_eq!(text.trim(), output, "{line}");
                }
            },
        }
    }
    assert!(listings > 15, "{listings} listings recorded");
}

/// A service that has seen traffic, as in the recording that the numbers are from.
fn busy() -> ListedService {
    let mut model = Model::default();
    for line in [
        "-A -t 10.0.0.100:80 -s rr",
        "-a -t 10.0.0.100:80 -r 10.2.0.11:8080 -m -x 4 -y 2",
    ] {
        model.change(parse(&words(line)).unwrap());
    }
    let mut service = model.services.remove(0);
    service.total = Counters {
        connections: 4,
        in_packets: 8,
        out_packets: 4,
        in_bytes: 320,
        out_bytes: 160,
    };
    service.rate.in_bytes = 40;
    let server = &mut service.servers[0];
    (server.active, server.inactive, server.persistent) = (2, 1, 3);
    server.total.in_bytes = 123_456_789;
    service
}

#[test]
fn counts_stand_in_their_columns() {
    for (line, expected) in [
        (
            "-Ln",
            "  -> 10.2.0.11:8080               Masq    1      2          1         ",
        ),
        (
            "-Ln --thresholds",
            "  -> 10.2.0.11:8080               4          2          2          1         ",
        ),
        (
            "-Ln --persistent-conn",
            "  -> 10.2.0.11:8080               1         3           2          1         ",
        ),
        (
            "-Ln --tun-info",
            "  -> 10.2.0.11:8080               Masq    n/a           1      2          1         ",
        ),
        (
            "-Ln --stats",
            "TCP  10.0.0.100:80                       4        8        4      320      160",
        ),
        (
            "-Ln --stats",
            "  -> 10.2.0.11:8080                      0        0        0  123456K        0",
        ),
        (
            "-Ln --stats --exact",
            "  -> 10.2.0.11:8080                      0        0        0 123456789        0",
        ),
        (
            "-Ln --rate",
            "TCP  10.0.0.100:80                       0        0        0       40        0",
        ),
    ] {
        let text = listing::services(&list(line), &[busy()], 4096, &Names::numeric());
        assert!(text.lines().any(|row| row == expected), "{line}:\n{text}");
    }
}

#[test]
fn connections_are_listed_with_their_engines_where_that_is_wanted() {
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    let template = ListedConnection {
        protocol: "UDP",
        expires_s: 56,
        state: "NONE".into(),
        client: end("10.64.0.1:0"),
        virtual_server: end("10.0.0.100:5060"),
        real_server: end("10.2.0.12:5060"),
        local: None,
        engine: Some(("sip".to_owned(), "call-one@10.64.0.1".to_owned())),
    };
    let row = "UDP 00:56  NONE        10.64.0.1:0        10.0.0.100:5060    10.2.0.12:5060";
    let plain = listing::connections(
        &list("-Lnc"),
        std::slice::from_ref(&template),
        &Names::numeric(),
    );
    assert_eq!(plain.lines().nth(2), Some(row));
    let with_engine = listing::connections(
        &list("-Lnc --persistent-conn"),
        &[template],
        &Names::numeric(),
    );
    let expected = format!("{row}   sip                call-one@10.64.0.1");
    assert_eq!(with_engine.lines().nth(2), Some(expected.as_str()));
}

#[test]
fn daemons_are_listed_in_full() {
    let start = "--start-daemon master --mcast-interface vc --syncid 5 --sync-maxlen 1472 --mcast-port 8848 --mcast-ttl 1";
    let Ok(Command::StartDaemon(daemon)) = parse(&words(start)) else {
        panic!("{start}");
    };
    assert_eq!(daemon.role, Role::Master);
    let expected = "master sync daemon (mcast=vc, syncid=5, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n";
    assert_eq!(listing::daemons(&[daemon]), expected);
}

#[test]
fn no_arguments_list_and_an_edit_tells_whether_the_method_was_said() {
    let Ok(Command::List(all)) = parse(&[]) else {
        panic!("no arguments are a listing");
    };
    assert_eq!(
        (all.subject, all.columns, all.numeric),
        (Subject::Services(None), Columns::Plain, false)
    );
    for (line, said) in [
        ("-e -t 10.0.0.1:80 -r 10.2.0.1 -w 2", false),
        ("-e -t 10.0.0.1:80 -r 10.2.0.1 -w 2 -g", true),
    ] {
        let Ok(Command::EditServer { method_is_said, .. }) = parse(&words(line)) else {
            panic!("{line}");
        };
        assert_eq!(method_is_said, said, "{line}");
    }
}

#[test]
fn words_that_begin_no_command_are_refused() {
    for line in ["-n", "foo", "-z", "--nosuch", "--start-daemon"] {
        assert_eq!(parse(&words(line)), Err(Mistake::NoCommand), "{line}");
    }
}

const FULLNAT: [&str; 2] = [
    "-A -t 10.0.0.100:80 -s rr --laddr 10.2.0.200,10.2.0.201:5000-5003",
    "-a -t 10.0.0.100:80 -r 10.2.0.11:8080 --fullnat -w 1",
];

#[test]
fn local_addresses_are_listed_with_the_services_that_have_them() {
    let mut model = Model::default();
    for line in FULLNAT {
        model.change(parse(&words(line)).unwrap());
    }
    assert_eq!(
        listing::save(&model.services, false, &Names::numeric()),
        FULLNAT.join("\n") + "\n"
    );
    let text = listing::services(&list("-Ln"), &model.services, 4096, &Names::numeric());
    assert_eq!(
        text.lines().nth(3),
        Some("TCP  10.0.0.100:80 rr laddr 10.2.0.200,10.2.0.201:5000-5003")
    );
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    let connection = ListedConnection {
        protocol: "TCP",
        expires_s: 60,
        state: "SYN_RECV".into(),
        client: end("10.64.0.7:40001"),
        virtual_server: end("10.0.0.100:80"),
        real_server: end("10.2.0.11:8080"),
        local: Some(end("10.2.0.200:5000")),
        engine: None,
    };
    let text = listing::connections(&list("-Lnc"), &[connection], &Names::numeric());
    let row = "TCP 01:00  SYN_RECV    10.64.0.7:40001    10.0.0.100:80      10.2.0.11:8080 laddr 10.2.0.200:5000";
    assert_eq!(text.lines().nth(2), Some(row));
}

#[test]
fn mistakes_with_local_addresses_are_told_as_others_are() {
    for (line, expected) in [
        (
            "-A -t 10.0.0.100:80 --laddr 10.2.0",
            "illegal local address specified",
        ),
        (
            "-A -t 10.0.0.100:80 --laddr fd00::200",
            "Local addresses are of the virtual service's address family",
        ),
        (
            "-A -f 7 -6 --laddr 10.2.0.200",
            "Local addresses are of the virtual service's address family",
        ),
        (
            "-a -t 10.0.0.100:80 -r 10.2.0.11 --fullnat --laddr 10.2.0.200",
            "Illegal 'laddr' option with the 'add-server' command",
        ),
        (
            "-A -t 10.0.0.100:80 --laddr 10.2.0.200 --laddr 10.2.0.201",
            "multiple 'laddr' options specified",
        ),
    ] {
        let mistake = parse(&words(line)).unwrap_err();
        assert_eq!(
            (mistake.to_string().as_str(), mistake.exit_status()),
            (expected, 2),
            "{line}"
        );
    }
}

#[test]
fn a_fullnat_server_needs_local_addresses_and_connections() {
    let Ok(Command::AddServer(_, server)) = parse(&words(FULLNAT[1])) else {
        panic!("{}", FULLNAT[1]);
    };
    for (line, expected) in [
        ("-A -u 10.0.0.100:80 --laddr 10.2.0.200", Ok(())),
        ("-A -u 10.0.0.100:80", Err(Mistake::NoLocalAddresses)),
        (
            "-A -u 10.0.0.100:80 --laddr 10.2.0.200 -o",
            Err(Mistake::OnePacketFullNat),
        ),
    ] {
        let Ok(Command::AddService(service)) = parse(&words(line)) else {
            panic!("{line}");
        };
        assert_eq!(service.takes(&server), expected, "{line}");
    }
    assert_eq!(Mistake::NoLocalAddresses.exit_status(), 2);
}
