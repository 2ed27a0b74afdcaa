//! What Prometheus is served, against what is documented, drawn and asked for.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use control::Director;
use control::config::Configuration;
use control::manage::{Actor, Edit, Manager, Terms, Wish};
use control::metrics::{Endpoint, FAMILIES, Kind, metrics};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TEXT: &str = r#"
[director]
connections = 1000
servers = 10
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
[[lip_pool]]
name = "lips"
addresses = ["10.1.0.200"]
[[service]]
listen = "tcp 10.1.0.100:80"
scheduler = "wlc"
method = "fullnat"
lip_pool = "lips"
server = [{ address = "10.1.0.11", weight = 3 }, { address = "10.1.0.12", upper = 7 }]
[[service]]
listen = "udp 10.1.0.100:53"
scheduler = "rr"
method = "nat"
server = [{ address = "10.1.0.13" }]
"#;

fn manager(text: &str) -> Arc<Manager> {
    let configuration = Configuration::parse("f", text).unwrap().configuration;
    Arc::new(Manager::new(
        Arc::new(Director::start(configuration).unwrap()),
        1,
    ))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// Names that are served, with the kinds that are said of them; a histogram's parts count as itself.
fn served(text: &str) -> BTreeMap<String, String> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    kinds
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            (name.to_owned(), kind.to_owned())
        })
        .collect()
}

fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample));
    line.unwrap_or_else(|| panic!("no {sample} in\n{text}"))
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn every_metric_of_the_catalogue_is_served_and_says_what_is() {
    let manager = manager(TEXT);
    let edit = Edit::DeleteService(manager.director().configuration().services[1].listen);
    let actor = Actor::of_uvsd("test");
    manager
        .change(&Wish::Edits(vec![edit]), Terms::default(), &actor)
        .unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    // The first worker announces addresses and asks for nobody: there is no neighbour, nor does a memory port count.
    let silent = ["uvs_neighbour_up", "uvs_port_statistic"];
    let text = loop {
        let text = metrics(&manager);
        if value(&text, "uvs_configuration_seen_version ") > 1.0 || Instant::now() > until {
            break text;
        }
    };
    let kinds = served(&text);
    for family in FAMILIES
        .iter()
        .filter(|family| !silent.contains(&family.name))
    {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!(
            kinds.get(family.name).map(String::as_str),
            Some(kind),
            "{}",
            family.name
        );
    }
    assert!(
        kinds
            .keys()
            .all(|name| FAMILIES.iter().any(|family| family.name == name))
    );
    let service = "{service=\"tcp 10.1.0.100:80\"}";
    for (sample, wanted) in [
        (format!("uvs_service_servers{service}"), 2.0),
        (format!("uvs_service_weight{service}"), 4.0),
        (
            "uvs_server_weight{service=\"tcp 10.1.0.100:80\",server=\"10.1.0.11:80\"}".to_owned(),
            3.0,
        ),
        (
            "uvs_server_upper_threshold{service=\"tcp 10.1.0.100:80\",server=\"10.1.0.12:80\"}"
                .to_owned(),
            7.0,
        ),
        ("uvs_revision".to_owned(), 2.0),
        ("uvs_configuration_seen_version".to_owned(), 2.0),
        ("uvs_apply_duration_seconds_count".to_owned(), 1.0),
        ("uvs_table_capacity{family=\"ipv6\"}".to_owned(), 1000.0),
        ("uvs_worker_up{worker=\"0\"}".to_owned(), 1.0),
        ("uvs_port_up{port=\"lan\"}".to_owned(), 1.0),
    ] {
        let found = value(&text, &sample);
        assert!((found - wanted).abs() < 1e-9, "{sample}: {found}");
    }
    assert!(!text.contains("udp 10.1.0.100:53"));
}

#[test]
fn what_is_switched_off_is_not_served() {
    let text = format!(
        "{TEXT}[metrics]\nservices = false\nservers = false\nneighbours = false\nport_statistics = false\n"
    );
    let text = metrics(&manager(&text));
    for absent in [
        "uvs_service_",
        "uvs_server_",
        "uvs_neighbour_up",
        "uvs_port_statistic",
    ] {
        assert!(!text.contains(absent), "{absent}");
    }
    assert!(text.contains("uvs_neighbours{") && text.contains("uvs_port_up{"));
}

#[test]
fn the_page_says_what_is_served() {
    let page = read("docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `uvs_"));
    let rows: Vec<_> = rows.collect();
    let wanted = FAMILIES.iter().map(|family| {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let mut labels = String::new();
        for (place, label) in family.labels.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(labels, "{comma}`{label}`").unwrap();
        }
        format!(
            "| `{}` | {kind} | {labels} | {} |",
            family.name, family.help
        )
    });
    let wanted: Vec<_> = wanted.collect();
    assert_eq!(
        rows, wanted,
        "docs/metrics.md, and control/src/metrics/catalogue.rs"
    );
}

/// Words of a text that look like metrics of ours.
fn mentioned(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words
        .filter(|word| word.starts_with("uvs_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let known = |name: &str| {
        FAMILIES.iter().any(|family| {
            let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", family.name));
            match family.kind {
                Kind::Histogram => parts.iter().any(|part| part == name),
                _ => family.name == name,
            }
        })
    };
    for (file, at_least) in [
        ("configs/grafana/uvs.json", 25),
        ("configs/prometheus/uvs-alerts.yaml", 10),
        ("configs/prometheus/uvs-alerts-test.yaml", 10),
    ] {
        let names = mentioned(&read(file));
        assert!(names.len() >= at_least, "{file}: {names:?}");
        for name in names {
            assert!(known(&name), "{file}: {name}");
        }
    }
}

/// A port of the loopback that nobody has at this moment.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A director whose metrics are served, and where.
struct Served {
    address: SocketAddr,
}

impl Served {
    fn new() -> Served {
        let address = free_address();
        let text = format!("{TEXT}[metrics]\nlisten = \"{address}\"\n");
        let manager = manager(&text);
        let endpoint = Endpoint::bind(&manager.director().configuration())
            .unwrap()
            .unwrap();
        // As uvsd serves them: on one thread. It ends with the process.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                endpoint.serve(manager).unwrap();
                std::future::pending::<()>().await;
            });
        });
        Served { address }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        // The answer may come before the whole request was sent.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }
}

#[test]
fn one_page_is_there_and_nothing_else() {
    let served = Served::new();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let page = served.ask(&get("/metrics"));
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(
        page.contains("content-type: text/plain; version=0.0.4\r\n"),
        "{page}"
    );
    assert!(page.contains("\nuvs_build_info{version="));
    for (request, status) in [
        (get("/"), "404 Not Found"),
        (get("/metrics/../etc/passwd"), "404 Not Found"),
        (
            "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "405 Method Not Allowed",
        ),
        (get(&format!("/{}", "x".repeat(100_000))), "4"),
        (
            format!(
                "GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n",
                "y".repeat(100_000)
            ),
            "431",
        ),
        ("what\r\n\r\n".to_owned(), "400 Bad Request"),
    ] {
        let answer = served.ask(&request);
        let wanted = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&wanted), "{wanted}: {answer:.200}");
    }
}

#[test]
fn whoever_says_nothing_is_let_go_and_others_get_their_turn() {
    let served = Served::new();
    let began = Instant::now();
    // As many as may be open, and one more behind them.
    let mut silent: Vec<_> = (0..16)
        .map(|_| TcpStream::connect(served.address).unwrap())
        .collect();
    let page = served.ask("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    let waited = began.elapsed();
    assert!(page.contains("uvs_build_info"));
    assert!(
        waited > Duration::from_secs(8),
        "it had to wait: {waited:?}"
    );
    let mut rest = Vec::new();
    // Closed, with or without a word.
    let _ = silent[0].read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!("{TEXT}[metrics]\nlisten = \"{address}\"\n");
    let configuration = Configuration::parse("f", &text).unwrap().configuration;
    let error = Endpoint::bind(&configuration).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "metrics.listen: {address}: Address already in use (os error 98); accepted: an address of this host and a port that is free"
        )
    );
    let without = Configuration::parse("f", TEXT).unwrap().configuration;
    assert!(Endpoint::bind(&without).unwrap().is_none());
}
