//! The director in a container: the image and the demonstration of docker/, on a real engine. Needs root: fails without.
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
