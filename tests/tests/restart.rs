//! uvsd is killed and started again under open connections: none of them is lost. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Method};
use e2e::echo::{Echo, Talk};
use e2e::{Configuration, Scene, Uvsd};
use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const PORT: u16 = 1300;
const CONNECTIONS: u32 = 2000;
const RESTARTS: u32 = 10;
/// Between two restarts: each connection has said something, and the client repeats what was lost.
const PAUSE: Duration = Duration::from_millis(2500);

/// A file in memory that is gone with the test.
struct TableFile(PathBuf);

impl TableFile {
    fn new(name: &str) -> TableFile {
        let name = format!("uvs-e2e-{}-{name}", std::process::id());
        TableFile(PathBuf::from("/dev/shm").join(name).join("table"))
    }
}

impl Drop for TableFile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

/// A director of two workers with its table in a file, and echo servers behind it.
fn scene(method: Method, family: Family, file: &TableFile) -> (Scene, Vec<Echo>) {
    let mut configuration = Configuration::new(method, family, 2);
    configuration.director = format!("table = \"{}\"\n", file.0.display());
    let listen = format!("tcp {}", configuration.virtual_address(PORT));
    let servers = [0, 1].map(|index| (configuration.real_address(index, PORT), 1));
    configuration.more = configuration.service(&listen, &servers, "");
    let scene = Scene::new(configuration, 2);
    let servers = (0..2).zip(&scene.topology.servers);
    let echoes = servers.map(|(index, server)| {
        let address = cli::lab::topology::server_address(method, family, index, PORT);
        Echo::start(&server.namespace, address)
    });
    let echoes = echoes.collect();
    (scene, echoes)
}

fn adopted(uvsd: &Uvsd) -> (u64, u64, u64) {
    let file = uvsd.status().0.table_file.unwrap();
    println!("{}", file.summary);
    (file.adopted, file.refused, file.took_ms)
}

fn survives_kills(method: Method, family: Family) {
    let file = TableFile::new(&format!("{method}-{family}"));
    let (mut scene, _echoes) = scene(method, family, &file);
    let talk = Talk::start(scene.client(), scene.virtual_address(PORT), CONNECTIONS);
    for _ in 0..RESTARTS {
        std::thread::sleep(PAUSE);
        scene.uvsd.stop(Signal::SIGKILL);
        scene.restart();
        let (adopted, refused, _) = adopted(&scene.uvsd);
        assert_eq!((adopted, refused), (CONNECTIONS.into(), 0));
    }
    std::thread::sleep(PAUSE);
    let servers = scene.uvsd.servers(PORT);
    let said = talk.finish();
    println!("{method} {family}: {said}");
    assert_eq!(said.lost, Vec::<String>::new(), "{said}");
    let active = servers.iter().map(|server| u64::from(server.active));
    assert_eq!(active.sum::<u64>(), u64::from(CONNECTIONS), "{servers:?}");
    assert!(
        servers
            .iter()
            .all(|server| server.active == CONNECTIONS / 2)
    );
    assert!(said.exchanges > u64::from(CONNECTIONS * RESTARTS), "{said}");
}

#[test]
fn two_thousand_connections_by_nat_survive_ten_kills() {
    survives_kills(Method::Nat, Family::V4);
}

#[test]
fn two_thousand_connections_by_fullnat_survive_ten_kills() {
    survives_kills(Method::FullNat, Family::V6);
}

#[test]
fn two_thousand_connections_by_dr_survive_ten_kills() {
    survives_kills(Method::Dr, Family::V4);
}

#[test]
fn an_orderly_stop_and_an_upgrade_lose_nothing_and_other_workers_take_over() {
    let file = TableFile::new("upgrade");
    let (mut scene, _echoes) = scene(Method::FullNat, Family::V4, &file);
    let talk = Talk::start(scene.client(), scene.virtual_address(PORT), 300);
    std::thread::sleep(PAUSE);
    // A copy stands for the next version: another file, another inode.
    let next = scene.folder().join("uvsd-next");
    fs::copy(e2e::executable(), &next).unwrap();
    for (workers, program) in [(2, e2e::executable()), (1, &next), (3, &next)] {
        assert!(scene.uvsd.stop(Signal::SIGTERM).success());
        scene.configuration.workers = workers;
        scene.restart_as(program);
        let (adopted, refused, _) = adopted(&scene.uvsd);
        assert_eq!((adopted, refused), (300, 0));
        std::thread::sleep(PAUSE);
    }
    let ports = scene.uvsd.status().0.lip_ports.unwrap();
    assert_eq!(ports.in_use, 300);
    let said = talk.finish();
    println!("{said}");
    assert_eq!(said.lost, Vec::<String>::new());
}

#[test]
fn a_second_uvsd_is_told_whose_the_table_is_and_a_foreign_file_is_replaced() {
    let file = TableFile::new("second");
    let (mut scene, _echoes) = scene(Method::Nat, Family::V4, &file);
    let folder = scene.folder().join("second");
    fs::create_dir(&folder).unwrap();
    let text = scene.configuration.text(&folder.join("uvs.sock"));
    let mut second = Uvsd::launch(&scene.topology.director, &folder, &text);
    assert!(!second.wait().success());
    let log = second.log();
    let told = format!("director.table: {}: another uvsd has it", file.0.display());
    assert!(log.contains(&told), "{log}");
    scene.uvsd.stop(Signal::SIGKILL);
    fs::write(&file.0, "a foreign file").unwrap();
    scene.restart();
    let log = scene
        .uvsd
        .wait_for_line("was replaced: it is not a table of uvs");
    assert!(log.contains(&file.0.display().to_string()), "{log}");
}
