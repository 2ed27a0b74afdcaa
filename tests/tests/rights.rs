//! What uvsd lets others do by the kernel's way of managing IPVS, and what it may do itself. Needs root.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Method, Namespace};
use e2e::{Configuration, Driver, HTTP_PORT, Output, Process, Scene, Uvsd, client, eventually};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(15);
/// The user nobody, somebody unknown, and the group daemon: as on every Debian.
const NOBODY: u32 = 65_534;
const STRANGER: u32 = 54_321;
const DAEMON: u32 = 1;

/// Debian's own ipvsadm as another user, with the library preloaded.
fn ipvsadm(namespace: &Namespace, folder: &Path, user: u32, words: &str) -> (String, i32) {
    let uvs = e2e::client_executable();
    let mut command = namespace.command(uvs.to_str().unwrap());
    command
        .arg("compat")
        .arg("--netlink")
        .arg(folder.join("uvs.sock.nl"));
    command.arg("--library").arg(folder.join("libuvs-ipvs.so"));
    command
        .args(["--", "setpriv", "--reuid"])
        .arg(user.to_string());
    command.arg("--regid").arg(DAEMON.to_string());
    command
        .args(["--clear-groups", "ipvsadm"])
        .args(words.split(' '));
    let Output {
        status,
        stdout,
        stderr,
        ..
    } = Process::spawn(command).finish(PATIENCE);
    (stdout + &stderr, status.code().unwrap())
}

#[test]
fn over_netlink_a_viewer_lists_and_changes_nothing_and_a_stranger_gets_nothing() {
    let namespace = Namespace::new("rights").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    // Others may not get as far as the folder that it was built in.
    let library = e2e::executable().with_file_name("libuvs_ipvs.so");
    fs::copy(library, folder.join("libuvs-ipvs.so")).unwrap();
    let audit = folder.join("audit.jsonl");
    let text = format!(
        "[director]\nconnections = 4096\ncontrol = \"unix:{}\"\n\
         [port.wan]\ndriver = \"memory\"\naddresses = [\"10.0.0.1/8\"]\n\
         [access]\ngroup = \"daemon\"\nviewers = [\"user:nobody\"]\naudit = \"{}\"\n",
        folder.join("uvs.sock").display(),
        audit.display()
    );
    let uvsd = Uvsd::launch(&namespace, folder, &text);
    uvsd.wait_for_line("control socket");
    let run = |user, words: &str| ipvsadm(&namespace, folder, user, words);
    let rules = "-A -t 10.0.0.100:80 -s rr\n-a -t 10.0.0.100:80 -r 10.2.0.11:8080 -m -w 3\n";
    for rule in rules.lines() {
        assert_eq!(run(0, rule), (String::new(), 0), "{rule}");
    }

    // ipvsadm(8) to whoever is not root.
    let denied = "Permission denied (you must be root)";
    for words in [
        "-C",
        "-Z",
        "-A -t 10.0.0.100:81",
        "-D -t 10.0.0.100:80",
        "-e -t 10.0.0.100:80 -r 10.2.0.11:8080 -m -w 9",
        "--set 1 1 1",
        "--start-daemon master --mcast-interface lo",
    ] {
        assert_eq!(run(NOBODY, words), (format!("{denied}\n"), 255), "{words}");
        let (said, code) = run(STRANGER, words);
        assert!(code != 0 && said.contains(denied), "{words}: {said}");
    }
    assert_eq!(run(NOBODY, "-S -n"), (rules.to_owned(), 0));
    let (said, code) = run(NOBODY, "-Lnc");
    assert!(code != 0, "who speaks to whom is not for viewers: {said}");
    for words in ["-Ln", "-S -n", "-Lnc", "-L --timeout", "-L --daemon"] {
        let (said, code) = run(STRANGER, words);
        assert!(code != 0 && said.contains(denied), "{words}: {said}");
        assert!(!said.contains("10.0.0.100"), "{words}: {said}");
    }
    assert_eq!(
        run(0, "-S -n"),
        (rules.to_owned(), 0),
        "nothing was changed"
    );

    let written = fs::read_to_string(&audit).unwrap();
    for (who, method) in [
        ("uid 65534 (nobody)", "/uvs.v1.Configuration/Change"),
        ("uid 65534 (nobody)", "/uvs.v1.Connections/ListConnections"),
        ("uid 54321", "/uvs.v1.Director/ListServices"),
    ] {
        let is_refused = written.lines().any(|line| {
            line.contains(&format!("\"who\":\"{who}\""))
                && line.contains(method)
                && line.contains("\"way\":\"netlink\"")
                && line.contains("\"PermissionDenied\"")
        });
        assert!(is_refused, "{who} {method}:\n{written}");
    }
}

/// The values of a field in the status of all threads of a process.
fn of_threads(process: nix::unistd::Pid, field: &str) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let value = |task: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    };
    tasks.map(value).collect()
}

/// What a driver needs to open its interface anew is kept, and nothing else; with that it does.
#[test]
fn with_few_capabilities_interfaces_are_used_again() {
    // Source: linux/capability.h: NET_ADMIN 12, NET_RAW 13, IPC_LOCK 14, PERFMON 38, BPF 39.
    for (driver, mask) in [
        (Driver::AfPacket, "0000000000003000"),
        (Driver::AfXdp, "000000c000007000"),
    ] {
        let configuration = Configuration {
            drivers: [driver, driver],
            ..Configuration::new(Method::Nat, Family::V4, 1)
        };
        let mut scene = Scene::new(configuration, 2);
        let holds = |scene: &Scene| {
            let pid = scene.uvsd.pid();
            for field in ["CapEff", "CapPrm", "CapBnd"] {
                assert_eq!(of_threads(pid, field), [mask.to_owned()].into(), "{field}");
            }
            assert_eq!(of_threads(pid, "CapAmb"), ["0".repeat(16)].into());
            assert_eq!(of_threads(pid, "NoNewPrivs"), ["1".to_owned()].into());
        };
        holds(&scene);
        let serves = |scene: &Scene| {
            let vip = scene.virtual_address(HTTP_PORT);
            let asked = client::try_ask(scene.client(), vip, "name", 1);
            asked.status.success()
        };
        assert!(serves(&scene));
        for interface in ["eth0", "eth1"] {
            let director = &scene.topology.director;
            director.set_up(interface, false).unwrap();
            assert!(!serves(&scene));
            director.set_up(interface, true).unwrap();
            let again = eventually(PATIENCE, || serves(&scene).then_some(()));
            assert!(
                again.is_some(),
                "{driver:?} {interface}:\n{}",
                scene.uvsd.log()
            );
        }
        holds(&scene);
        assert_eq!(scene.uvsd.stop(Signal::SIGTERM).code(), Some(0));
    }
}
