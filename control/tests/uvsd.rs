//! The daemon as a process: its exit status, its socket, its signals.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use control::daemon::STREAMS;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use proto::v1::configuration_client::ConfigurationClient;
use proto::v1::connections_client::ConnectionsClient;
use proto::v1::director_client::DirectorClient;
use proto::v1::{self, GetStatusRequest, ListServicesRequest};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

const TEXT: &str = r#"
[director]
connections = 100
control = "unix:SOCKET"
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
[[service]]
listen = "udp 10.1.0.100:53"
scheduler = "wrr"
method = "nat"
server = [{ address = "10.1.0.11", weight = 3 }, { address = "10.1.0.12" }]
"#;

/// A running uvsd; killed when dropped.
struct Uvsd {
    child: Child,
    log: BufReader<ChildStderr>,
    folder: TempDir,
}

impl Uvsd {
    fn start(text: &str) -> Uvsd {
        Uvsd::start_as(Command::new(env!("CARGO_BIN_EXE_uvsd")), text)
    }

    fn start_as(command: Command, text: &str) -> Uvsd {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("uvs.sock");
        fs::write(
            config(&folder),
            text.replace("SOCKET", socket.to_str().unwrap()),
        )
        .unwrap();
        let (child, log) = spawn_as(command, &config(&folder));
        let mut uvsd = Uvsd { child, log, folder };
        assert!(uvsd.line().contains("1 services"));
        uvsd
    }

    /// The next line of its log.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.log.read_line(&mut line).unwrap();
        line
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn config(&self) -> PathBuf {
        config(&self.folder)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("uvs.sock")
    }

    /// Changes its configuration and lets it be read again; returns what it says.
    fn reload(&mut self, from: &str, to: &str) -> String {
        let text = fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from));
        fs::write(self.config(), text.replace(from, to)).unwrap();
        self.signal(Signal::HUP);
        self.line()
    }

    async fn client(&self) -> DirectorClient<Channel> {
        DirectorClient::connect(format!("unix:{}", self.socket().display()))
            .await
            .unwrap()
    }

    fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.child.wait().unwrap()
    }
}

impl Drop for Uvsd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(folder: &TempDir) -> PathBuf {
    folder.path().join("uvs.toml")
}

fn spawn(config: &Path) -> (Child, BufReader<ChildStderr>) {
    spawn_as(Command::new(env!("CARGO_BIN_EXE_uvsd")), config)
}

fn spawn_as(mut command: Command, config: &Path) -> (Child, BufReader<ChildStderr>) {
    let mut child = command
        .arg("--config")
        .arg(config)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    (child, log)
}

fn check(path: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_uvsd"))
        .arg("--check")
        .arg("--config")
        .arg(path)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn check_says_ok_or_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(&folder);
    fs::write(&path, TEXT.replace("SOCKET", "/x")).unwrap();
    assert_eq!(check(&path), (Some(0), "OK\n".to_owned(), String::new()));
    fs::write(
        &path,
        TEXT.replace("SOCKET", "x")
            .replace("weight = 3", "weight = -3"),
    )
    .unwrap();
    let (status, stdout, stderr) = check(&path);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(
        lines[1].ends_with("service[0].server[0].weight: -3 is not a weight; accepted: 0 to 65535")
    );
}

#[tokio::test]
async fn status_and_services_are_answered_on_the_socket() {
    let uvsd = Uvsd::start(TEXT);
    let mut client = uvsd.client().await;
    let status = client
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert!(status.workers[0].running);
    assert_eq!(
        (
            status.ports[0].name.as_str(),
            status.ports[0].driver.as_str()
        ),
        ("lan", "memory")
    );
    assert_eq!(status.ports[0].mac, "02:00:00:00:00:00");
    assert_eq!(
        (status.tables[0].family.as_str(), status.tables[0].capacity),
        ("ipv4", 100)
    );
    assert!(
        status
            .drops
            .iter()
            .any(|drop| drop.reason == "no-server" && drop.packets == 0)
    );
    let services = client
        .list_services(ListServicesRequest {})
        .await
        .unwrap()
        .into_inner()
        .services;
    let key = services[0].key.as_ref().unwrap();
    assert_eq!(
        (key.protocol(), key.address.as_str(), key.port),
        (v1::Protocol::Udp, "10.1.0.100", 53)
    );
    let server = &services[0].servers[0];
    assert_eq!(
        (server.address.as_str(), server.port, server.weight),
        ("10.1.0.11", 53, 3)
    );
    assert_eq!(server.method(), v1::Method::Nat);
    assert_eq!(server.tunnel, None);
}

#[tokio::test]
async fn tunnels_are_listed_as_they_are_configured() {
    let server = "{ address = \"10.1.0.11\", weight = 3, method = \"tun\"";
    for (keys, expected) in [
        ("", (v1::TunnelKind::Ipip, 0, v1::TunnelChecksum::None)),
        (
            ", tunnel = \"gre\", tunnel_checksum = \"full\"",
            (v1::TunnelKind::Gre, 0, v1::TunnelChecksum::Full),
        ),
        (
            ", tunnel = \"gue\", tunnel_port = 6080",
            (v1::TunnelKind::Gue, 6080, v1::TunnelChecksum::None),
        ),
        (
            ", tunnel = \"gue\", tunnel_port = 6080, tunnel_checksum = \"remote\"",
            (v1::TunnelKind::Gue, 6080, v1::TunnelChecksum::Remote),
        ),
    ] {
        let text = TEXT.replace(
            "{ address = \"10.1.0.11\", weight = 3",
            &format!("{server}{keys}"),
        );
        assert_ne!(text, TEXT);
        let uvsd = Uvsd::start(&text);
        let answer = uvsd
            .client()
            .await
            .list_services(ListServicesRequest {})
            .await;
        let server = answer
            .unwrap()
            .into_inner()
            .services
            .remove(0)
            .servers
            .remove(0);
        let tunnel = server.tunnel.unwrap();
        assert_eq!((tunnel.kind(), tunnel.port, tunnel.checksum()), expected);
    }
}

#[tokio::test]
async fn a_hang_up_reloads_whole_or_not_at_all() {
    let mut uvsd = Uvsd::start(TEXT);
    let mut client = uvsd.client().await;
    assert!(
        uvsd.reload("weight = 3", "weight = 5")
            .contains("reloaded: 1 servers edited")
    );
    let said = uvsd.reload("weight = 5", "weight = 70000");
    assert!(
        said.contains("ERROR") && said.contains("70000 is not a weight"),
        "{said}"
    );
    assert!(
        uvsd.line()
            .contains("not reloaded: the old configuration goes on")
    );
    let services = client
        .list_services(ListServicesRequest {})
        .await
        .unwrap()
        .into_inner()
        .services;
    assert_eq!(services[0].servers[0].weight, 5);
    let said = uvsd.reload("weight = 70000", "weight = 6\n}, { address = \"10.1.0.13\"");
    assert!(
        said.contains("reloaded: 1 servers added, 1 servers edited"),
        "{said}"
    );
    let said = uvsd.reload("connections = 100", "connections = 101");
    assert!(
        said.contains("director.connections: fixed while the director runs"),
        "{said}"
    );
}

#[test]
fn both_signals_stop_it_cleanly_and_the_socket_goes() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut uvsd = Uvsd::start(TEXT);
        assert!(uvsd.socket().exists());
        assert_eq!(uvsd.stop(signal).code(), Some(0));
        assert!(!uvsd.socket().exists());
    }
}

#[tokio::test]
async fn a_client_that_does_not_let_go_does_not_keep_it_from_stopping() {
    let mut uvsd = Uvsd::start(TEXT);
    let mut client = uvsd.client().await;
    client.get_status(GetStatusRequest {}).await.unwrap();
    assert_eq!(uvsd.stop(Signal::TERM).code(), Some(0));
}

#[tokio::test]
async fn a_connection_has_so_many_calls_at_once_and_the_next_waits_for_one_to_end() {
    let uvsd = Uvsd::start(TEXT);
    let address = format!("unix:{}", uvsd.socket().display());
    let channel = Endpoint::from_shared(address).unwrap().connect().await;
    let mut client = ConfigurationClient::new(channel.unwrap());
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let request = v1::WatchConfigurationRequest::default();
        let mut stream = client.watch_configuration(request).await.unwrap();
        assert!(stream.get_mut().message().await.unwrap().is_some());
        streams.push(stream);
    }
    let mut another = client.clone();
    let one_more = another.watch_configuration(v1::WatchConfigurationRequest::default());
    tokio::pin!(one_more);
    let waits = tokio::time::timeout(Duration::from_millis(500), &mut one_more).await;
    assert!(waits.is_err(), "it waits");
    // Another connection is not concerned.
    let mut other = uvsd.client().await;
    other.get_status(GetStatusRequest {}).await.unwrap();
    streams.pop();
    let granted = tokio::time::timeout(Duration::from_secs(10), one_more).await;
    granted.unwrap().unwrap();
}

#[tokio::test]
async fn calls_with_too_much_in_them_are_refused_and_the_next_is_answered() {
    let uvsd = Uvsd::start(TEXT);
    let mut client = uvsd.client().await;
    let with_header = |len: usize| {
        let mut request = tonic::Request::new(GetStatusRequest {});
        let value = "x".repeat(len).parse().unwrap();
        request.metadata_mut().insert("long", value);
        request
    };
    client.get_status(with_header(15 << 10)).await.unwrap();
    let refused = client.get_status(with_header(17 << 10)).await.unwrap_err();
    assert_ne!(refused.code(), tonic::Code::Ok, "{refused:?}");
    client.get_status(GetStatusRequest {}).await.unwrap();
    // Messages that are no configuration: 4 MiB.
    let address = format!("unix:{}", uvsd.socket().display());
    let mut connections = ConnectionsClient::connect(address).await.unwrap();
    for (len, code) in [
        (4_000_000, tonic::Code::InvalidArgument),
        (5_000_000, tonic::Code::OutOfRange),
    ] {
        let request = v1::ExplainRequest {
            protocol: v1::Protocol::Tcp.into(),
            source: "x".repeat(len),
            source_port: 1,
            destination: "10.1.0.100".to_owned(),
            destination_port: 53,
            ..v1::ExplainRequest::default()
        };
        let refused = connections.explain(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    client.get_status(GetStatusRequest {}).await.unwrap();
}

#[test]
fn a_second_uvsd_on_the_same_socket_is_refused() {
    let uvsd = Uvsd::start(TEXT);
    let (mut child, mut log) = spawn(&uvsd.config());
    let mut said = String::new();
    log.read_line(&mut said).unwrap();
    assert!(said.contains("another uvsd listens there"), "{said}");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(uvsd.socket().exists());
}

#[test]
fn the_socket_of_a_killed_uvsd_is_replaced() {
    let mut uvsd = Uvsd::start(TEXT);
    uvsd.stop(Signal::KILL);
    assert!(uvsd.socket().exists());
    let (mut child, mut log) = spawn(&uvsd.config());
    let mut said = String::new();
    log.read_line(&mut said).unwrap();
    assert!(said.contains("control socket"), "{said}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The service manager's end of the notifications.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Manager { socket, folder }
    }

    /// uvsd as the service manager starts it, wanting a sign of life within the time.
    fn start(&self, watchdog: Duration) -> Uvsd {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uvsd"));
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        let uvsd = Uvsd::start_as(command, TEXT);
        self.expect("READY=1");
        uvsd
    }

    /// The next message; none when none comes in time.
    fn hear(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut message = [0; 256];
        let len = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..len].to_vec()).unwrap())
    }

    /// Waits for a message that begins so; signs of life may come before.
    fn expect(&self, beginning: &str) -> String {
        loop {
            let message = self.hear(Duration::from_secs(10));
            let message = message.unwrap_or_else(|| panic!("no {beginning}"));
            if message.starts_with(beginning) {
                return message;
            }
            assert_eq!(message, "WATCHDOG=1\n", "before {beginning}");
        }
    }
}

#[test]
fn the_service_manager_hears_of_start_reload_and_end() {
    let manager = Manager::new();
    let mut uvsd = manager.start(Duration::from_secs(1));
    manager.expect("WATCHDOG=1");
    uvsd.reload("weight = 3", "weight = 5");
    assert!(manager.expect("RELOADING=1").contains("\nMONOTONIC_USEC="));
    manager.expect("READY=1");
    uvsd.reload("weight = 5", "weight = 70000");
    manager.expect("RELOADING=1");
    manager.expect("READY=1");
    uvsd.signal(Signal::TERM);
    manager.expect("STOPPING=1");
    assert_eq!(uvsd.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_worker_that_stands_still_keeps_the_watchdog_from_being_answered() {
    const LIMIT: Duration = Duration::from_millis(400);
    let manager = Manager::new();
    let mut uvsd = manager.start(LIMIT);
    manager.expect("WATCHDOG=1");
    let worker = thread_of(uvsd.child.id(), "uvs-worker-0");
    ptrace::seize(worker, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(worker).unwrap();
    waitpid(worker, Some(WaitPidFlag::__WALL)).unwrap();
    assert!(uvsd.line().contains("workers [0] have stood still"));
    // What was said before that.
    while manager.hear(Duration::from_millis(1)).is_some() {}
    assert_eq!(manager.hear(3 * LIMIT), None);
    ptrace::detach(worker, None).unwrap();
    assert_eq!(manager.expect("WATCHDOG=1"), "WATCHDOG=1\n");
    assert!(uvsd.line().contains("all workers go on"));
}

/// A thread's number by its name.
fn thread_of(process: u32, name: &str) -> nix::unistd::Pid {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap().path());
    let named = |task: &PathBuf| fs::read_to_string(task.join("comm")).unwrap().trim() == name;
    let task = tasks.find(named).unwrap();
    let number = task.file_name().unwrap().to_str().unwrap();
    nix::unistd::Pid::from_raw(number.parse().unwrap())
}

/// Frames of Ethernet in the order of a capture (classic pcap, microseconds).
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for (second, frame) in (1u32..).zip(frames) {
        let len = u32::try_from(frame.len()).unwrap();
        for word in [second, 0, len, len] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

/// The frames of a capture that uvsd wrote.
fn frames_of(path: &Path) -> Vec<Vec<u8>> {
    let capture = dataplane::port::pcap::Capture::open(path);
    let capture = capture.unwrap_or_else(|error| panic!("{error}"));
    capture.frames().map(|frame| frame.bytes.to_vec()).collect()
}

/// A client's datagram to the service, and what the first server answers when it is asked for its hardware address.
fn request_and_arp_reply() -> [Vec<u8>; 2] {
    let [director, client, server] = [0, 2, 3].map(|last| [2, 0, 0, 0, 0, last]);
    let mut ip = vec![
        0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 1, 0, 100,
    ];
    let sum = dataplane::packet::checksum::ipv4_header(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend([0x10, 0, 0, 53, 0, 12, 0, 0]);
    ip.extend(b"what");
    let request = [&director[..], &client, &[8, 0], &ip].concat();
    let reply = [
        &director[..],
        &server,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
        &server,
        &[10, 1, 0, 11],
        &director,
        &[10, 1, 0, 1],
    ];
    [request, reply.concat()]
}

/// [`TEXT`] with a capture in the place of the port that leads nowhere.
fn replaying(folder: &TempDir, keys: &str) -> String {
    let [input, output] = ["in.pcap", "out.pcap"].map(|name| folder.path().join(name));
    fs::write(&input, pcap(&request_and_arp_reply())).unwrap();
    let keys = format!(
        "driver = \"pcap\"\nfile = \"{}\"\noutput = \"{}\"\n{keys}",
        input.display(),
        output.display()
    );
    TEXT.replace("driver = \"memory\"", &keys)
        .replace(", { address = \"10.1.0.12\" }", "")
}

#[tokio::test]
async fn a_capture_is_forwarded_into_another_and_status_tells_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = replaying(&folder, "").replace("[director]", "[director]\nworkers = 2");
    let mut uvsd = Uvsd::start(&text);
    let mut client = uvsd.client().await;
    let since = std::time::Instant::now();
    let status = loop {
        let status = client.get_status(GetStatusRequest {}).await;
        let status = status.unwrap().into_inner();
        if status.workers[0].forwarded == 1 {
            break status;
        }
        assert!(since.elapsed().as_secs() < 5, "{status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let port = &status.ports[0];
    assert_eq!((port.driver.as_str(), port.link()), ("pcap", v1::Link::Up));
    let expected = format!("2 frames of {}", folder.path().join("in.pcap").display());
    assert_eq!(port.mode, expected);
    assert_eq!(
        (status.workers[0].received, status.workers[1].received),
        (2, 0)
    );
    drop(client);
    assert_eq!(uvsd.stop(Signal::TERM).code(), Some(0));
    let sent = frames_of(&folder.path().join("out.pcap"));
    let forwarded: Vec<_> = sent
        .iter()
        .filter(|frame| frame[12..14] == [8, 0])
        .collect();
    assert_eq!(forwarded.len(), 1, "{sent:x?}");
    assert_eq!(forwarded[0][..6], [2, 0, 0, 0, 0, 3]);
    assert_eq!(forwarded[0][30..34], [10, 1, 0, 11]);
    assert!(frames_of(&folder.path().join("out.pcap.1")).is_empty());
}

#[tokio::test]
async fn an_infinite_capture_goes_on_and_what_is_sent_is_on_the_disk_soon() {
    let folder = tempfile::tempdir().unwrap();
    let mut uvsd = Uvsd::start(&replaying(&folder, "infinite = true\n"));
    let since = std::time::Instant::now();
    let forwarded = |uvsd: v1::GetStatusResponse| uvsd.workers[0].forwarded;
    let mut client = uvsd.client().await;
    while forwarded(
        client
            .get_status(GetStatusRequest {})
            .await
            .unwrap()
            .into_inner(),
    ) < 1000
    {
        assert!(since.elapsed().as_secs() < 10);
    }
    // Longer than until the counters are told again.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    drop(client);
    uvsd.stop(Signal::KILL);
    assert!(frames_of(&folder.path().join("out.pcap")).len() > 1000);
}

#[test]
fn a_capture_that_cannot_be_used_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = replaying(&folder, "").replace("SOCKET", "/tmp/none.sock");
    let input = folder.path().join("in.pcap");
    let mut damaged = pcap(&request_and_arp_reply());
    damaged[24 + 8..24 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    for (contents, expected) in [
        (Some(damaged), "offset 24: damaged: "),
        (
            Some(b"no capture".to_vec()),
            "begins with 0x6e6f2063; accepted are pcap",
        ),
        (None, "cannot read it: No such file or directory"),
    ] {
        match contents {
            Some(contents) => fs::write(&input, contents).unwrap(),
            None => fs::remove_file(&input).unwrap(),
        }
        let path = config(&folder);
        let socket = folder.path().join("uvs.sock");
        fs::write(
            &path,
            text.replace("/tmp/none.sock", socket.to_str().unwrap()),
        )
        .unwrap();
        let (mut child, mut log) = spawn(&path);
        let mut said = String::new();
        log.read_line(&mut said).unwrap();
        let start = format!("port lan: capture file {}", input.display());
        assert!(said.contains(&start) && said.contains(expected), "{said}");
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}
