//! Network namespaces that live as long as their thread: nothing is left behind, whatever a test does.

use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
pub(crate) struct Namespace {
    thread_id: i32,
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    /// # Panics
    /// When the process may not make one.
    pub(crate) fn new() -> Namespace {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (say, hear) = mpsc::channel();
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("these tests need root (CAP_SYS_ADMIN) to make network namespaces");
            say.send(nix::unistd::gettid().as_raw())
                .expect("someone waits for it");
            queue.into_iter().for_each(|job| job());
        });
        let thread_id = hear
            .recv()
            .expect("the namespace's thread has said why it ended");
        Namespace { thread_id, jobs }
    }

    /// Runs `work` in the namespace and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (say, hear) = mpsc::channel();
        let job = move || drop(say.send(work()));
        self.jobs
            .send(Box::new(job))
            .expect("the namespace's thread lives");
        hear.recv().expect("the work did not panic")
    }

    /// Runs `work` in the namespace on a thread of its own.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.run(|| std::thread::spawn(work))
    }

    /// Runs `ip` with these arguments.
    pub(crate) fn ip(&self, arguments: &str) {
        self.command("ip", arguments);
    }

    /// Runs a program with these arguments.
    ///
    /// # Panics
    /// When it is not installed or fails.
    pub(crate) fn command(&self, program: &'static str, arguments: &str) {
        let owned = arguments.to_owned();
        let output = self.run(move || Command::new(program).args(owned.split(' ')).output());
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(
            output.status.success(),
            "{program} {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Makes a veth pair, `name` here with 02:00:00:00:00:`mac` and `peer` there with the next address; both up.
    pub(crate) fn veth(&self, name: &str, mac: u8, there: &Namespace, peer: &str) {
        let peer_mac = mac + 1;
        self.ip(&format!(
            "link add {name} address 02:00:00:00:00:{mac:02x} type veth peer name {peer} \
             address 02:00:00:00:00:{peer_mac:02x} netns {}",
            there.thread_id
        ));
        self.ip(&format!("link set {name} up"));
        there.ip(&format!("link set {peer} up"));
    }
}
