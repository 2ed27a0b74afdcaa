//! Who may do what, as callers meet it: over the control socket and over TLS.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use control::Director;
use control::config::{AccessSettings, Caller as Named, Configuration, TlsSettings};
use control::grpc::{ConfigurationService, DirectorService};
use control::guard::{Access, Audit, Caller, Guard, Incoming, Tls, needed};
use control::manage::Manager;
use proto::v1;
use proto::v1::configuration_client::ConfigurationClient;
use proto::v1::director_client::DirectorClient;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const TEXT: &str = r#"
[director]
connections = 100
servers = 10
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
"#;
const LOOK: &str = "spiffe://example.org/look";
const DEPLOY: &str = "spiffe://example.org/deploy";

/// An authority and what it signs with.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn signs(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn client(&self, uri: &str) -> Pair {
        self.signs(&client(uri))
    }

    fn server(&self) -> Pair {
        self.signs(&CertificateParams::new(vec!["localhost".to_owned()]).unwrap())
    }
}

fn client(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params
}

/// A director behind a guard, on a socket and a port of TLS.
struct Bed {
    guard: Arc<Guard>,
    tls: Arc<Tls>,
    settings: TlsSettings,
    ours: Authority,
    port: u16,
    folder: TempDir,
}

fn access() -> AccessSettings {
    AccessSettings {
        viewers: vec![Named::San(LOOK.to_owned())],
        operators: vec![Named::San(DEPLOY.to_owned())],
        ..AccessSettings::default()
    }
}

impl Bed {
    async fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let ours = Authority::new();
        let settings = write_files(folder.path(), &ours.server(), &ours.pem);
        let (tls, warnings) = Tls::load(&settings).unwrap();
        assert_eq!(warnings, [""; 0]);
        let tls = Arc::new(tls);
        let audit = Audit::open(Some(&folder.path().join("audit.jsonl"))).unwrap();
        let guard = Arc::new(Guard::new(Access::look_up(&access()).0, Arc::new(audit)));
        let configuration = Configuration::parse("f", TEXT).unwrap().configuration;
        let director = Arc::new(Director::start(configuration).unwrap());
        let manager = Arc::new(Manager::new(Arc::clone(&director), 1));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        let incoming = Incoming::default().unix(socket).unwrap();
        let incoming = incoming.tls(listener, Arc::clone(&tls)).unwrap();
        let server = Server::builder()
            .layer(guard.layer())
            .add_service(DirectorService::server(director))
            .add_service(ConfigurationService::server(manager));
        tokio::spawn(server.serve_with_incoming(incoming));
        Bed {
            guard,
            tls,
            settings,
            ours,
            port,
            folder,
        }
    }

    /// A channel with this certificate, to a server whose certificate our authority signed.
    async fn dial(&self, own: Option<&Pair>) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ours.pem))
            .domain_name("localhost");
        if let Some(own) = own {
            tls = tls.identity(Identity::from_pem(&own.certificate, &own.key));
        }
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", self.port)).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await
    }

    /// What becomes of a look at the configuration.
    async fn look(&self, own: Option<&Pair>) -> Result<u64, String> {
        let channel = self.dial(own).await.map_err(|error| format!("{error:?}"))?;
        let answer = ConfigurationClient::new(channel)
            .get_configuration(v1::GetConfigurationRequest::default())
            .await;
        answer
            .map(|answer| answer.into_inner().revision)
            .map_err(|status| format!("{status:?}"))
    }

    fn audit(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }
}

fn write_files(folder: &Path, server: &Pair, authority: &str) -> TlsSettings {
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    TlsSettings {
        listen: "127.0.0.1:1".parse().unwrap(),
        certificate: write("server.crt", &server.certificate),
        key: write("server.key", &server.key),
        client_ca: write("clients.crt", authority),
    }
}

fn clear() -> v1::ChangeRequest {
    let edit = v1::edit::Edit::Clear(v1::Clear {});
    let edits = vec![v1::Edit { edit: Some(edit) }];
    v1::ChangeRequest {
        change: Some(v1::change_request::Change::Edits(v1::Edits { edits })),
        ..v1::ChangeRequest::default()
    }
}

async fn change(channel: &Channel) -> Result<u64, Status> {
    let mut client = ConfigurationClient::new(channel.clone());
    let answer = client.change(clear()).await;
    answer.map(|answer| answer.into_inner().revision)
}

#[tokio::test]
async fn a_viewer_looks_and_changes_nothing_and_an_operator_does_both() {
    let bed = Bed::new().await;
    let viewer = bed.dial(Some(&bed.ours.client(LOOK))).await.unwrap();
    let mut client = ConfigurationClient::new(viewer.clone());
    let looked = client.get_configuration(v1::GetConfigurationRequest::default());
    assert_eq!(looked.await.unwrap().into_inner().revision, 1);
    let refused = change(&viewer).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(
        refused.message(),
        "you are san spiffe://example.org/look, with the role viewer; /uvs.v1.Configuration/Change needs the role operator: \
         an administrator adds \"san:spiffe://example.org/look\" to access.operators in uvsd's configuration and reloads it"
    );
    let confirm = client.confirm(v1::ConfirmRequest { revision: 1 }).await;
    assert_eq!(confirm.unwrap_err().code(), Code::PermissionDenied);
    let back = client.roll_back(v1::RollBackRequest { revision: 1 }).await;
    assert_eq!(back.unwrap_err().code(), Code::PermissionDenied);
    let zero = DirectorClient::new(viewer)
        .zero_counters(v1::ZeroCountersRequest { service: None })
        .await;
    assert_eq!(zero.unwrap_err().code(), Code::PermissionDenied);
    let operator = bed.dial(Some(&bed.ours.client(DEPLOY))).await.unwrap();
    assert_eq!(change(&operator).await.unwrap(), 2);
    let refusals = bed.audit();
    assert_eq!(refusals.len(), 4, "{refusals:?}");
    assert_eq!(refusals[0]["who"], "san spiffe://example.org/look");
    assert!(
        refusals[0]["way"]
            .as_str()
            .unwrap()
            .starts_with("grpc, tls from 127.0.0.1:")
    );
    assert_eq!(refusals[0]["method"], "/uvs.v1.Configuration/Change");
    assert_eq!(refusals[0]["result"], "PermissionDenied");
}

#[tokio::test]
async fn wrong_certificates_are_refused() {
    let bed = Bed::new().await;
    assert_eq!(bed.look(Some(&bed.ours.client(LOOK))).await, Ok(1));
    let stranger = bed
        .look(Some(&bed.ours.client("spiffe://example.org/x")))
        .await;
    let stranger = stranger.unwrap_err();
    assert!(stranger.contains("without any role"), "{stranger}");
    for (wrong, own) in [
        ("of another authority", Some(Authority::new().client(LOOK))),
        ("expired", {
            let mut params = client(LOOK);
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 2);
            Some(bed.ours.signs(&params))
        }),
        ("not yet valid", {
            let mut params = client(LOOK);
            params.not_before = rcgen::date_time_ymd(2100, 1, 1);
            params.not_after = rcgen::date_time_ymd(2101, 1, 1);
            Some(bed.ours.signs(&params))
        }),
        ("without a name", {
            let params = CertificateParams::default();
            Some(bed.ours.signs(&params))
        }),
        ("none", None),
    ] {
        let error = bed.look(own.as_ref()).await.unwrap_err();
        // No answer of any service: the connection itself is refused.
        assert!(!error.contains("PermissionDenied"), "{wrong}: {error}");
    }
    assert_eq!(bed.look(Some(&bed.ours.client(LOOK))).await, Ok(1));
}

#[tokio::test]
async fn without_tls_nobody_is_answered_there() {
    let bed = Bed::new().await;
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", bed.port)).unwrap();
    let Ok(channel) = endpoint.connect().await else {
        return;
    };
    let status = change(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
}

#[tokio::test]
async fn certificates_and_rights_can_be_others_from_now_on() {
    let bed = Bed::new().await;
    let old = bed.ours.client(LOOK);
    let connected = bed.dial(Some(&bed.ours.client(DEPLOY))).await.unwrap();
    let another = Authority::new();
    write_files(bed.folder.path(), &bed.ours.server(), &another.pem);
    let (new, _) = Tls::load(&bed.settings).unwrap();
    bed.tls.adopt(&new);
    assert!(bed.look(Some(&old)).await.is_err());
    assert_eq!(bed.look(Some(&another.client(LOOK))).await, Ok(1));
    // Who is connected has the rights of now.
    assert_eq!(change(&connected).await.unwrap(), 2);
    let (none, _) = Access::look_up(&AccessSettings::default());
    bed.guard.adopt(none);
    let refused = change(&connected).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[test]
fn files_of_tls_that_do_not_do_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new();
    let settings = write_files(folder.path(), &ours.server(), &ours.pem);
    let told = |settings: &TlsSettings| Tls::load(settings).err().unwrap().to_string();
    let missing = TlsSettings {
        certificate: folder.path().join("none"),
        ..settings.clone()
    };
    assert!(told(&missing).starts_with("access.tls.certificate: "));
    assert!(
        told(&missing).contains("No such file"),
        "{}",
        told(&missing)
    );
    let exchanged = TlsSettings {
        key: settings.certificate.clone(),
        ..settings.clone()
    };
    assert!(told(&exchanged).starts_with("access.tls.key: "));
    let empty = TlsSettings {
        client_ca: settings.key.clone(),
        ..settings.clone()
    };
    assert!(
        told(&empty).contains("has no certificate"),
        "{}",
        told(&empty)
    );
    let others = ours.server();
    fs::write(&settings.key, &others.key).unwrap();
    assert!(told(&settings).contains("a certificate and its own key"));
    write_files(folder.path(), &others, &ours.pem);
    fs::set_permissions(&settings.key, fs::Permissions::from_mode(0o644)).unwrap();
    let (_, warnings) = Tls::load(&settings).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("every user of this machine can read it"));
}

/// All methods that there are, with the role that each needs.
const METHODS: [(&str, &str); 12] = [
    ("/uvs.v1.Director/GetStatus", "viewer"),
    ("/uvs.v1.Director/ListServices", "viewer"),
    ("/uvs.v1.Configuration/PlanChange", "viewer"),
    ("/uvs.v1.Configuration/WatchConfiguration", "viewer"),
    ("/grpc.health.v1.Health/Check", "viewer"),
    ("/uvs.v1.Configuration/Change", "operator"),
    ("/uvs.v1.Director/ZeroCounters", "operator"),
    ("/uvs.v1.Connections/Drain", "operator"),
    ("/uvs.v1.Connections/KillConnections", "operator"),
    ("/uvs.v1.Connections/ListConnections", "capture"),
    ("/uvs.v1.Connections/Explain", "capture"),
    ("/uvs.v1.Capture/CapturePackets", "capture"),
];

#[test]
fn each_role_allows_its_calls_and_a_stranger_gets_nothing() {
    const UIDS: [u32; 5] = [4_000_001, 4_000_002, 4_000_003, 4_000_004, 4_000_005];
    let [viewer, operator, admin, capture, stranger] = UIDS.map(|uid| Caller::unix(uid, uid));
    let only = |uid: u32| vec![Named::Uid(uid)];
    let (access, _) = Access::look_up(&AccessSettings {
        viewers: only(UIDS[0]),
        operators: only(UIDS[1]),
        admins: only(UIDS[2]),
        captures: only(UIDS[3]),
        ..AccessSettings::default()
    });
    let guard = Guard::new(access, Arc::default());
    for (path, role) in METHODS {
        assert_eq!(needed(path).unwrap().0.to_string(), role, "{path}");
        let may = |caller: &Caller| guard.admit(Some(caller), path).is_ok();
        assert_eq!(may(&viewer), role == "viewer", "{path}");
        assert_eq!(may(&operator), role != "capture", "{path}");
        assert!(may(&admin) && may(&Caller::unix(0, 0)), "{path}");
        assert_eq!(may(&capture), role == "capture", "{path}");
        assert!(!may(&stranger), "{path}");
    }
    let unknown = guard
        .admit(Some(&admin), "/uvs.v1.Director/Else")
        .err()
        .unwrap();
    assert_eq!(unknown.code(), Code::PermissionDenied);
    let nobody = guard.admit(None, METHODS[0].0).err().unwrap();
    assert_eq!(nobody.code(), Code::Unauthenticated);
}

#[test]
fn who_calls_too_often_is_told_when_to_come_again() {
    let (access, _) = Access::look_up(&AccessSettings {
        rate: 5,
        ..AccessSettings::default()
    });
    let guard = Guard::new(access, Arc::default());
    let root = Caller::unix(0, 0);
    let calls = (0..50).map(|_| guard.admit(Some(&root), METHODS[0].0));
    let refused: Vec<_> = calls.filter_map(Result::err).collect();
    assert!((40..=45).contains(&refused.len()), "{}", refused.len());
    assert_eq!(refused[0].code(), Code::ResourceExhausted);
    let details = refused[0].get_error_details();
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(wait.as_millis() <= 200 && !wait.is_zero(), "{wait:?}");
}

#[test]
fn refusals_without_number_do_not_fill_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let audit = Arc::new(Audit::open(Some(&path)).unwrap());
    let (access, _) = Access::look_up(&AccessSettings::default());
    let guard = Guard::new(access, audit);
    let stranger = Caller::unix(4_000_000_000, 4_000_000_000);
    for _ in 0..1000 {
        assert!(guard.admit(Some(&stranger), METHODS[0].0).is_err());
    }
    let lines = fs::read_to_string(&path).unwrap().lines().count();
    assert!((10..100).contains(&lines), "{lines}");
}

#[tokio::test]
async fn a_caller_has_no_more_connections_than_his_share() {
    use control::guard::CONNECTIONS_PER_CALLER;
    let bed = Bed::new().await;
    let own = bed.ours.client(LOOK);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_PER_CALLER {
        let channel = bed.dial(Some(&own)).await.unwrap();
        let looked = ConfigurationClient::new(channel.clone())
            .get_configuration(v1::GetConfigurationRequest::default())
            .await;
        looked.unwrap();
        held.push(channel);
    }
    assert!(bed.look(Some(&own)).await.is_err());
    assert_eq!(bed.look(Some(&bed.ours.client(DEPLOY))).await, Ok(1));
    held.clear();
    let since = std::time::Instant::now();
    while bed.look(Some(&own)).await.is_err() {
        assert!(since.elapsed().as_secs() < 10);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_does_not_say_who_he_is_keeps_others_out_for_ten_seconds_at_most() {
    use control::guard::UNKNOWN_CONNECTIONS;
    use std::time::{Duration, Instant};
    let bed = Bed::new().await;
    let own = bed.ours.client(LOOK);
    let silent: Vec<_> = (0..UNKNOWN_CONNECTIONS)
        .map(|_| std::net::TcpStream::connect(("127.0.0.1", bed.port)).unwrap())
        .collect();
    let since = Instant::now();
    let soon = tokio::time::timeout(Duration::from_secs(1), bed.look(Some(&own))).await;
    assert!(soon.is_err(), "there is no room for one more: {soon:?}");
    assert_eq!(bed.look(Some(&own)).await, Ok(1));
    let took = since.elapsed();
    assert!((8..20).contains(&took.as_secs()), "{took:?}");
    drop(silent);
}
