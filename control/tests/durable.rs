//! The daemon killed in the middle of changes, its rights while it runs, and its other services.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use proto::v1;
use proto::v1::configuration_client::ConfigurationClient;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::Channel;

const TEXT: &str = r#"
[director]
connections = 100
servers = 4000
control = "unix:FOLDER/uvs.sock"
state = "FOLDER/state.toml"
[access]
audit = "FOLDER/audit.jsonl"
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
"#;

/// A running uvsd; killed when dropped.
struct Uvsd {
    child: Child,
    log: BufReader<ChildStderr>,
    /// What it said until it was ready.
    said: String,
}

impl Uvsd {
    fn start(folder: &TempDir) -> Uvsd {
        let config = folder.path().join("uvs.toml");
        let text = TEXT.replace("FOLDER", folder.path().to_str().unwrap());
        fs::write(&config, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_uvsd"))
            .arg("--config")
            .arg(config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("services, control socket") {
            assert!(log.read_line(&mut said).unwrap() > 0, "it ended: {said}");
        }
        Uvsd { child, log, said }
    }

    fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        rest
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Uvsd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn channel(folder: &TempDir) -> Channel {
    let address = format!("unix:{}", folder.path().join("uvs.sock").display());
    let endpoint = tonic::transport::Endpoint::from_shared(address).unwrap();
    endpoint.connect().await.unwrap()
}

/// One more service, of this number.
fn add(number: u32) -> v1::ChangeRequest {
    let service = v1::ServiceSettings {
        key: Some(v1::ServiceKey {
            protocol: v1::Protocol::Tcp.into(),
            address: "10.1.0.100".to_owned(),
            port: number,
            ..v1::ServiceKey::default()
        }),
        method: v1::Method::Nat.into(),
        servers: vec![v1::ServerSettings {
            address: "10.1.0.11".to_owned(),
            ..v1::ServerSettings::default()
        }],
        ..v1::ServiceSettings::default()
    };
    let edit = v1::edit::Edit::CreateService(service);
    let edits = vec![v1::Edit { edit: Some(edit) }];
    v1::ChangeRequest {
        change: Some(v1::change_request::Change::Edits(v1::Edits { edits })),
        ..v1::ChangeRequest::default()
    }
}

/// The revision that holds, and the number of services.
async fn holds(folder: &TempDir) -> (u64, u64) {
    let mut client = ConfigurationClient::new(channel(folder).await);
    let answer = client.get_configuration(v1::GetConfigurationRequest::default());
    let answer = answer.await.unwrap().into_inner();
    let services = answer.state.unwrap().services.len();
    (answer.revision, u64::try_from(services).unwrap())
}

#[tokio::test]
async fn killed_in_the_middle_of_changes_it_has_a_whole_revision_and_each_that_was_answered() {
    const CALLERS: usize = 16;
    let folder = tempfile::tempdir().unwrap();
    let next = Arc::new(AtomicU32::new(1));
    let mut uvsd = Uvsd::start(&folder);
    let (mut kills, mut before) = (0, 1);
    while next.load(SeqCst) < 1000 {
        let answered = Arc::new(AtomicU64::new(before));
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            let mut client = ConfigurationClient::new(channel(&folder).await);
            let (next, answered) = (Arc::clone(&next), Arc::clone(&answered));
            callers.push(tokio::spawn(async move {
                // Until it is killed.
                while let Ok(made) = client.change(add(next.fetch_add(1, SeqCst))).await {
                    answered.fetch_max(made.into_inner().revision, SeqCst);
                }
            }));
        }
        // Another moment each time, after some changes.
        let since = Instant::now();
        while answered.load(SeqCst) == before {
            assert!(since.elapsed().as_secs() < 20, "no change is answered");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(50 + 37 * (kills % 7))).await;
        uvsd.kill();
        for caller in callers {
            caller.await.unwrap();
        }
        kills += 1;
        uvsd = Uvsd::start(&folder);
        assert!(!uvsd.said.contains("ERROR"), "{}", uvsd.said);
        let (revision, services) = holds(&folder).await;
        assert_eq!(services + 1, revision, "a service for each revision");
        let answered = answered.load(SeqCst);
        assert!(revision >= answered, "{revision} < {answered}");
        before = revision;
        assert!(kills < 200, "too few changes between kills");
    }
    assert!(kills >= 3, "{kills}");
    // Each line of the audit log is whole, but the last one before a kill; and each change is there.
    let log = fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert!(lines.len() + 1 >= usize::try_from(before / 2).unwrap());
    // Changes that are made at once are written in any order.
    let first = lines.iter().find(|line| line["revision_after"] == 2);
    let first = first.expect("the first change was answered before the first kill");
    assert_eq!(first["method"], "/uvs.v1.Configuration/Change");
    assert_eq!(first["revision_before"], 1);
    assert_eq!(first["diff"]["services"][0]["action"], "add");
    assert_eq!(first["result"], "ok");
}

/// The values of a field in the status of each thread.
fn of_threads(process: u32, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path().join("status"));
    let value = |path: PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    };
    tasks.map(value).collect()
}

#[test]
fn with_a_port_of_memory_no_thread_keeps_any_capability() {
    let folder = tempfile::tempdir().unwrap();
    let uvsd = Uvsd::start(&folder);
    let process = uvsd.child.id();
    // The worker, the state file's and the rest; the last begins when the log has said the first line.
    let since = Instant::now();
    while of_threads(process, "CapEff").len() < 3 {
        assert!(since.elapsed().as_secs() < 20, "too few threads");
        std::thread::sleep(Duration::from_millis(10));
    }
    for field in ["CapEff", "CapPrm", "CapInh"] {
        let all = of_threads(process, field);
        assert!(
            all.iter().all(|one| one == "0000000000000000"),
            "{field}: {all:?}"
        );
    }
    let all = of_threads(process, "NoNewPrivs");
    assert!(all.iter().all(|one| one == "1"), "{all:?}");
}

#[tokio::test]
async fn a_reload_of_the_same_file_opens_the_audit_log_again_and_undoes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut uvsd = Uvsd::start(&folder);
    let mut client = ConfigurationClient::new(channel(&folder).await);
    client.change(add(1)).await.unwrap();
    let (path, old) = ["audit.jsonl", "audit.jsonl.1"]
        .map(|name| folder.path().join(name))
        .into();
    fs::rename(&path, &old).unwrap();
    uvsd.signal(Signal::HUP);
    let mut said = String::new();
    uvsd.log.read_line(&mut said).unwrap();
    assert!(said.contains("reloaded"), "{said}");
    assert_eq!(holds(&folder).await.1, 1);
    client.change(add(2)).await.unwrap();
    let lines = |path: &PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(lines(&old).lines().count(), 1);
    let new = lines(&path);
    assert!(
        new.contains("\"reload\"") && new.contains("\"way\":\"SIGHUP\""),
        "{new}"
    );
    assert_eq!(new.lines().count(), 2, "{new}");
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let folder = tempfile::tempdir().unwrap();
    let _uvsd = Uvsd::start(&folder);
    let channel = channel(&folder).await;
    for service in ["", "uvs.v1.Director", "uvs.v1.Configuration"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = HealthClient::new(channel.clone()).check(request).await;
        assert_eq!(answer.unwrap().into_inner().status, 1, "{service} serves");
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = tokio_stream::once(request);
    let mut client = ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(requests).await;
    let mut answers = answers.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = list
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    assert!(names.contains(&"uvs.v1.Configuration"), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
}
