//! The same script of commands as the real ipvsadm 1.31 ran it on the real kernel (tests/ipvsadm/), against a director over its
//! control socket: outputs, errors and exit statuses, byte for byte but for the differences that are listed here.
//!
//!   IPVS_ORACLE=.../ipvs-oracle cargo test -p cli --test against_the_kernel -- --ignored record     records anew (root)

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod bed;

use bed::Bed;
use cli::connect;
use cli::ipvsadm::{self, Streams};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The table is as large as the kernel's hash, which the listings tell.
const DIRECTOR: &str = r#"
[director]
connections = 4096
[port.client]
driver = "memory"
addresses = ["10.1.0.1/24", "fd00:1::1/64"]
[port.server]
driver = "memory"
addresses = ["10.2.0.1/24", "fd00:2::1/64"]
"#;

/// Commands that rightly do not do what the kernel does: what they say here, and why.
const DIFFERENCES: [(&str, &str, &str); 9] = [
    (
        "ipvsadm -v",
        "ipvsadm v1.31 (uvs 0.1.0, a director in user space)\n[0]",
        "it is another program",
    ),
    (
        "ipvsadm -e -t 10.0.0.100:80 -r 10.2.0.11 -w 4",
        "[0]\nwarning: 10.2.0.11:80 of tcp 10.0.0.100:80 was reached by NAT and is by DR now, as no method was said: -m keeps NAT",
        "ipvsadm says nothing of it, and operators lose servers to it",
    ),
    (
        "ipvsadm -a -t 10.0.0.100:80 -r 10.2.0.12 -m -w 65536",
        "[255]\na weight of 65536 is too much for the director; accepted: 0 to 65535",
        "weights are 16 bits wide",
    ),
    (
        "ipvsadm -A -t 10.0.0.100:80 -s rr -b flag-1,flag-3",
        "[255]\nthe scheduler rr has no such flag; accepted: flag-1 and flag-2 of sh and mh",
        "a flag that does nothing is a mistake",
    ),
    (
        "ipvsadm -A -t 10.0.0.100:80 -s sh -b flag-3",
        "[255]\nthe scheduler sh has no such flag; accepted: flag-1 and flag-2 of sh and mh",
        "a flag that does nothing is a mistake",
    ),
    (
        "ipvsadm -A -u 224.0.0.9:80 -s rr",
        "[255]\nedits.edits[0].create_service.key.address: \"224.0.0.9\" is not a host's address; accepted: a unicast IPv4 or IPv6 address, such as \"10.0.0.11\" or \"fd00::11\"",
        "the director answers for virtual addresses, and no host answers for a group",
    ),
    (
        "ipvsadm -a -t 10.0.0.100:80 -r 10.77.0.1 -m",
        "[255]\nedits.edits[0]: 10.77.0.1 is not an address with a way to it; accepted: an address in 10.1.0.0/24, fd00:1::/64, 10.2.0.0/24, fd00:2::/64, or a [[route]] to it",
        "the director has no default route that it was not told of",
    ),
    (
        "ipvsadm -a -t 10.0.0.100:80 -r 10.0.0.100 -m",
        "[255]\nedits.edits[0]: 10.0.0.100 is the director's own address; accepted: the address of another host",
        "the director runs no servers",
    ),
    (
        "ipvsadm --start-daemon master --mcast-interface nosuch0",
        "[255]\nconnection synchronisation is not there yet: no daemon was started",
        "not there yet",
    ),
];

/// Listings that come after one of those, and are what they are because of it.
const CONSEQUENCES: [(&str, &str, &str); 1] = [(
    "ipvsadm -A -u 10.0.0.100:80 -s rr --pe sip",
    "ipvsadm -Sn",
    "-A -u 10.0.0.100:80 -s rr\n[0]",
)];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ipvsadm")
}

/// Every command with what it said: its output, its exit status, its errors.
fn recorded() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder().join("expected.txt")).unwrap();
    let mut all: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => all.push((command.to_owned(), String::new())),
            None => {
                let (_, said) = all.last_mut().unwrap();
                said.push_str(line);
                said.push('\n');
            }
        }
    }
    all
}

/// What a director is told by these words.
struct Ipvsadm {
    options: connect::Options,
    _bed: Bed,
}

impl Ipvsadm {
    fn new() -> Ipvsadm {
        let bed = Bed::new(DIRECTOR);
        Ipvsadm {
            options: connect::Options::socket(&bed.socket()),
            _bed: bed,
        }
    }

    /// What a command says.
    fn say(&self, command: &str) -> String {
        let (line, input) = command.split_once(" <<< ").unwrap_or((command, ""));
        let input = input
            .replace("\\n", "\n")
            .replace("\\t", "\t")
            .replace("\\\"", "\"");
        let mut words = line.split(' ').map(str::to_owned);
        let called = ipvsadm::called_as(OsStr::new(&words.next().unwrap())).unwrap();
        let words: Vec<String> = words.collect();
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let mut streams = Streams {
            input: &mut input.as_bytes(),
            output: &mut output,
            errors: &mut errors,
        };
        let status = ipvsadm::run(called, &words, &self.options, &mut streams);
        let [output, errors] = [output, errors].map(|bytes| String::from_utf8(bytes).unwrap());
        format!("{output}[{status}]\n{errors}")
    }
}

#[test]
fn the_script_says_what_it_said_to_the_kernel() {
    let bed = Ipvsadm::new();
    let recorded = recorded();
    assert!(recorded.len() >= 250, "{} commands", recorded.len());
    let mut wrong = String::new();
    let mut met = 0;
    let mut before = "";
    for (place, (command, expected)) in recorded.iter().enumerate() {
        let difference = DIFFERENCES.iter().find(|(known, ..)| known == command);
        let consequence = CONSEQUENCES
            .iter()
            .find(|(cause, known, _)| *cause == before && known == command);
        let listed = difference
            .map(|(_, said, _)| said)
            .or(consequence.map(|(_, _, said)| said));
        met += usize::from(listed.is_some());
        let expected = listed.map_or_else(|| expected.trim_end(), |said| *said);
        let said = bed.say(command);
        if said.trim_end() != expected {
            writeln!(
                wrong,
                "{place}: {command}\n--- kernel\n{expected}\n--- here\n{said}"
            )
            .unwrap();
        }
        before = command;
    }
    assert_eq!(wrong, "");
    assert_eq!(
        met,
        DIFFERENCES.len() + CONSEQUENCES.len(),
        "each is met once"
    );
}

#[test]
fn rules_are_restored_as_a_whole_or_not_at_all() {
    let bed = Ipvsadm::new();
    assert_eq!(bed.say("ipvsadm -A -t 10.0.0.9:80 -s rr"), "[0]\n");
    let wrong = "ipvsadm -R --atomic <<< -A -t 10.0.0.1:80 -s rr\\n# here\\n-A -t 10.0.0.9:80 -s rr\\n-C\\n";
    assert_eq!(bed.say(wrong), "[255]\nline 3: Service already exists\n");
    let mistaken = "ipvsadm -R --atomic <<< -A -t 10.0.0.1:80 -s rr\\n-A -t 10.0.0.2\\n";
    assert_eq!(
        bed.say(mistaken),
        "[2]\nline 2: Zero port specified for non-persistent service\n"
    );
    let elsewhere =
        "ipvsadm -R --atomic <<< -A -t 10.0.0.1:80 -s rr\\n-a -t 10.0.0.1:80 -r 10.77.0.1\\n";
    let said = bed.say(elsewhere);
    assert!(
        said.starts_with("[255]\nstate.services[1].servers[0].address: 10.77.0.1"),
        "{said}"
    );
    assert_eq!(bed.say("ipvsadm -Sn"), "-A -t 10.0.0.9:80 -s rr\n[0]\n");
    let right = "ipvsadm-restore --atomic <<< -A -t 10.0.0.1:80 -s rr\\n-a -t 10.0.0.1:80 -r 10.2.0.5 -m -x 9\\n--set 60 0 0\\n";
    assert_eq!(bed.say(right), "[0]\n");
    let full = "--set 60 120 300\n-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.2.0.5:80 -m -w 1 -x 9\n[0]\n";
    assert_eq!(bed.say("ipvsadm -S -n --full"), full);
}

#[test]
fn fullnat_has_local_addresses_of_its_own() {
    let bed = Ipvsadm::new();
    for (command, expected) in [
        (
            "ipvsadm -A -t 10.0.0.1:80 -s rr --laddr 10.2.0.200:5000-5003",
            "[0]\n",
        ),
        (
            "ipvsadm -a -t 10.0.0.1:80 -r 10.2.0.5:8080 --fullnat",
            "[0]\n",
        ),
        ("ipvsadm -A -t 10.0.0.2:80 -s rr", "[0]\n"),
        (
            "ipvsadm -a -t 10.0.0.2:80 -r 10.2.0.5 --fullnat",
            "[2]\nFULLNAT servers need the virtual service's 'laddr' option\n",
        ),
        (
            "ipvsadm -Sn",
            "-A -t 10.0.0.1:80 -s rr --laddr 10.2.0.200:5000-5003\n-a -t 10.0.0.1:80 -r 10.2.0.5:8080 --fullnat -w 1\n-A -t 10.0.0.2:80 -s rr\n[0]\n",
        ),
        (
            "ipvsadm -E -t 10.0.0.1:80 -s wrr --laddr 10.2.0.201",
            "[0]\n",
        ),
        (
            "ipvsadm -Ln -t 10.0.0.1:80",
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\nTCP  10.0.0.1:80 wrr laddr 10.2.0.201\n  -> 10.2.0.5:8080                FullNat 1      0          0         \n[0]\n",
        ),
        ("ipvsadm -D -t 10.0.0.1:80", "[0]\n"),
        ("ipvsadm -A -t 10.0.0.3:80 --laddr 10.2.0.201", "[0]\n"),
        ("ipvsadm -C", "[0]\n"),
        ("ipvsadm -Sn", "[0]\n"),
    ] {
        assert_eq!(bed.say(command), expected, "{command}");
    }
}

#[test]
fn listings_come_as_json_too() {
    let bed = Ipvsadm::new();
    bed.say("ipvsadm -A -t 10.0.0.1:80 -s rr");
    bed.say("ipvsadm -a -t 10.0.0.1:80 -r 10.2.0.5 -m -w 7");
    let json = |command| -> serde_json::Value {
        let said = bed.say(command);
        let text = said
            .strip_suffix("[0]\n")
            .unwrap_or_else(|| panic!("{said}"));
        serde_json::from_str(text).unwrap()
    };
    let services = json("ipvsadm -L --json");
    assert_eq!(services["services"][0]["servers"][0]["weight"], 7);
    assert_eq!(json("ipvsadm -L --timeout --json")["tcp_s"], 900);
    assert_eq!(
        json("ipvsadm -Lc --json")["connections"],
        serde_json::json!([])
    );
    assert_eq!(
        json("ipvsadm -L --daemon --json")["daemons"],
        serde_json::json!([])
    );
}

#[test]
fn without_a_director_it_says_where_it_looked() {
    let folder = tempfile::tempdir().unwrap();
    let options = connect::Options::socket(&folder.path().join("none"));
    let mut errors = Vec::new();
    let mut streams = Streams {
        input: &mut std::io::empty(),
        output: &mut Vec::new(),
        errors: &mut errors,
    };
    let words = ["-Ln".to_owned()];
    let status = ipvsadm::run(ipvsadm::Called::Ipvsadm, &words, &options, &mut streams);
    let errors = String::from_utf8(errors).unwrap();
    assert_eq!(status, 255);
    assert!(
        errors.contains("none: ") && errors.contains("accepted: "),
        "{errors}"
    );
}

/// Commands between which nothing is kept, so that each run of the oracle ends in time.
fn parts(commands: &str) -> Vec<Vec<&str>> {
    let mut parts = vec![Vec::new()];
    for command in commands.lines() {
        let part = parts.last_mut().unwrap();
        part.push(command);
        if command == "ipvsadm -C" && part.len() > 30 {
            parts.push(Vec::new());
        }
    }
    parts
}

#[test]
#[ignore = "records anew what the kernel says: needs root and IPVS_ORACLE"]
fn record() {
    let oracle = std::env::var_os("IPVS_ORACLE").expect("the path of ipvs-oracle");
    let commands = std::fs::read_to_string(folder().join("commands.txt")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let [scenario, result] = ["scenario.json", "result.json"].map(|name| scratch.path().join(name));
    let mut text = String::new();
    for part in parts(&commands) {
        let mut lines = vec!["netns attach here 1".to_owned()];
        lines.extend(part.iter().map(|command| {
            let script = match command.split_once(" <<< ") {
                Some((program, input)) => format!("printf %b \"{input}\" | {program}"),
                None => (*command).to_owned(),
            };
            format!(
                "netns exec here sh -c '{script} 2>/run/errors; echo \"[$?]\"; cat /run/errors'"
            )
        }));
        let modules = "rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh pe_sip".split(' ');
        let modules: Vec<_> = modules.map(|name| format!("ip_vs_{name}")).collect();
        let steps =
            serde_json::json!({ "modules": modules, "limit": 60, "steps": [{ "ip": lines }] });
        std::fs::write(&scenario, steps.to_string()).unwrap();
        let mut command = std::process::Command::new(&oracle);
        command.arg("run").arg(&scenario).arg("-o").arg(&result);
        assert!(command.status().unwrap().success());
        let said = std::fs::read_to_string(&result).unwrap();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let steps = said["results"].as_array().unwrap().iter();
        let said = steps.flat_map(|step| step["ip"].as_array().into_iter().flatten());
        let said: Vec<_> = said.skip(1).collect();
        assert_eq!(said.len(), part.len());
        for (command, said) in part.iter().zip(said) {
            writeln!(text, "$ {command}\n{}", said["output"].as_str().unwrap()).unwrap();
        }
    }
    std::fs::write(folder().join("expected.txt"), text).unwrap();
}
