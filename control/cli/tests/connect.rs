//! How commands reach a director: over TLS, and what they say when they do not.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use cli::connect::{self, Options};
use cli::show;
use control::Director;
use control::config::{AccessSettings, Caller, Configuration, TlsSettings};
use control::grpc::DirectorService;
use control::guard::{Access, Guard, Incoming, Tls};
use proto::v1;
use proto::v1::director_server::{Director as Director_, DirectorServer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio_stream::Empty;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

const LOOK: &str = "spiffe://example.org/look";

/// Writes an authority, and certificates of it and of another one: `ca.crt`, `NAME.crt` and `NAME.key`.
fn certificates(folder: &Path) {
    for (ca, names) in [("ca", vec!["localhost", LOOK]), ("other", vec!["stranger"])] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        fs::write(folder.join(format!("{ca}.crt")), pem).unwrap();
        let issuer = Issuer::new(params, key);
        for name in names {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![match name {
                "localhost" => SanType::DnsName(name.try_into().unwrap()),
                _ => SanType::URI(LOOK.try_into().unwrap()),
            }];
            let file = name.rsplit('/').next().unwrap();
            let pem = params.signed_by(&key, &issuer).unwrap().pem();
            fs::write(folder.join(format!("{file}.crt")), pem).unwrap();
            fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
        }
    }
}

/// Serves until the test ends; returns its port.
fn serve(folder: &Path) -> u16 {
    let file = |name: &str| folder.join(name);
    let settings = TlsSettings {
        listen: "127.0.0.1:1".parse().unwrap(),
        certificate: file("localhost.crt"),
        key: file("localhost.key"),
        client_ca: file("ca.crt"),
    };
    let tls = Arc::new(Tls::load(&settings).unwrap().0);
    let access = AccessSettings {
        viewers: vec![Caller::San(LOOK.to_owned())],
        ..AccessSettings::default()
    };
    let guard = Arc::new(Guard::new(Access::look_up(&access).0, Arc::default()));
    let text = "[director]\nconnections = 100\n[port.lan]\ndriver = \"memory\"\n";
    let configuration = Configuration::parse("f", text).unwrap().configuration;
    let director = Arc::new(Director::start(configuration).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let incoming = Incoming::default().tls(listener, tls).unwrap();
            let server = Server::builder()
                .layer(guard.layer())
                .add_service(DirectorService::server(director));
            server.serve_with_incoming(incoming).await.unwrap();
        });
    });
    port
}

fn options(folder: &TempDir, address: String, own: &str) -> Options {
    let file = |name: String| Some(folder.path().join(name));
    Options {
        address: Some(address),
        ca: file("ca.crt".to_owned()),
        certificate: file(format!("{own}.crt")),
        key: file(format!("{own}.key")),
        ..Options::socket(&PathBuf::from("/nowhere"))
    }
}

fn asked(connect: Options) -> show::StatusOptions {
    show::StatusOptions {
        connect,
        json: false,
    }
}

/// Somebody listens, and never says a word: that is told, and not waited for without end.
#[test]
fn a_director_that_does_not_answer_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let _mute = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let since = std::time::Instant::now();
    let error = show::status(&asked(Options::socket(&path))).unwrap_err();
    assert!(since.elapsed() < std::time::Duration::from_secs(20));
    let error = error.to_string();
    assert!(error.contains("timed out"), "{error}");
}

#[test]
fn a_director_elsewhere_answers_over_tls_and_failures_say_what_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let port = serve(folder.path());
    let address = format!("https://localhost:{port}");
    let status = show::status(&asked(options(&folder, address.clone(), "look"))).unwrap();
    assert!(status.contains("port lan: memory"), "{status}");
    let error = |address: &str, own: &str| {
        let options = options(&folder, address.to_owned(), own);
        show::status(&asked(options)).unwrap_err().to_string()
    };
    let another = error(&address, "stranger");
    assert!(
        another.starts_with(&address) && another.contains("--address"),
        "{another}"
    );
    let nobody = error(&address, "localhost");
    assert!(
        nobody.contains("you are san localhost, without any role"),
        "{nobody}"
    );
    // Who answers is not who was asked for, or nobody vouches for him.
    let other_name = error(&format!("https://127.0.0.1:{port}"), "look");
    assert!(
        other_name.contains("certificate") && other_name.contains("--address"),
        "{other_name}"
    );
    let mut unknown = options(&folder, address.clone(), "look");
    unknown.ca = Some(folder.path().join("other.crt"));
    let unknown = show::status(&asked(unknown)).unwrap_err().to_string();
    assert!(
        unknown.contains("invalid peer certificate") && unknown.contains("--ca"),
        "{unknown}"
    );
    let plain = error(&format!("http://localhost:{port}"), "look");
    assert!(plain.contains("is no https:// address"), "{plain}");
    let missing = error(&address, "missing");
    assert!(
        missing.contains("missing.crt: No such file") && missing.contains("--certificate"),
        "{missing}"
    );
}

/// A director with so many servers that the answer is longer than what clients of gRPC take by themselves.
struct Large;

#[tonic::async_trait]
impl Director_ for Large {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn list_services(
        &self,
        _: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        let server = v1::RealServer {
            address: "10.1.0.11".to_owned(),
            port: 80,
            rates: Some(v1::Rates {
                in_bytes: u64::MAX,
                ..v1::Rates::default()
            }),
            in_bytes: u64::MAX,
            ..v1::RealServer::default()
        };
        let services = vec![v1::Service {
            servers: vec![server; 150_000],
            ..v1::Service::default()
        }];
        Ok(Response::new(v1::ListServicesResponse { services }))
    }

    type WatchStatisticsStream = Empty<Result<v1::WatchStatisticsResponse, Status>>;

    async fn watch_statistics(
        &self,
        _: Request<v1::WatchStatisticsRequest>,
    ) -> Result<Response<Self::WatchStatisticsStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn zero_counters(
        &self,
        _: Request<v1::ZeroCountersRequest>,
    ) -> Result<Response<v1::ZeroCountersResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

#[test]
fn all_servers_are_listed_however_many_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let incoming = Incoming::default().unix(socket).unwrap();
            let server = Server::builder().add_service(DirectorServer::new(Large));
            server.serve_with_incoming(incoming).await.unwrap();
        });
    });
    let listed = connect::ask(&Options::socket(&path), async |channel| {
        let mut client = connect::director(channel);
        client.list_services(v1::ListServicesRequest {}).await
    });
    let listed = listed.unwrap();
    assert!(prost::Message::encoded_len(&listed) > 4 << 20);
    assert_eq!(listed.services[0].servers.len(), 150_000);
}
