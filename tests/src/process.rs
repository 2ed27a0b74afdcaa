//! Programs that run for a limited time and end with the test.

use cli::lab::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often something is looked at that one waits for.
const GLANCE: Duration = Duration::from_millis(5);

/// Waits until `done` gives a value; `None` when it does not in time.
pub fn eventually<T>(limit: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = done() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(GLANCE);
    }
}

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    /// Its arguments, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Output {
    /// What it printed, if it ended well.
    ///
    /// # Panics
    /// If it did not.
    #[must_use]
    pub fn success(self) -> String {
        assert!(
            self.status.success(),
            "{}: {}\n{}{}",
            self.command,
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// A running program. It is killed when this value is dropped, and when the thread that started it ends.
#[derive(Debug)]
pub struct Process {
    command: String,
    child: Child,
    stdout: Option<File>,
    stderr: Option<File>,
}

impl Process {
    /// Starts a program in a namespace; what it prints is kept.
    ///
    /// # Panics
    /// When there is no such program.
    #[must_use]
    pub fn start(namespace: &Namespace, program: &str, arguments: &[&str]) -> Process {
        let mut command = namespace.command(program);
        command.args(arguments);
        Process::spawn(command)
    }

    /// Starts a command made by [`Namespace::command`]. What it prints is kept, unless the command sends it elsewhere
    /// by [`spawn_to`](Self::spawn_to).
    ///
    /// # Panics
    /// When there is no such program.
    #[must_use]
    pub fn spawn(command: Command) -> Process {
        let stdout = tempfile::tempfile().unwrap();
        let to = Stdio::from(stdout.try_clone().unwrap());
        let mut process = Process::spawn_to(command, to);
        process.stdout = Some(stdout);
        process
    }

    /// Starts a command whose standard output goes to `stdout`.
    ///
    /// # Panics
    /// When there is no such program.
    #[must_use]
    pub fn spawn_to(mut command: Command, stdout: Stdio) -> Process {
        let stderr = tempfile::tempfile().unwrap();
        command.stdin(Stdio::null()).stdout(stdout);
        command.stderr(Stdio::from(stderr.try_clone().unwrap()));
        Process::spawn_as_is(command, Some(stderr))
    }

    /// Starts a command that reads `stdin`; what it prints is kept.
    ///
    /// # Panics
    /// When there is no such program.
    #[must_use]
    pub fn spawn_reading(mut command: Command, stdin: Stdio) -> Process {
        let stdout = tempfile::tempfile().unwrap();
        command.stdin(stdin).stdout(stdout.try_clone().unwrap());
        let mut process = Process::spawn_as_is(command, None);
        process.stdout = Some(stdout);
        process
    }

    pub(crate) fn spawn_as_is(mut command: Command, stderr: Option<File>) -> Process {
        let name = format!("{command:?}");
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("{name}: {error}; ./test installs what the tests need, or see its list")
        });
        Process {
            command: name,
            child,
            stdout: None,
            stderr,
        }
    }

    /// Its number.
    ///
    /// # Panics
    /// Never: the kernel's numbers fit.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is not there.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Its exit status, if it has ended.
    ///
    /// # Panics
    /// When the kernel does not tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it ends, and gives what it left.
    ///
    /// # Panics
    /// When it takes longer than `limit`.
    #[must_use]
    pub fn finish(mut self, limit: Duration) -> Output {
        let status = eventually(limit, || self.ended());
        if status.is_none() {
            self.signal(Signal::SIGKILL);
        }
        let [stdout, stderr] = [self.stdout.take(), self.stderr.take()].map(text);
        let Some(status) = status else {
            panic!(
                "{}: not done after {limit:?}\n{stdout}{stderr}",
                self.command
            );
        };
        Output {
            command: self.command.clone(),
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(file: Option<File>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut file) = file {
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
