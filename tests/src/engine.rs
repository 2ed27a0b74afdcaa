//! A Docker engine of the test's own: its network, processes, mounts and files are in namespaces and in memory that end with it,
//! whatever ends it. Containers are made of Debian packages alone, for there may be no registry.

use crate::process::{Process, eventually};
use cli::lab::Namespace;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// How long the engine may take to start.
const START: Duration = Duration::from_secs(60);
/// How long Debian's packages may take to become a root.
const BOOTSTRAP: Duration = Duration::from_secs(300);
/// How long one command to the engine may take.
const COMMAND: Duration = Duration::from_secs(120);
/// How long the processes of an engine that is killed may take to end.
const END: Duration = Duration::from_secs(5);
/// What the engine's containers are counted under; Docker's own name would mix them with another engine's.
const CGROUP: &str = "uvs-engine";

/// What is in every image beside Debian's essential packages: what the demonstration's servers and client run, `setcap`, and an
/// init for what is to be a machine.
const PACKAGES: &str = "nginx-light,curl,libcap2-bin,systemd,systemd-sysv";

/// As process 1 of its own world: /run and the engine's files are in memory, and nobody else sees any of its mounts.
const ENGINE: &str = r#"
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
[ ! -d /etc/docker ] || mount -t tmpfs tmpfs /etc/docker
mkdir "$1/data" "$1/exec"
mount -t tmpfs tmpfs "$1/data"
mount -t tmpfs tmpfs "$1/exec"
exec dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/exec/pid" --cgroup-parent "/$2" -H "unix://$1/docker.sock"
"#;

/// Debian as an archive on standard output; what it is made in is in memory.
const BASE: &str = r#"
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /tmp
exec mmdebstrap --quiet --variant=minbase --include="$1" bookworm -
"#;

/// See the module's text. It ends when this is dropped, and when the thread that started it ends.
#[derive(Debug)]
pub struct Engine {
    process: Option<Process>,
    folder: TempDir,
}

impl Engine {
    /// Starts it, with Debian as the image `debian:bookworm-slim`.
    ///
    /// # Panics
    /// When it does not start: its log tells why. It needs root, and the Debian packages docker.io and mmdebstrap.
    #[must_use]
    pub fn start() -> Engine {
        remove_cgroups(Duration::ZERO);
        let folder = tempfile::tempdir().unwrap();
        let namespace = Namespace::new("engine").unwrap();
        let mut command = namespace.command("unshare");
        command.args(APART).args(["sh", "-c", ENGINE, "engine"]);
        command.arg(folder.path()).arg(CGROUP);
        let log = File::create(folder.path().join("log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap());
        command.stderr(log);
        let mut engine = Engine {
            process: Some(Process::spawn_as_is(command, None)),
            folder,
        };
        let up = eventually(START, || {
            let process = engine.process.as_mut().unwrap();
            assert!(process.ended().is_none(), "dockerd ended");
            let asked = engine.docker(&["version"]).output().unwrap();
            asked.status.success().then_some(())
        });
        assert!(up.is_some(), "dockerd does not answer");
        let import = engine.docker(&["import", "-", "debian:bookworm-slim"]);
        let import = Process::spawn_reading(import, base().into());
        let _image = import.finish(COMMAND).success();
        engine
    }

    /// Another name of Debian's image, which stands in for one of a registry.
    ///
    /// # Panics
    /// When the engine refuses.
    pub fn name_base(&self, image: &str) {
        run(self.docker(&["tag", "debian:bookworm-slim", image]));
    }

    /// A command of the client `docker`.
    #[must_use]
    pub fn docker(&self, arguments: &[&str]) -> Command {
        self.client("docker", arguments)
    }

    /// A command of Docker Compose: the client's plugin, or the program of its own that Debian 12 has.
    #[must_use]
    pub fn compose(&self, arguments: &[&str]) -> Command {
        static PLUGIN: OnceLock<bool> = OnceLock::new();
        let plugin = PLUGIN.get_or_init(|| {
            let asked = self.docker(&["compose", "version"]).output();
            asked.is_ok_and(|asked| asked.status.success())
        });
        if *plugin {
            self.client("docker", &[&["compose"], arguments].concat())
        } else {
            self.client("docker-compose", arguments)
        }
    }

    /// Starts a container that is a machine: with systemd as process 1, which may mount and count what it starts. Commands run
    /// in it by `docker exec`.
    ///
    /// # Panics
    /// When systemd does not come up.
    pub fn start_machine(&self, name: &str, volume: &str) {
        let mut command = self.docker(&["run", "-d", "--name", name, "-v", volume]);
        command.args(["--cgroupns=private", "--tmpfs", "/run", "--tmpfs", "/tmp"]);
        for capability in ["SYS_ADMIN", "NET_ADMIN", "IPC_LOCK", "SYS_PTRACE"] {
            command.args(["--cap-add", capability]);
        }
        for option in ["seccomp=unconfined", "systempaths=unconfined"] {
            command.args(["--security-opt", option]);
        }
        command.args(["--device-cgroup-rule", "a *:* rwm"]);
        command.args(["debian:bookworm-slim", "/sbin/init"]);
        run(command);
        let mut state = String::new();
        let up = eventually(START, || {
            let mut asked = self.docker(&["exec", name, "systemctl", "is-system-running"]);
            let asked = asked.output().unwrap();
            state = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
            // "degraded": something of Debian's did not start, which a container may not be able to.
            ["running", "degraded"]
                .contains(&state.as_str())
                .then_some(())
        });
        assert!(up.is_some(), "systemd is {state:?}");
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn client(&self, program: &str, arguments: &[&str]) -> Command {
        let socket = self.folder.path().join("docker.sock");
        // With the parent's thread ends the client, too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", program]);
        command.args(arguments);
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        // Not the operator's own settings and credentials.
        command.env("DOCKER_CONFIG", self.folder.path());
        command
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- dockerd:\n{}", tail.join("\n"));
        }
        // With process 1 end all processes and mounts.
        self.process = None;
        remove_cgroups(END);
    }
}

/// Runs a command that ends soon and well, and gives what it printed.
///
/// # Panics
/// When it does not, or cannot be started.
#[allow(clippy::must_use_candidate, reason = "many are run for their effect")]
pub fn run(command: Command) -> String {
    Process::spawn(command).finish(COMMAND).success()
}

/// Options of unshare for processes and mounts of their own, which end with it.
const APART: [&str; 5] = ["--pid", "--fork", "--mount", "--mount-proc", "--kill-child"];

/// Debian as an archive: made once for a run of the tests, and gone with it.
fn base() -> File {
    static BASE_ARCHIVE: OnceLock<File> = OnceLock::new();
    let archive = BASE_ARCHIVE.get_or_init(|| {
        let archive = tempfile::tempfile().unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare"]).args(APART);
        command.args(["sh", "-c", BASE, "base", PACKAGES]);
        let made = Process::spawn_to(command, archive.try_clone().unwrap().into());
        let _archive = made.finish(BOOTSTRAP).success();
        archive
    });
    let mut archive = archive.try_clone().unwrap();
    archive.seek(SeekFrom::Start(0)).unwrap();
    archive
}

/// Removes what an engine left among the control groups, now or when it was killed; those still in use after `limit` stay.
fn remove_cgroups(limit: Duration) {
    let root = Path::new("/sys/fs/cgroup");
    remove_group(&root.join(CGROUP), limit);
    for controller in folders(root) {
        remove_group(&controller.join(CGROUP), limit);
    }
}

fn remove_group(group: &Path, limit: Duration) {
    for inner in folders(group) {
        remove_group(&inner, limit);
    }
    // Processes that are killed leave their group a while later.
    let _ = eventually(limit, || match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => None,
        _ => Some(()),
    });
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}
