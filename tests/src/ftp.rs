//! vsftpd on the servers; curl and lftp for clients.

use crate::payload::{Payload, sha256};
use crate::process::{Output, Process, eventually};
use crate::server::listens;
use cli::lab::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// FTP's port for commands.
pub const FTP: u16 = 21;
/// What there is to be fetched.
pub const FILE: &str = "file";
const START: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(2);
const TRANSFERS: Duration = Duration::from_secs(60);

/// vsftpd: anybody may fetch [`FILE`], the payload of 20 MB, and put files into `put/`.
#[derive(Debug)]
pub struct Vsftpd {
    root: PathBuf,
    process: Process,
}

impl Vsftpd {
    /// Starts it in `folder`, which it has for itself.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(namespace: &Namespace, folder: &Path, listen: SocketAddr) -> Vsftpd {
        let root = folder.join("root");
        fs::create_dir_all(root.join("put")).unwrap();
        fs::create_dir_all(root.join("small")).unwrap();
        symlink(Payload::medium().path(), root.join(FILE)).unwrap();
        // Where the file is, says who has it.
        fs::write(root.join("name"), namespace.name()).unwrap();
        for number in 0..SMALL {
            let name = format!("small/{number}");
            fs::write(root.join(name), small(number)).unwrap();
        }
        let settings = folder.join("vsftpd.conf");
        fs::write(&settings, configuration(&root, listen)).unwrap();
        // Each session is a process, and all of them are to end with the first.
        let mut command = namespace.command("unshare");
        command.args(["--pid", "--fork", "--kill-child", "vsftpd"]);
        command.arg(settings);
        let mut process = Process::spawn(command);
        let up = || listens(namespace, "tcp", listen.port()).then_some(());
        assert!(
            eventually(START, up).is_some(),
            "vsftpd is not up on {listen}: {:?}",
            process.ended()
        );
        Vsftpd { root, process }
    }

    /// The SHA-256 of what was put to `put/name`, which is then forgotten.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn take_upload(&self, name: &str) -> Option<String> {
        let path = self.root.join("put").join(name);
        let file = File::open(&path).ok()?;
        fs::remove_file(&path).unwrap();
        Some(sha256(file))
    }
}

impl Drop for Vsftpd {
    /// Ends vsftpd, and with it its sessions, so that its parent sees it and ends too. Whatever prevents that, the parent's
    /// own end does the same.
    fn drop(&mut self) {
        let pid = self.process.pid();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        for child in children.split_whitespace().flat_map(str::parse) {
            // It may have ended already.
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        let _ = eventually(END, || self.process.ended());
    }
}

/// How many small files there are.
pub const SMALL: usize = 20;

/// What stands in one of the small files, `small/NUMBER`.
#[must_use]
pub fn small(number: usize) -> String {
    format!("This is file {number}.\n").repeat(number + 1)
}

/// Data connections begin at the port before the commands', as clients and directors expect.
fn configuration(root: &Path, listen: SocketAddr) -> String {
    let (switch, address) = match listen.ip() {
        IpAddr::V4(_) => ("listen=YES\nlisten_ipv6=NO", "listen_address"),
        IpAddr::V6(_) => ("listen=NO\nlisten_ipv6=YES", "listen_address6"),
    };
    format!(
        "{switch}\n\
         {address}={ip}\n\
         listen_port={port}\n\
         ftp_data_port={data}\n\
         connect_from_port_20=YES\n\
         background=NO\n\
         run_as_launching_user=YES\n\
         anonymous_enable=YES\n\
         no_anon_password=YES\n\
         anon_root={root}\n\
         write_enable=YES\n\
         anon_upload_enable=YES\n\
         anon_umask=022\n\
         xferlog_enable=NO\n\
         idle_session_timeout=30\n\
         data_connection_timeout=30\n\
         accept_timeout=5\n\
         connect_timeout=5\n\
         max_per_ip=0\n\
         max_clients=0\n",
        ip = listen.ip(),
        port = listen.port(),
        data = listen.port() - 1,
        root = root.display(),
    )
}

/// Runs curl for the files and folders of `server` that `paths` name, in one session. `options` are curl's.
#[must_use]
pub fn curl(client: &Namespace, server: IpAddr, options: &[&str], paths: &[&str]) -> Output {
    let mut command = client.command("curl");
    command.args(["--silent", "--show-error", "--globoff"]);
    command.args(["--connect-timeout", "3", "--max-time", "30"]);
    command.args(options);
    for path in paths {
        command.arg(url(server, path));
    }
    Process::spawn(command).finish(TRANSFERS)
}

/// Fetches [`FILE`]; the SHA-256 of what came.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn fetch(client: &Namespace, server: IpAddr, options: &[&str]) -> String {
    let to = tempfile::NamedTempFile::new().unwrap();
    let path = to.path().to_str().unwrap();
    let options = [options, &["--output", path]].concat();
    let _ = curl(client, server, &options, &[FILE]).success();
    sha256(to.into_file())
}

/// Puts the payload of 20 MB to `put/name`.
///
/// # Panics
/// When it fails.
pub fn put(client: &Namespace, server: IpAddr, options: &[&str], name: &str) {
    let payload = Payload::medium().path();
    let options = [options, &["--upload-file", payload.to_str().unwrap()]].concat();
    let _ = curl(client, server, &options, &[&format!("put/{name}")]).success();
}

/// Fetches the folder `small` by lftp into `folder`, by `at_once` sessions.
///
/// # Panics
/// When it fails.
pub fn mirror(client: &Namespace, server: IpAddr, at_once: u8, folder: &Path) {
    let script = format!(
        "set net:timeout 5; set net:max-retries 1; set cmd:fail-exit yes; \
         mirror --parallel={at_once} {} {}",
        url(server, "small"),
        folder.display()
    );
    let mut command = client.command("lftp");
    // Without the user's settings and memory.
    command.args(["--norc", "-c", &script]);
    command.env("HOME", folder.parent().unwrap());
    let _ = Process::spawn(command).finish(TRANSFERS).success();
}

fn url(server: IpAddr, path: &str) -> String {
    match server {
        IpAddr::V4(server) => format!("ftp://{server}/{path}"),
        IpAddr::V6(server) => format!("ftp://[{server}]/{path}"),
    }
}
