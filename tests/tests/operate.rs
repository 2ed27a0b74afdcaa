//! Those who operate a running uvsd: a client in another language, strangers, and very many changes at once. Need root.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Method};
use e2e::client::{Connections, Wrk};
use e2e::{Configuration, HTTP_PORT, Scene};
use proto::v1;
use proto::v1::configuration_client::ConfigurationClient;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::Endpoint;

/// Who may connect, and who may look; nobody else may do anything.
const ACCESS: &str = "[access]\ngroup = \"daemon\"\nviewers = [\"user:nobody\"]\n";
/// The user nobody, somebody unknown, and the group daemon: as on every Debian.
const NOBODY: u32 = 65_534;
const STRANGER: u32 = 54_321;
const DAEMON: u32 = 1;

fn scene() -> Scene {
    let mut configuration = Configuration::new(Method::Nat, Family::V4, 2);
    configuration.more = ACCESS.to_owned();
    let scene = Scene::new(configuration, 2);
    // Others get as far as the socket.
    fs::set_permissions(scene.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    scene
}

/// A client made of the .proto files, for Python.
struct Python {
    folder: TempDir,
    script: PathBuf,
}

impl Python {
    fn new() -> Python {
        let folder = tempfile::tempdir().unwrap();
        let files =
            ["director", "configuration", "connections"].map(|name| format!("uvs/v1/{name}.proto"));
        let made = Command::new("protoc")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../control/proto"))
            .arg("-I.")
            .arg("--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin")
            .args(
                ["python", "grpc_python"]
                    .map(|what| format!("--{what}_out={}", folder.path().display())),
            )
            .args(files)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let script = folder.path().join("operate.py");
        fs::write(&script, include_str!("../src/python/operate.py")).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Python { folder, script }
    }

    fn run(&self, socket: &Path, way: &str, ids: Option<(u32, u32)>) {
        // Debian's own, for which Debian has grpcio.
        let mut command = Command::new("/usr/bin/python3");
        command.arg("-B").arg(&self.script).arg(socket).arg(way);
        command.current_dir(self.folder.path());
        if let Some((uid, gid)) = ids {
            command.uid(uid).gid(gid);
        }
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{way}: {told}");
    }
}

#[test]
fn a_client_in_python_operates_and_others_do_what_their_roles_allow() {
    let scene = scene();
    let python = Python::new();
    let socket = scene.uvsd.socket();
    python.run(&socket, "operate", None);
    python.run(&socket, "viewer", Some((NOBODY, DAEMON)));
    python.run(&socket, "nothing", Some((STRANGER, DAEMON)));
    // Without the socket's group nobody even connects.
    let outside = Command::new("/usr/bin/python3")
        .args([
            "-c",
            "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])",
        ])
        .arg(&socket)
        .uid(STRANGER)
        .gid(STRANGER)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&outside.stderr);
    assert!(told.contains("PermissionError"), "{told}");
}

/// A service of TCP that nobody uses.
fn service(port: u32) -> v1::ServiceSettings {
    v1::ServiceSettings {
        key: Some(v1::ServiceKey {
            protocol: v1::Protocol::Tcp.into(),
            address: "192.0.2.100".to_owned(),
            port,
            ..v1::ServiceKey::default()
        }),
        method: v1::Method::Nat.into(),
        servers: vec![v1::ServerSettings {
            address: "10.0.0.11".to_owned(),
            ..v1::ServerSettings::default()
        }],
        ..v1::ServiceSettings::default()
    }
}

/// Comes and goes, by turns.
fn change(number: u32) -> v1::ChangeRequest {
    let settings = service(20_000 + number / 2);
    let edit = match number % 2 {
        0 => v1::edit::Edit::CreateService(settings),
        _ => v1::edit::Edit::DeleteService(settings.key.unwrap()),
    };
    let edits = vec![v1::Edit { edit: Some(edit) }];
    v1::ChangeRequest {
        change: Some(v1::change_request::Change::Edits(v1::Edits { edits })),
        ..v1::ChangeRequest::default()
    }
}

/// Each of several callers makes its share of changes, one after the other; all of them a thousand in a second, where the machine
/// has the time. Returns how many they were.
async fn storm(socket: PathBuf, seconds: u32) -> u32 {
    const CALLERS: u32 = 40;
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds.into());
    let made = Arc::new(AtomicU32::new(0));
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let address = format!("unix:{}", socket.display());
        let endpoint = Endpoint::from_shared(address).unwrap();
        let mut client = ConfigurationClient::new(endpoint.connect().await.unwrap());
        let made = Arc::clone(&made);
        callers.push(tokio::spawn(async move {
            for number in 0.. {
                let due = began + Duration::from_millis(u64::from(number * CALLERS));
                tokio::time::sleep_until(due.into()).await;
                if Instant::now() >= end {
                    return;
                }
                // The services of callers are others.
                let change = change(caller * 400 + number % 400);
                client.change(change).await.unwrap();
                made.fetch_add(1, SeqCst);
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    made.load(SeqCst)
}

/// `UVS_STORM_S=30` lets it go on for half a minute.
#[test]
fn a_storm_of_changes_disturbs_no_request() {
    let seconds = std::env::var("UVS_STORM_S").map_or(4, |text| text.parse().unwrap());
    let mut scene = scene();
    let state = scene.folder().join("state.toml");
    scene.configuration.director = format!("state = \"{}\"\n", state.display());
    scene.uvsd.stop(nix::sys::signal::Signal::SIGTERM);
    scene.restart();
    // Ends by itself after a minute at the latest.
    let load = Wrk::start(
        scene.client(),
        &scene.url("name"),
        Connections::KeepAlive,
        u64::from(u32::MAX),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let made = runtime.block_on(storm(scene.uvsd.socket(), seconds));
    let load = load.stop();
    println!(
        "{made} changes in {seconds} s; {} requests, {:?}",
        load.good, load.errors
    );
    // A thousand in a second is for a machine that has the time.
    assert!(made >= 100 * seconds, "{made}");
    load.assert_flawless(1000);
    let status = scene.uvsd.status();
    let lost = status
        .drops()
        .iter()
        .map(|(_, packets)| packets)
        .sum::<u64>();
    let tolerated = scene.configuration.tolerated_drops().iter();
    let tolerated: u64 = tolerated.map(|reason| status.dropped(reason)).sum();
    assert_eq!(lost - tolerated, 0, "{:?}", status.drops());
    assert_eq!(scene.uvsd.servers(HTTP_PORT).len(), 2);
    assert!(state.exists());
}
