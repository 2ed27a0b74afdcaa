//! What runs on the real servers.

use crate::payload::{Payload, sha256};
use crate::process::{Process, eventually};
use crate::udp::DATAGRAM_MAX;
use cli::lab::Namespace;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(10);
/// How often the echo looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// nginx on one server. `/name` says which server, asked by whom, at which address; `/large` is the payload,
/// `/slow/large` the payload at 20 MB/s, and what is put to `/put/NAME` is kept.
#[derive(Debug)]
pub struct Nginx {
    folder: PathBuf,
    _process: Process,
}

impl Nginx {
    /// Starts it in `folder`, which it has for itself.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(namespace: &Namespace, folder: &Path, listen: SocketAddr) -> Nginx {
        fs::create_dir_all(folder.join("root/put")).unwrap();
        fs::create_dir_all(folder.join("root/slow")).unwrap();
        for link in ["root/large", "root/slow/large"] {
            symlink(Payload::large().path(), folder.join(link)).unwrap();
        }
        let text = configuration(namespace.name(), folder, listen);
        fs::write(folder.join("nginx.conf"), text).unwrap();
        let mut command = namespace.command("nginx");
        command.arg("-p").arg(folder).args(["-c", "nginx.conf"]);
        command.arg("-e").arg(folder.join("error.log"));
        let nginx = Nginx {
            folder: folder.to_owned(),
            _process: Process::spawn(command),
        };
        let up = || {
            namespace
                .run(|| TcpStream::connect_timeout(&listen, START))
                .ok()
        };
        assert!(
            eventually(START, up).is_some(),
            "nginx is not up on {listen}:\n{}",
            nginx.log()
        );
        nginx
    }

    /// The SHA-256 of what was put to `/put/name`, which is then forgotten.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn take_upload(&self, name: &str) -> Option<String> {
        let path = self.folder.join("root/put").join(name);
        let file = File::open(&path).ok()?;
        fs::remove_file(&path).unwrap();
        Some(sha256(file))
    }

    /// Its error log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("error.log")).unwrap_or_default()
    }
}

/// One process, because only the one that is started ends with its parent.
fn configuration(name: &str, folder: &Path, listen: SocketAddr) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|kind| format!("{kind}_temp_path {kind};"));
    format!(
        r#"daemon off;
master_process off;
user root;
pid nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    {temporary}
    sendfile on;
    default_type application/octet-stream;
    keepalive_requests 1000000;
    client_max_body_size 0;
    server {{
        listen {listen} backlog=4096;
        root {folder}/root;
        location = /name {{ return 200 "{name} $remote_addr $server_addr $server_port\n"; }}
        location /put/ {{ dav_methods PUT; }}
        location /slow/ {{ limit_rate 20m; }}
    }}
}}
"#,
        temporary = temporary.join("\n    "),
        folder = folder.display(),
    )
}

/// Whether somebody listens at a port of a namespace; `protocol` is tcp or udp.
#[must_use]
pub(crate) fn listens(namespace: &Namespace, protocol: &str, port: u16) -> bool {
    // The states of sockets without a peer: listening, and closed, which UDP's are.
    let state = if protocol == "tcp" { " 0A " } else { " 07 " };
    let port = format!(":{port:04X} ");
    let is_it = |line: &str| line.contains(&port) && line.contains(state);
    namespace.run(|| {
        ["", "6"].iter().any(|family| {
            let table = format!("/proc/thread-self/net/{protocol}{family}");
            let table = fs::read_to_string(table).unwrap_or_default();
            table.lines().any(is_it)
        })
    })
}

/// Sends every datagram back, its first byte replaced by the server's number.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts it; `number` is the server's place in the topology.
    ///
    /// # Panics
    /// When the address is not to be had.
    #[must_use]
    pub fn start(namespace: &Namespace, number: u8, listen: SocketAddr) -> EchoServer {
        let socket = namespace.run(|| UdpSocket::bind(listen)).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serve = move || {
            let mut buffer = [0; DATAGRAM_MAX];
            while !stopped.load(Relaxed) {
                if let Ok((len, peer)) = socket.recv_from(&mut buffer) {
                    buffer[0] = number;
                    // What cannot be sent, the client misses.
                    let _ = socket.send_to(&buffer[..len], peer);
                }
            }
        };
        EchoServer {
            stop,
            thread: Some(namespace.spawn("echo", serve).unwrap()),
        }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed where it happened.
            let _ = thread.join();
        }
    }
}
