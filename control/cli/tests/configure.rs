//! `uvs service`, `uvs plan` and their like, as a person types them, against a director over its control socket.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod bed;

use bed::Bed;
use serde_json::Value;
use std::process::{Command, Stdio};

const DIRECTOR: &str = r#"
[director]
connections = 1000
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
"#;

/// A person's shell.
struct Shell {
    bed: Bed,
}

impl Shell {
    fn new() -> Shell {
        Shell {
            bed: Bed::new(DIRECTOR),
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uvs"));
        command
            .args(line.split_whitespace())
            .env("UVS_SOCKET", self.bed.socket())
            .stdin(Stdio::null());
        command
    }

    /// Exit status, output and errors.
    fn run(&self, line: &str) -> (i32, String, String) {
        let output = self.command(line).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// The output of a command that succeeds.
    fn ok(&self, line: &str) -> String {
        let (status, output, errors) = self.run(line);
        assert_eq!((status, errors.as_str()), (0, ""), "{line}\n{output}");
        output
    }

    /// The errors of a command that fails.
    fn fails(&self, line: &str) -> String {
        let (status, output, errors) = self.run(line);
        assert_eq!((status, output.as_str()), (1, ""), "{line}\n{errors}");
        errors
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.bed.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Words, one blank between them.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_part_is_added_changed_shown_and_removed() {
    let bed = Shell::new();
    for (line, shown, expected) in [
        (
            "service add tcp 10.0.0.100:80 --method nat --scheduler sh --flags sh-port --persistence-timeout 60",
            "service show",
            "tcp 10.0.0.100:80 sh nat flags sh-port persistence 60 s",
        ),
        (
            "service set tcp 10.0.0.100:80 --scheduler wlc --flags none --slow-start 9",
            "service show",
            "tcp 10.0.0.100:80 wlc nat persistence 60 s slow start 9 s",
        ),
        (
            "server add tcp 10.0.0.100:80 10.1.0.11:8080 --weight 3",
            "service show tcp 10.0.0.100:80",
            "tcp 10.0.0.100:80 wlc nat persistence 60 s slow start 9 s 10.1.0.11:8080 nat weight 3",
        ),
        (
            "server set tcp 10.0.0.100:80 10.1.0.11:8080 --upper 9",
            "service show",
            "tcp 10.0.0.100:80 wlc nat persistence 60 s slow start 9 s 10.1.0.11:8080 nat weight 3 upper 9",
        ),
        (
            "server add tcp 10.0.0.100:80 10.1.0.12 --method tun --tunnel gue --tunnel-port 6080",
            "service show",
            "tcp 10.0.0.100:80 wlc nat persistence 60 s slow start 9 s 10.1.0.11:8080 nat weight 3 upper 9 10.1.0.12:80 tun weight 1 gue 6080",
        ),
        (
            "server remove tcp 10.0.0.100:80 10.1.0.11:8080",
            "service show",
            "tcp 10.0.0.100:80 wlc nat persistence 60 s slow start 9 s 10.1.0.12:80 tun weight 1 gue 6080",
        ),
        ("service remove tcp 10.0.0.100:80", "service show", ""),
        (
            "pool add a 10.1.0.200 10.1.0.201 --ports 2000-3000",
            "pool show",
            "a 2000-3000 10.1.0.200 10.1.0.201",
        ),
        (
            "pool set a 10.1.0.202",
            "pool show",
            "a 2000-3000 10.1.0.202",
        ),
        ("pool remove a", "pool show", ""),
        (
            "route add 10.9.0.0/16 --via 10.1.0.254",
            "route show",
            "10.9.0.0/16 via 10.1.0.254",
        ),
        (
            "route set 10.9.0.0/16 --via 10.1.0.253",
            "route show",
            "10.9.0.0/16 via 10.1.0.253",
        ),
        ("route remove 10.9.0.0/16", "route show", ""),
        (
            "mark add 7 --protocol udp --destination-ports 53 --source 10.3.0.0/16",
            "mark show",
            "1 mark 7 source 10.3.0.0/16 protocol udp destination-ports 53-53",
        ),
        (
            "mark add 8 --port lan",
            "mark show",
            "1 mark 7 source 10.3.0.0/16 protocol udp destination-ports 53-53 2 mark 8 port lan",
        ),
        ("mark remove 1", "mark show", "1 mark 8 port lan"),
        (
            "address add lan 10.2.0.1/24",
            "address show",
            "lan 10.1.0.1/24 10.2.0.1/24",
        ),
        (
            "address remove lan 10.2.0.1/24",
            "address show",
            "lan 10.1.0.1/24",
        ),
        (
            "timeout set --tcp-fin 7",
            "timeout show",
            "tcp 900 s, tcp-fin 7 s, udp 300 s",
        ),
    ] {
        let told = bed.ok(line);
        assert!(told.starts_with("revision "), "{line}: {told}");
        assert_eq!(squeezed(&bed.ok(shown)), expected, "{line}");
    }
    bed.ok("ipvs set sloppy_tcp=true drop_entry=1");
    let ipvs = bed.ok("ipvs show");
    assert!(
        ipvs.contains("sloppy_tcp=true\n") && ipvs.contains("drop_entry=1\n"),
        "{ipvs}"
    );
    let mark: Value = serde_json::from_str(&bed.ok("mark show --json")).unwrap();
    assert_eq!(mark[0]["mark"], 8);
}

#[test]
fn what_is_wrong_is_told_with_what_is_accepted() {
    let bed = Shell::new();
    bed.ok("service add tcp 10.0.0.100:80 --method nat");
    bed.ok("server add tcp 10.0.0.100:80 10.1.0.11");
    for (line, parts) in [
        (
            "service add tcp 10.0.0.300:80 --method nat",
            vec!["\"10.0.0.300:80\" is not a service's address; accepted: "],
        ),
        (
            "service add tcp 10.0.0.101:80",
            vec!["method", "accepted: --method nat, dr, tun or fullnat"],
        ),
        (
            "service add tcp 10.0.0.100:80 --method nat",
            vec!["exists already; accepted: "],
        ),
        (
            "service set tcp 10.0.0.100:81 --scheduler rr",
            vec!["no service tcp 10.0.0.100:81; the nearest is tcp 10.0.0.100:80"],
        ),
        (
            "server set tcp 10.0.0.100:80 10.1.0.12 --weight 2",
            vec!["has no server 10.1.0.12:80; it has 10.1.0.11:80"],
        ),
        (
            "server add tcp 10.0.0.100:80 10.77.0.1",
            vec!["edits.edits[0]: ", "with a way to it; accepted: "],
        ),
        (
            "service add tcp 10.0.0.102:80 --method nat --scheduler wcl --helper fpt",
            vec![
                "create_service.scheduler: ",
                "\n",
                "create_service.helper: ",
            ],
        ),
        ("pool remove b", vec!["there is no LIP pool b"]),
        ("mark remove 3", vec!["\"3\" is not the number of a rule"]),
        (
            "address remove lan 10.2.0.1/24",
            vec!["accepted: 10.1.0.1/24"],
        ),
        (
            "drain 10.0.0.100:81 10.1.0.11",
            vec!["no service tcp 10.0.0.100:81; the nearest is tcp 10.0.0.100:80"],
        ),
        ("zero 10.0.0.100:81", vec!["no service tcp 10.0.0.100:81"]),
        ("confirm", vec!["no change waits for its confirmation"]),
        (
            "route add 10.9.0.0/16 --via 10.1.0.254 --expect-revision 77",
            vec!["revision 3, not 77"],
        ),
    ] {
        let errors = bed.fails(line);
        for part in parts {
            assert!(errors.contains(part), "{line}: {errors}");
        }
    }
    assert_eq!(bed.ok("route show"), "");
}

#[test]
fn a_file_is_planned_applied_confirmed_and_rolled_back() {
    let bed = Shell::new();
    let text = format!(
        "{DIRECTOR}[[service]]\nlisten = \"tcp 10.0.0.100:80\"\nmethod = \"nat\"\nserver = [{{ address = \"10.1.0.11\" }}]\n"
    );
    let file = bed.file("wanted.toml", &text);
    let plan = bed.ok(&format!("plan {file}"));
    assert!(
        plan.starts_with("would change revision 1: 1 services added"),
        "{plan}"
    );
    assert!(squeezed(&plan).contains("add tcp 10.0.0.100:80"), "{plan}");
    assert_eq!(bed.ok("service show"), "");
    let dry = bed.ok(&format!("apply {file} --dry-run --json"));
    let dry: Value = serde_json::from_str(&dry).unwrap();
    assert_eq!(dry["plan"]["services"][0]["action"], "ACTION_ADD");

    let told = bed.ok(&format!(
        "apply {file} --expect-revision 1 --confirm-within 60s"
    ));
    assert!(told.contains("`uvs confirm 2`"), "{told}");
    let back = bed.ok("rollback");
    assert!(back.starts_with("revision 3: 1 services removed"), "{back}");
    bed.ok(&format!("apply {file} --confirm-within 1m"));
    assert_eq!(bed.ok("confirm"), "revision 4 stays\n");
    assert!(
        bed.ok("service show")
            .starts_with("tcp 10.0.0.100:80 wlc nat")
    );

    let other = bed.file(
        "other.toml",
        &text.replace("connections = 1000", "connections = 2000"),
    );
    let (status, output, errors) = bed.run(&format!("plan {other}"));
    assert_eq!(
        (status, output.as_str()),
        (0, "would change revision 4: nothing changes\n")
    );
    assert!(
        errors.starts_with("warning: [director] in the file are not"),
        "{errors}"
    );
    let wrong = bed.file("wrong.toml", "[nosuch]\n");
    assert!(
        bed.fails(&format!("plan {wrong}"))
            .contains("wrong.toml:1: ")
    );
}

#[test]
fn what_is_exported_can_be_taken_back() {
    let bed = Shell::new();
    bed.ok("service add tcp 10.0.0.100:80 --method nat --scheduler rr");
    bed.ok("server add tcp 10.0.0.100:80 10.1.0.11 --weight 3 --upper 9");
    let toml = bed.ok("export");
    let file = bed.file("exported.toml", &toml);
    assert_eq!(
        bed.ok(&format!("plan {file}")),
        "would change revision 3: nothing changes\n"
    );
    let rules = bed.ok("export --format ipvsadm");
    let expected = "--set 900 120 300\n-A -t 10.0.0.100:80 -s rr\n-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m -w 3 -x 9\n";
    assert_eq!(rules, expected);
    let rules = bed.file("rules", &rules);
    bed.ok("service add tcp 10.0.0.101:80 --method nat");
    let told = bed.ok(&format!("import {rules} --dry-run"));
    assert!(
        told.starts_with("would change revision 4: ") && told.contains("1 services removed"),
        "{told}"
    );
    bed.ok(&format!("import {rules}"));
    assert_eq!(bed.ok("export --format ipvsadm"), expected);
    let tables = bed.ok(&format!("import {rules} --to-toml"));
    assert!(
        tables.contains("listen = \"tcp 10.0.0.100:80\"") && !tables.contains("\n[port"),
        "{tables}"
    );
    let wrong = bed.file("wrong", "-A -t 10.0.0.1:80\n-A -t 10.0.0.1\n");
    assert!(
        bed.fails(&format!("import {wrong}"))
            .contains("wrong:2: Zero port")
    );
}

#[test]
fn changes_are_watched() {
    use std::io::{BufRead, BufReader};
    let bed = Shell::new();
    let mut watch = bed
        .command("watch --json")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["revision"], 1);
    bed.ok("service add udp 10.0.0.100:53 --method dr");
    let news = next();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(news["revision"], 2);
    assert_eq!(
        news["plan"]["services"][0]["key"]["protocol"],
        "PROTOCOL_UDP"
    );
}

#[test]
fn a_drain_ends_with_its_outcome_in_words_or_as_json() {
    let bed = Shell::new();
    bed.ok("service add udp 10.0.0.100:53 --method dr");
    for server in ["10.1.0.11", "10.1.0.12"] {
        bed.ok(&format!("server add udp 10.0.0.100:53 {server}"));
    }
    let lines = bed.ok("drain udp:10.0.0.100:53 10.1.0.11 --json");
    let told: Value = serde_json::from_str(lines.trim_end()).unwrap();
    let nothing = serde_json::json!({
        "active": 0, "inactive": 0, "persistent": 0, "done": true, "ended": 0, "revision": 5
    });
    assert_eq!((told, lines.lines().count()), (nothing, 1));
    assert_eq!(
        bed.ok("drain udp:10.0.0.100:53 10.1.0.12"),
        "drained (revision 6): 0 active, 0 inactive left\n"
    );
    let shown = squeezed(&bed.ok("service show"));
    assert!(shown.contains("10.1.0.11:53 dr weight 0"), "{shown}");
    let refused = bed.fails("drain udp:10.0.0.100:53 10.1.0.13 --json");
    assert!(refused.contains("10.1.0.13:53"), "{refused}");
}

#[test]
fn a_stream_says_so_when_its_director_goes() {
    let mut bed = Shell::new();
    bed.ok("service add tcp 10.0.0.100:80 --method nat");
    let start = |line: &str| {
        let mut command = bed.command(line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut streams = [
        "watch",
        "watch --json",
        "list --watch",
        "list --watch --json",
    ]
    .map(start);
    for stream in &mut streams {
        let mut first = [0; 10];
        let output = stream.stdout.as_mut().unwrap();
        std::io::Read::read_exact(output, &mut first).unwrap();
    }
    bed.bed.stop();
    for stream in streams {
        let output = stream.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            told.starts_with("uvs: the connection to the director broke: ")
                || told.starts_with("uvs: the director tells no more: "),
            "{told}"
        );
    }
}

#[test]
fn services_are_listed_again_and_again() {
    use std::io::{BufRead, BufReader};
    let bed = Shell::new();
    bed.ok("service add tcp 10.0.0.100:80 --method nat");
    let mut command = bed.command("list --watch --json --interval 100");
    let mut watch = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let told: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(told[0]["service"], "TCP 10.0.0.100:80");
    }
    // Who has read enough ends it.
    drop(lines);
    assert!(watch.wait().unwrap().success());
    let (status, _, told) = bed.run("zero");
    assert!(status == 2 && told.contains("SERVICE"), "{told}");
}

/// Whoever reads may have had enough; a disk that is full is told.
#[test]
fn a_closed_pipe_is_no_failure_and_a_full_disk_is_one() {
    let bed = Shell::new();
    bed.ok("service add tcp 10.0.0.100:80 --method nat");
    bed.ok("server add tcp 10.0.0.100:80 10.1.0.11");
    for line in [
        "status",
        "list",
        "service show --json",
        "connections",
        "connections --json",
        "connections count",
        "timeout show",
        "export",
        "export --format ipvsadm",
        "drain 10.0.0.100:80 10.1.0.11",
        "drain 10.0.0.100:80 10.1.0.11 --json",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = bed.command(line).stdout(writer).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), told.as_str()),
            (Some(0), ""),
            "{line}"
        );
        let full = std::fs::File::options().write(true).open("/dev/full");
        let output = bed.command(line).stdout(full.unwrap()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(
            told.contains("standard output: No space left"),
            "{line}: {told}"
        );
    }
}

#[test]
fn every_answer_comes_as_json_too() {
    let bed = Shell::new();
    bed.ok("service add tcp 10.0.0.100:80 --method nat");
    bed.ok("server add tcp 10.0.0.100:80 10.1.0.11");
    for line in [
        "status",
        "list",
        "zero --all",
        "zero 10.0.0.100:80",
        "connections",
        "connections count",
        "connections kill --all",
        "explain tcp 10.1.0.9:4000 10.0.0.100:80",
        "export",
        "drain 10.0.0.100:80 10.1.0.11",
        "service show",
        "server show",
        "pool show",
        "route show",
        "mark show",
        "address show",
        "timeout show",
        "ipvs show",
        "service set tcp 10.0.0.100:80 --scheduler rr",
        "server set tcp 10.0.0.100:80 10.1.0.11 --weight 5 --dry-run",
    ] {
        let text = bed.ok(&format!("{line} --json"));
        let read = serde_json::from_str::<Value>(&text);
        assert!(read.is_ok(), "{line}: {read:?}\n{text}");
    }
    let state: Value = serde_json::from_str(&bed.ok("export --json")).unwrap();
    assert_eq!(state["state"]["services"][0]["scheduler"], "rr");
    let drained: Value =
        serde_json::from_str(&bed.ok("drain 10.0.0.100:80 10.1.0.11 --json")).unwrap();
    assert_eq!(
        (&drained["done"], &drained["active"]),
        (&true.into(), &0.into())
    );
}

#[test]
fn words_that_other_programs_have_for_it_do_as_well() {
    let bed = Shell::new();
    bed.ok("service add tcp 10.0.0.100:80 --method nat");
    bed.ok("server add tcp 10.0.0.100:80 10.1.0.11");
    bed.ok("server edit tcp 10.0.0.100:80 10.1.0.11 --weight 7");
    for line in [
        "server show",
        "server list tcp 10.0.0.100:80",
        "service list",
    ] {
        assert!(bed.ok(line).contains("weight 7"), "{line}");
    }
    bed.ok("server delete tcp 10.0.0.100:80 10.1.0.11");
    bed.ok("service rm tcp 10.0.0.100:80");
    assert_eq!(bed.ok("service list"), "");
}

#[test]
fn the_program_is_ipvsadm_by_that_name() {
    let bed = Shell::new();
    bed.ok("ipvsadm -A -t 10.0.0.100:80 -s rr");
    let link = bed.bed.folder.path().join("ipvsadm-save");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_uvs"), &link).unwrap();
    let output = Command::new(&link)
        .arg("-n")
        .env("UVS_SOCKET", bed.bed.socket())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "-A -t 10.0.0.100:80 -s rr\n"
    );
    let (status, output, _) = bed.run("ipvsadm -h");
    assert!(
        status == 0 && output.starts_with("ipvsadm v1.31 (uvs "),
        "{output}"
    );
    let (status, _, errors) = bed.run("ipvsadm -D -t 10.0.0.1:1");
    assert_eq!((status, errors.as_str()), (255, "No such service\n"));
}
