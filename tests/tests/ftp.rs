//! FTP with vsftpd, curl and lftp: by NAT with the helper, and by DR with persistence alone. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Host, Method};
use e2e::ftp::{self, FTP, Vsftpd};
use e2e::{Configuration, Payload, Scene};
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// By the reply to PASV, address and all, as old clients do it.
const PASV: &[&str] = &["--disable-epsv", "--no-ftp-skip-pasv-ip"];
const EPSV: &[&str] = &[];
const PORT: &[&str] = &["--ftp-port", "-", "--disable-eprt"];
const EPRT: &[&str] = &["--ftp-port", "-"];
/// Of 200 sessions each.
const SESSIONS: usize = 200;

#[test]
fn files_of_nat_go_both_ways_over_ipv4() {
    files_go_both_ways(Family::V4, &[PASV, EPSV, PORT, EPRT]);
}

#[test]
fn files_of_nat_go_both_ways_over_ipv6() {
    files_go_both_ways(Family::V6, &[EPSV, EPRT]);
}

fn files_go_both_ways(family: Family, modes: &[&[&str]]) {
    let scene = FtpScene::new(Method::Nat, family, "helper = \"ftp\"");
    let whole = &Payload::medium().sha256;
    for mode in modes {
        assert_eq!(scene.fetch(mode), *whole, "{mode:?}");
        scene.put(mode, "file");
        assert_eq!(scene.taken("file"), [whole.as_str()], "{mode:?}");
        let listing = scene.curl(mode, &["small/"]);
        assert_eq!(listing.lines().count(), ftp::SMALL, "{listing}");
        assert_eq!(scene.small_files(mode), small_files(), "{mode:?}");
    }
    assert_eq!(scene.scene.uvsd.status().drops(), []);
}

/// Transfers of several sessions at once, many of each.
#[test]
fn a_folder_is_mirrored_by_nat() {
    for family in Family::ALL {
        let scene = FtpScene::new(Method::Nat, family, "helper = \"ftp\"");
        let folder = scene.scene.folder().join("mirror");
        ftp::mirror(scene.scene.client(), scene.vip(), 4, &folder);
        for number in 0..ftp::SMALL {
            let came = fs::read_to_string(folder.join(number.to_string())).unwrap();
            assert_eq!(came, ftp::small(number));
        }
        assert_eq!(scene.scene.uvsd.status().drops(), []);
    }
}

#[test]
fn many_sessions_of_nat_have_their_transfers() {
    let scene = FtpScene::new(Method::Nat, Family::V4, "helper = \"ftp\"");
    let mut servers = BTreeSet::new();
    for session in 0..SESSIONS {
        // Each its own port: a server that connects twice from port 20 to the same one finds its own TIME_WAIT there.
        let own_port = format!(":{}", 20_000 + session);
        let mode = [PASV, EPSV, PORT, EPRT][session % 4];
        let mode: Vec<_> = mode
            .iter()
            .map(|word| if *word == "-" { &own_port } else { *word })
            .collect();
        servers.insert(scene.curl(&mode, &["name"]));
    }
    assert_eq!(servers, ["server1", "server2"].map(str::to_owned).into());
    let status = scene.scene.uvsd.status();
    assert_eq!(status.drops(), []);
    assert!(status.forwarded().iter().all(|frames| *frames > 0));
}

/// What the helper is for.
#[test]
fn nat_without_the_helper_has_commands_and_no_transfers() {
    let scene = FtpScene::new(Method::Nat, Family::V4, "");
    let modes = [
        (PASV, "227 Entering Passive Mode (10,0,0,"),
        (EPSV, "229 Entering Extended Passive Mode"),
        (PORT, "200 PORT command successful"),
    ];
    for (mode, promise) in modes {
        let options = [mode, &["--verbose", "--max-time", "2"]].concat();
        let output = ftp::curl(scene.scene.client(), scene.vip(), &options, &["name"]);
        assert!(!output.status.success(), "{mode:?}: {output:?}");
        assert!(output.stderr.contains(promise), "{mode:?}: {output:?}");
    }
}

/// A persistent service of port 21 takes its clients' passive transfers along, as the kernel's does.
#[test]
fn persistence_takes_passive_transfers_of_dr_along() {
    for family in Family::ALL {
        let scene = FtpScene::new(Method::Dr, family, "persistence_timeout = 60");
        let passive: &[&[&str]] = if family == Family::V4 {
            &[PASV, EPSV]
        } else {
            &[EPSV]
        };
        for mode in passive {
            assert_eq!(scene.fetch(mode), Payload::medium().sha256, "{mode:?}");
            scene.put(mode, "file");
            let whole = Payload::medium().sha256.as_str();
            assert_eq!(scene.taken("file"), [whole], "{mode:?}");
            assert_eq!(scene.small_files(mode), small_files(), "{mode:?}");
        }
        assert_eq!(scene.scene.uvsd.status().drops(), []);
    }
}

/// Otherwise nobody knows them.
#[test]
fn dr_without_persistence_has_no_passive_transfers() {
    let scene = FtpScene::new(Method::Dr, Family::V4, "");
    let options = [PASV, &["--verbose", "--max-time", "2"]].concat();
    let output = ftp::curl(scene.scene.client(), scene.vip(), &options, &["name"]);
    assert!(!output.status.success(), "{output:?}");
    let promise = "227 Entering Passive Mode (192,0,2,100,";
    assert!(output.stderr.contains(promise), "{output:?}");
}

/// The small files, one after the other.
fn small_files() -> String {
    (0..ftp::SMALL).map(ftp::small).collect()
}

/// Two servers of one service, two workers.
struct FtpScene {
    scene: Scene,
    servers: [Vsftpd; 2],
}

impl FtpScene {
    /// `keys` are more keys of the service.
    fn new(method: Method, family: Family, keys: &str) -> FtpScene {
        let mut configuration = Configuration::new(method, family, 2);
        let real = [0, 1].map(|index| SocketAddr::new(Host::Server(index).address(family), FTP));
        let listen = format!("tcp {}", configuration.virtual_address(FTP));
        configuration.more = configuration.service(&listen, &real.map(|real| (real, 1)), keys);
        let scene = Scene::new(configuration, 2);
        let servers = [0, 1].map(|index: usize| {
            let listen = if method.keeps_destination() {
                scene.virtual_address(FTP)
            } else {
                real[index]
            };
            let folder = scene.folder().join(format!("ftp{index}"));
            Vsftpd::start(&scene.topology.servers[index].namespace, &folder, listen)
        });
        FtpScene { scene, servers }
    }

    fn vip(&self) -> IpAddr {
        self.scene.virtual_address(FTP).ip()
    }

    fn fetch(&self, mode: &[&str]) -> String {
        ftp::fetch(self.scene.client(), self.vip(), mode)
    }

    fn put(&self, mode: &[&str], name: &str) {
        ftp::put(self.scene.client(), self.vip(), mode, name);
    }

    /// What was put, at whatever server.
    fn taken(&self, name: &str) -> Vec<String> {
        let servers = self.servers.iter();
        servers
            .filter_map(|server| server.take_upload(name))
            .collect()
    }

    fn curl(&self, mode: &[&str], paths: &[&str]) -> String {
        ftp::curl(self.scene.client(), self.vip(), mode, paths).success()
    }

    /// All small files, in one session.
    fn small_files(&self, mode: &[&str]) -> String {
        let paths: Vec<_> = (0..ftp::SMALL)
            .map(|number| format!("small/{number}"))
            .collect();
        self.curl(mode, &paths.iter().map(String::as_str).collect::<Vec<_>>())
    }
}
