//! What is shipped: the image and the demonstration of docker/, and the Debian package, on a real engine. Needs root: fails
//! without. One file, for Debian's base is made once for both.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use e2e::engine::{self, Engine};
use e2e::{eventually, executable};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the client asks.
const REQUESTS: u32 = 1000;
/// How long the client may take for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes what the package holds beside the programs, and the package. One of `cargo deb`'s target folder.
fn package(folder: &Path) -> PathBuf {
    let release = folder.join("target/release");
    std::fs::create_dir_all(&release).unwrap();
    for name in ["uvsd", "uvs", "libuvs_ipvs.so"] {
        std::fs::copy(executable().with_file_name(name), release.join(name)).unwrap();
    }
    let mut manuals = cargo(&["run", "--quiet", "-p", "cli", "--example", "manuals", "--"]);
    manuals.arg(release.join("manuals")).arg("2026-01-31");
    engine::run(manuals);
    let package = folder.join("uvs.deb");
    let mut deb = cargo(&[
        "deb",
        "-p",
        "control",
        "--no-build",
        "--strip",
        "--fast",
        "--output",
    ]);
    deb.arg(&package)
        .env("CARGO_TARGET_DIR", folder.join("target"));
    engine::run(deb);
    package
}

fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").expect("run by cargo");
    let mut command = Command::new(cargo);
    command.args(arguments);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command
}

/// The life of a package on a machine with systemd: each step must succeed.
const LIFE: &str = r#"
set -eux
property() { systemctl show -p $1 --value uvsd; }
dpkg -i /uvs.deb
getent group uvs
uvsd --version
uvs --version
test -s /usr/share/bash-completion/completions/uvs
test -x /usr/share/uvs/realserver/uvs-dr
for example in /usr/share/doc/uvs/examples/*.toml; do uvsd --check --config $example; done
# Nothing starts by itself; as it is installed it can be started, and touches no interface.
test "$(systemctl is-enabled uvsd)" = disabled
test "$(systemctl is-active uvsd)" = inactive
systemctl start uvsd
uvs status
uvs doctor
# What LVS users type is there by its name, and asks this director.
ipvsadm -Ln | head -1 | grep '^IP Virtual Server version 1.2.1 (size='
ipvsadm-save -n
test "$(readlink -f /usr/sbin/ipvsadm-restore)" = /usr/bin/uvs
test "$(stat -c %U:%G:%a /run/uvs /run/uvs/uvs.sock | paste -sd' ')" = "root:uvs:750 root:uvs:660"
# A reload is told what is wrong, and uvsd goes on.
pid=$(property MainPID)
systemctl reload uvsd
echo 'wrong = 1' >>/etc/uvs/uvs.toml
if systemctl reload uvsd; then exit 1; fi
test "$(property MainPID)" = $pid
# A packet socket is all right in what the unit leaves of the machine.
cat >/etc/uvs/uvs.toml <<END
[director]
connections = 1000
[port.lan]
driver = "af_packet"
interface = "eth0"
addresses = ["10.99.0.2/24"]
END
systemctl restart uvsd
uvs status | grep 'port lan: af_packet'
pid=$(property MainPID)
grep -P 'NoNewPrivs:\t1' /proc/$pid/status
grep -P 'Seccomp:\t2' /proc/$pid/status
# An upgrade starts it anew and keeps the file.
dpkg -i /uvs.deb
test "$(property ActiveState)" = active
test "$(property MainPID)" != $pid
grep 'port.lan' /etc/uvs/uvs.toml
# One that stands still is started anew.
pid=$(property MainPID)
kill -STOP $pid
for _ in $(seq 30); do test "$(property NRestarts)" != 1 || break; sleep 1; done
test "$(property Result)" = success
test "$(property NRestarts)" = 1
test "$(property MainPID)" != $pid
for _ in $(seq 30); do ! uvs status || break; sleep 1; done
uvs status
# A removal stops it and keeps the file; nothing is left when that is not wanted either.
dpkg -r uvs
test ! -e /usr/sbin/uvsd
test ! -L /usr/sbin/ipvsadm
test ! -e /run/uvs
grep 'port.lan' /etc/uvs/uvs.toml
dpkg -P uvs
test ! -e /etc/uvs
"#;

#[test]
fn the_debian_package_installs_runs_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let package = package(folder.path());
    let root = folder.path().join("root");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(&package).arg(&root);
    engine::run(unpack);

    let mut pages = 0;
    for section in ["man1", "man5", "man8"] {
        for page in std::fs::read_dir(root.join("usr/share/man").join(section)).unwrap() {
            let page = page.unwrap().path();
            pages += 1;
            let mut mandoc = Command::new("mandoc");
            mandoc.args(["-T", "lint", "-W", "warning"]).arg(&page);
            assert_eq!(engine::run(mandoc), "", "{}", page.display());
        }
    }
    assert!(pages >= 8, "uvs.1 and its commands', uvs.toml.5, uvsd.8");

    // Its program is not where it will be: that is all that is changed for looking at it.
    let unit = std::fs::read_to_string(root.join("usr/lib/systemd/system/uvsd.service")).unwrap();
    let program = root.join("usr/sbin/uvsd");
    let here = unit.replace("/usr/sbin/uvsd", program.to_str().unwrap());
    let unit = folder.path().join("uvsd.service");
    std::fs::write(&unit, here).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&unit);
    let said = e2e::Process::spawn(verify).finish(PATIENCE);
    // The machine's other units may have faults of their own.
    let ours = said.stderr.lines().filter(|line| line.contains("uvsd"));
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert_eq!(ours.collect::<Vec<_>>(), [""; 0]);
    let mut security = Command::new("systemd-analyze");
    security
        .args(["security", "--offline=yes", "--threshold=35"])
        .arg(&unit);
    engine::run(security);

    let engine = Engine::start();
    let volume = format!("{}:/uvs.deb:ro", package.display());
    engine.start_machine("machine", &volume);
    engine::run(engine.docker(&["exec", "machine", "bash", "-c", LIFE]));
}

/// The topology of docker/compose.yaml, of binaries that are there already.
struct Topology {
    engine: Engine,
    binaries: tempfile::TempDir,
}

impl Topology {
    fn new() -> Topology {
        let binaries = tempfile::tempdir().unwrap();
        for name in ["uvsd", "uvs"] {
            let mut strip = Command::new("strip");
            strip.arg("-o").arg(binaries.path().join(name));
            strip.arg(executable().with_file_name(name));
            engine::run(strip);
        }
        let engine = Engine::start();
        // The engine can ask no registry: Debian's nginx and curl stand in for these images.
        engine.name_base("nginx:stable");
        engine.name_base("curlimages/curl");
        Topology { engine, binaries }
    }

    fn compose(&self, arguments: &[&str]) -> String {
        let file = docker_folder().join("compose.yaml");
        let file = file.to_str().unwrap();
        let mut command = self
            .engine
            .compose(&[&["-p", "uvs", "-f", file], arguments].concat());
        command.env("UVS_TARGET", "prebuilt");
        command.env("UVS_CONTEXT", self.binaries.path());
        command.env("UVS_DOCKERFILE", docker_folder().join("Dockerfile"));
        command.env("UVS_REQUESTS", REQUESTS.to_string());
        engine::run(command)
    }

    fn docker(&self, arguments: &[&str]) -> String {
        let output = engine::run(self.engine.docker(arguments));
        output.trim().to_owned()
    }

    /// The number of a service's container.
    fn container(&self, service: &str) -> String {
        let id = self.compose(&["ps", "-q", service]).trim().to_owned();
        assert!(!id.is_empty(), "no container of {service}");
        id
    }

    fn state(&self, container: &str, field: &str) -> String {
        self.docker(&[
            "inspect",
            "--format",
            &format!("{{{{{field}}}}}"),
            container,
        ])
    }
}

fn docker_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker")
}

#[test]
fn a_thousand_requests_are_balanced_by_the_composed_director() {
    let topology = Topology::new();
    topology.compose(&["up", "-d", "--build"]);
    let [director, client] = ["director", "client"].map(|service| topology.container(service));

    let ended = eventually(PATIENCE, || {
        (topology.state(&client, ".State.Status") == "exited").then_some(())
    });
    let said = topology.docker(&["logs", &client]);
    assert!(ended.is_some(), "the client is not done:\n{said}");
    assert_eq!(topology.state(&client, ".State.ExitCode"), "0", "{said}");
    assert!(
        said.contains(&format!("{REQUESTS} requests, 0 failures")),
        "{said}"
    );
    let answered: Vec<u32> = [1, 2, 3].map(|server| answers(&said, server)).into();
    // Equal weights, one worker: in turn.
    assert_eq!(answered.iter().sum::<u32>(), REQUESTS, "{said}");
    assert!(
        answered.iter().all(|count| (333..=334).contains(count)),
        "{said}"
    );

    let healthy = eventually(Duration::from_secs(30), || {
        (topology.state(&director, ".State.Health.Status") == "healthy").then_some(())
    });
    assert!(
        healthy.is_some(),
        "{}",
        topology.docker(&["logs", &director])
    );
    // Not root, with one capability (CAP_NET_RAW is number 13) and no way to others.
    let status = topology.docker(&["exec", &director, "cat", "/proc/1/status"]);
    for line in [
        "Uid:\t10001\t10001\t10001\t10001",
        "CapEff:\t0000000000002000",
        "CapBnd:\t0000000000002000",
    ] {
        assert!(status.contains(line), "{line}\n{status}");
    }
    let list = topology.docker(&["exec", &director, "uvs", "list"]);
    assert!(list.contains("172.30.99.100:80"), "{list}");
    let status = topology.docker(&["exec", &director, "uvs", "status"]);
    assert!(
        status.contains("chosen automatically; not dpdk: "),
        "{status}"
    );
    assert!(status.contains("port eth0: af_packet"), "{status}");

    topology.docker(&["stop", &director]);
    assert_eq!(
        topology.state(&director, ".State.ExitCode"),
        "0",
        "it stops when told to"
    );
    topology.compose(&["down"]);
}

/// How many requests a server answered, by the client's account.
fn answers(said: &str, server: u32) -> u32 {
    let line = format!("server{server} answered ");
    let mut lines = said.lines().filter_map(|text| text.strip_prefix(&line));
    lines.next().unwrap_or("0").parse().unwrap()
}
