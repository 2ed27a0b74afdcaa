//! What was changed while a director ran, and whether it holds when it runs again.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use control::Director;
use control::config::Configuration;
use control::manage::{Actor, Edit, Manager, Outcome, Start, Terms, Wish};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TEXT: &str = r#"
[director]
connections = 100
servers = 1000
state = "STATE"
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
[[service]]
listen = "udp 10.1.0.100:53"
method = "nat"
server = [{ address = "10.1.0.11" }]
"#;

struct Bed {
    folder: TempDir,
}

/// A director that runs with a state file.
struct Running {
    manager: Manager,
    start: Start,
}

impl Bed {
    fn new() -> Bed {
        Bed {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state/state.toml")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        PathBuf::from(format!("{}{ending}", self.path().display()))
    }

    fn configuration(&self, from: &str, to: &str) -> Configuration {
        let text = TEXT.replace("STATE", self.path().to_str().unwrap());
        assert!(text.contains(from));
        let accepted = Configuration::parse("f", &text.replace(from, to));
        accepted.unwrap().configuration
    }

    fn start(&self) -> Running {
        self.start_with("", "")
    }

    fn start_with(&self, from: &str, to: &str) -> Running {
        fs::create_dir_all(self.path().parent().unwrap()).unwrap();
        let start = Start::new(self.configuration(from, to));
        let director = Arc::new(Director::start(start.configuration.clone()).unwrap());
        let manager = Manager::started(director, &start, Arc::default()).unwrap();
        Running { manager, start }
    }
}

fn actor() -> Actor {
    Actor::of_uvsd("a test")
}

/// One more service, of this port.
fn add(manager: &Manager, port: u16) -> Wish {
    let (configuration, ..) = manager.current();
    let mut service = configuration.services[0].clone();
    service.listen = control::config::Listen::Address {
        protocol: control::config::Protocol::Tcp,
        address: ([10, 1, 0, 101], port).into(),
    };
    Wish::Edits(vec![Edit::CreateService(service)])
}

impl Running {
    fn add(&self, port: u16) -> Outcome {
        self.add_on(port, Terms::default())
    }

    fn add_on(&self, port: u16, terms: Terms) -> Outcome {
        let wish = add(&self.manager, port);
        self.manager.change(&wish, terms, &actor()).unwrap()
    }

    /// Revision and number of services.
    fn is(&self) -> (u64, usize) {
        let (configuration, revision, _) = self.manager.current();
        (revision, configuration.services.len())
    }
}

/// Revision in a state file.
fn revision(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("# revision "));
    line.unwrap().parse().unwrap()
}

#[test]
fn what_was_changed_holds_after_a_restart_and_numbers_go_on() {
    let bed = Bed::new();
    let running = bed.start();
    assert_eq!((running.is(), running.start.told.len()), ((1, 1), 0));
    assert_eq!(running.add(80).revision, 2);
    assert_eq!(revision(&bed.path()), 2, "on the disk when it is answered");
    assert_eq!(running.add(81).warning, None);
    drop(running);
    let running = bed.start();
    assert_eq!(running.is(), (3, 3));
    assert!(
        running.start.told[0].contains("revision 3"),
        "{:?}",
        running.start.told
    );
    assert_eq!(running.start.wrong, [""; 0]);
    assert_eq!(running.add(82).revision, 4);
}

#[test]
fn what_is_fixed_comes_from_the_file_and_the_rest_from_the_state() {
    let bed = Bed::new();
    bed.start().add(80);
    let running = bed.start_with("connections = 100", "connections = 200");
    assert_eq!(running.is(), (2, 2));
    let (configuration, ..) = running.manager.current();
    assert_eq!(configuration.director.connections, 200);
    drop(running);
    let metrics = "[metrics]\nservers = false\n[[service]]";
    let running = bed.start_with("[[service]]", metrics);
    assert_eq!(running.is(), (2, 2), "what is fixed loses nothing");
    let (configuration, ..) = running.manager.current();
    assert!(
        configuration
            .metrics
            .is_some_and(|metrics| !metrics.servers)
    );
}

#[test]
fn a_changed_file_wins_and_what_is_lost_is_named_and_kept() {
    let bed = Bed::new();
    bed.start().add(80);
    let running = bed.start_with("10.1.0.11", "10.1.0.12");
    assert_eq!(running.is(), (3, 1));
    let told = &running.start.told[0];
    let kept = bed.beside(".superseded");
    assert!(told.contains("until revision 2 is lost"), "{told}");
    assert!(told.contains(kept.to_str().unwrap()), "{told}");
    assert_eq!(revision(&kept), 2);
    drop(running);
    assert_eq!(revision(&bed.path()), 3, "the new one is written");
    let running = bed.start_with("10.1.0.11", "10.1.0.12");
    assert_eq!(running.is(), (3, 1));
}

#[test]
fn a_torn_state_is_refused_and_the_one_before_is_used() {
    let bed = Bed::new();
    let running = bed.start();
    running.add(80);
    running.add(81);
    drop(running);
    assert_eq!(revision(&bed.beside(".last")), 2);
    let whole = fs::read(bed.path()).unwrap();
    fs::write(bed.path(), &whole[..whole.len() - 10]).unwrap();
    let running = bed.start();
    assert_eq!(
        running.is(),
        (4, 2),
        "revision 3 is known to have been there"
    );
    let wrong = running.start.wrong.join("\n");
    assert!(
        wrong.contains("it is torn or was changed by hand"),
        "{wrong}"
    );
    assert!(wrong.contains("state.toml.refused"), "{wrong}");
    assert!(
        wrong.contains("state.toml.last is used in its place"),
        "{wrong}"
    );
    assert_eq!(
        fs::read(bed.beside(".refused")).unwrap().len(),
        whole.len() - 10
    );
}

#[test]
fn a_foreign_state_without_one_before_leaves_the_file() {
    let bed = Bed::new();
    drop(bed.start());
    fs::write(bed.path(), "precious").unwrap();
    let running = bed.start();
    assert_eq!(running.is().1, 1);
    let wrong = running.start.wrong.join("\n");
    assert!(wrong.contains("is no state of uvsd"), "{wrong}");
    assert_eq!(
        fs::read_to_string(bed.beside(".refused")).unwrap(),
        "precious"
    );
}

#[test]
fn what_waits_for_its_confirmation_is_not_durable() {
    let bed = Bed::new();
    let running = bed.start();
    running.add(80);
    let terms = Terms {
        confirm_within: Some(Duration::from_secs(60)),
        ..Terms::default()
    };
    assert_eq!(running.add_on(81, terms).revision, 3);
    drop(running);
    let running = bed.start();
    assert_eq!(running.is(), (4, 2), "no number is taken twice");
    assert!(running.start.told[0].contains("revision 3 was not confirmed"));
    assert_eq!(running.add_on(81, terms).revision, 5);
    assert_eq!(running.manager.confirm(5, &actor()).unwrap(), None);
    drop(running);
    assert_eq!(bed.start().is(), (5, 3));
}

#[test]
fn what_is_rolled_back_stays_so() {
    let bed = Bed::new();
    let running = bed.start();
    let terms = Terms {
        confirm_within: Some(Duration::from_secs(60)),
        ..Terms::default()
    };
    running.add_on(80, terms);
    assert_eq!(running.manager.roll_back(2, &actor()).unwrap().revision, 3);
    drop(running);
    assert_eq!(bed.start().is(), (3, 1));
}

#[test]
fn a_disk_that_takes_nothing_keeps_nobody_from_changing() {
    let bed = Bed::new();
    let running = bed.start();
    running.add(80);
    let folder = bed.path().parent().unwrap().to_owned();
    let aside = bed.folder.path().join("aside");
    fs::rename(&folder, &aside).unwrap();
    let outcome = running.add(81);
    assert_eq!(outcome.revision, 3);
    let warning = outcome.warning.unwrap();
    assert!(
        warning.contains("revision 3 is not on the disk"),
        "{warning}"
    );
    assert_eq!(running.is(), (3, 3));
    assert_eq!(running.manager.director().warnings(), [warning]);
    assert_eq!(revision(&aside.join("state.toml")), 2);
    // Once there is room, it is written without anybody asking.
    fs::rename(&aside, &folder).unwrap();
    let since = Instant::now();
    while !running.manager.director().warnings().is_empty() {
        assert!(since.elapsed().as_secs() < 10);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(revision(&bed.path()), 3);
}

#[test]
fn changes_at_the_same_time_are_written_together() {
    const THREADS: u16 = 16;
    const EACH: u16 = 20;
    let bed = Bed::new();
    let running = bed.start();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (running, path) = (&running, bed.path());
            scope.spawn(move || {
                for number in 0..EACH {
                    let made = running.add(1 + thread * EACH + number);
                    assert!(revision(&path) >= made.revision);
                }
            });
        }
    });
    let changes = THREADS * EACH;
    assert_eq!(
        running.is(),
        (1 + u64::from(changes), 1 + usize::from(changes))
    );
    let writes = running.manager.state_writes();
    assert!(
        writes < u64::from(changes) / 2,
        "{writes} for {changes} changes"
    );
}

#[test]
fn a_reload_of_the_same_file_undoes_nothing() {
    let bed = Bed::new();
    let running = bed.start();
    running.add(80);
    let reload = |from: &str, to: &str| {
        let configuration = bed.configuration(from, to);
        running.manager.reload(configuration, &actor()).unwrap()
    };
    reload("", "");
    assert_eq!(running.is().1, 2);
    reload("10.1.0.11", "10.1.0.12");
    assert_eq!(running.is().1, 1, "another file is taken over whole");
    drop(running);
    assert_eq!(bed.start_with("10.1.0.11", "10.1.0.12").is(), (4, 1));
}
