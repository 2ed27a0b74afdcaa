//! What uvsd writes anywhere, of private keys that it was given: nothing, also at the finest level and when they do not do.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use proto::v1;
use proto::v1::configuration_client::ConfigurationClient;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const NAME: &str = "spiffe://example.org/deploy";
const TEXT: &str = r#"
[director]
connections = 100
control = "unix:FOLDER/uvs.sock"
state = "FOLDER/state.toml"
[access]
operators = ["san:spiffe://example.org/deploy"]
audit = "FOLDER/audit.jsonl"
[access.tls]
listen = "127.0.0.1:PORT"
certificate = "FOLDER/server.crt"
key = "FOLDER/server.key"
client_ca = "FOLDER/ca.crt"
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
"#;

/// A running uvsd; killed when dropped.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An authority's certificate, and a key of its making for each name, into files. Returns the keys' texts.
fn write_certificates(folder: &Path) -> Vec<String> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    fs::write(folder.join("ca.crt"), pem).unwrap();
    let issuer = Issuer::new(params, key);
    let names = [
        ("server", SanType::DnsName("localhost".try_into().unwrap())),
        ("client", SanType::URI(NAME.try_into().unwrap())),
    ];
    let of_name = |(name, subject): (&str, SanType)| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![subject];
        let pem = params.signed_by(&key, &issuer).unwrap().pem();
        fs::write(folder.join(format!("{name}.crt")), pem).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        key.serialize_pem()
    };
    names.map(of_name).into()
}

async fn connect(folder: &Path, port: u16) -> Channel {
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.crt")))
        .identity(Identity::from_pem(read("client.crt"), read("client.key")));
    let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.unwrap()
}

fn wait_for(log: &Path, text: &str) {
    let since = Instant::now();
    while !fs::read_to_string(log).unwrap().contains(text) {
        let log = fs::read_to_string(log).unwrap();
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "no {text:?}: {log}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn private_keys_are_never_written_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut keys = write_certificates(path);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let text = TEXT.replace("FOLDER", path.to_str().unwrap());
    fs::write(
        path.join("uvs.toml"),
        text.replace("PORT", &port.to_string()),
    )
    .unwrap();
    let start = |log: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uvsd"));
        command
            .arg("--config")
            .arg(path.join("uvs.toml"))
            .args(more);
        command.env("UVS_LOG", "trace").stdin(Stdio::null());
        let log = File::create(path.join(log)).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Running(command.spawn().unwrap())
    };
    let uvsd = start("log", &[]);
    let log = path.join("log");
    wait_for(&log, "services, control socket");

    // It serves by its key, is changed, and tells its configuration.
    let mut client = ConfigurationClient::new(connect(path, port).await);
    let edit = v1::edit::Edit::Clear(v1::Clear {});
    let edits = vec![v1::Edit { edit: Some(edit) }];
    let change = v1::ChangeRequest {
        change: Some(v1::change_request::Change::Edits(v1::Edits { edits })),
        ..v1::ChangeRequest::default()
    };
    client.change(change).await.unwrap();
    let asked = v1::GetConfigurationRequest { with_file: true };
    let told = client.get_configuration(asked).await.unwrap().into_inner();
    assert!(told.file.contains("server.key"), "{}", told.file);

    // Keys that do not do: of something else, cut, and a certificate's place taken by a key.
    uvsd.signal(Signal::HUP);
    wait_for(&log, "reloaded");
    let other = KeyPair::generate().unwrap().serialize_pem();
    let cut = KeyPair::generate().unwrap().serialize_pem();
    let cut = cut.replace("-----END PRIVATE KEY-----", "");
    for (file, wrong) in [
        ("server.key", &other),
        ("server.key", &cut),
        ("server.crt", &other),
        ("ca.crt", &cut),
    ] {
        let before = fs::read(path.join(file)).unwrap();
        fs::write(path.join(file), wrong).unwrap();
        let len = fs::read_to_string(&log)
            .unwrap()
            .matches("access.tls.")
            .count();
        uvsd.signal(Signal::HUP);
        let since = Instant::now();
        while fs::read_to_string(&log)
            .unwrap()
            .matches("access.tls.")
            .count()
            == len
        {
            assert!(since.elapsed() < Duration::from_secs(20), "{file} will do");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut check = start("check", &["--check"]);
        check.0.wait().unwrap();
        let mut again = start("again", &[]);
        assert!(!again.0.wait().unwrap().success());
        let said = ["check", "again"].map(|name| fs::read_to_string(path.join(name)).unwrap());
        fs::write(path.join("said"), said.concat()).unwrap();
        assert_clean(path, &keys, &[&other, &cut], &told.file);
        fs::write(path.join(file), before).unwrap();
    }
    keys.extend([other, cut]);
    uvsd.signal(Signal::TERM);
    let mut uvsd = uvsd;
    assert!(uvsd.0.wait().unwrap().success());
    assert_clean(path, &keys, &[], &told.file);
    let traced = fs::read_to_string(&log).unwrap();
    assert!(
        traced.contains("TRACE") || traced.contains("DEBUG"),
        "{traced}"
    );
}

/// That nothing that uvsd wrote or told has a line of any of these keys.
fn assert_clean(folder: &Path, keys: &[String], more: &[&String], told: &str) {
    let files = ["log", "audit.jsonl", "state.toml", "said"].map(|name| {
        let bytes = fs::read(folder.join(name)).unwrap_or_default();
        (name, String::from_utf8_lossy(&bytes).into_owned())
    });
    let secrets: Vec<&str> = keys
        .iter()
        .chain(more.iter().copied())
        .flat_map(|key| key.lines())
        .filter(|line| line.len() > 20 && !line.starts_with("-----"))
        .collect();
    assert!(secrets.len() >= 4, "{} lines", secrets.len());
    for (name, text) in files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .chain([("told", told)])
    {
        for secret in &secrets {
            // Also not the beginning of it.
            assert!(!text.contains(&secret[..20]), "{name} has a key's line");
        }
    }
}
