//! FTP by NAT with curl: every way to open a data connection, several over one control connection. Needs root: fails
//! without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::topology::server_address;
use cli::lab::{Family, Method};
use e2e::{Configuration, Process, Scene};
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const FTP: u16 = 21;
/// Files fetched over one control connection.
const FILES: usize = 5;
const PATIENCE: Duration = Duration::from_secs(30);

/// What every file holds: more than a window.
fn content() -> String {
    "All the bytes arrive, and in order.\n".repeat(20_000)
}

/// Where a file is to go.
enum Data {
    Nowhere,
    Listening(TcpListener),
    Calling(SocketAddr),
}

/// An FTP server's side of one control connection, with `RETR` for all there is.
fn serve(control: &TcpStream) {
    let local = control.local_addr().unwrap();
    let mut lines = BufReader::new(control).lines();
    let mut control = control;
    let mut data = Data::Nowhere;
    let mut answer = |text: &str| control.write_all(format!("{text}\r\n").as_bytes()).unwrap();
    answer("220 ready");
    while let Some(Ok(line)) = lines.next() {
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "USER" => answer("331 and the password"),
            "PASS" => answer("230 welcome"),
            "PWD" => answer("257 \"/\""),
            "TYPE" => answer("200 so be it"),
            "SIZE" => answer(&format!("213 {}", content().len())),
            "PASV" | "EPSV" => {
                let listener = TcpListener::bind((local.ip(), 0)).unwrap();
                answer(&announcement(command, listener.local_addr().unwrap()));
                data = Data::Listening(listener);
            }
            "PORT" | "EPRT" => {
                data = Data::Calling(target(command, rest));
                answer("200 so be it");
            }
            "RETR" => {
                answer("150 here it comes");
                let mut stream = open(&data, local);
                stream.write_all(content().as_bytes()).unwrap();
                drop(stream);
                answer("226 that was it");
            }
            "QUIT" => return answer("221 farewell"),
            _ => answer("500 what?"),
        }
    }
}

fn announcement(command: &str, address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) if command == "PASV" => {
            let [a, b, c, d] = ip.octets();
            let [high, low] = address.port().to_be_bytes();
            format!("227 Passive ({a},{b},{c},{d},{high},{low})")
        }
        _ => format!("229 Extended (|||{}|)", address.port()),
    }
}

fn target(command: &str, text: &str) -> SocketAddr {
    if command == "EPRT" {
        let parts: Vec<_> = text.split('|').collect();
        return SocketAddr::new(parts[2].parse().unwrap(), parts[3].parse().unwrap());
    }
    let numbers: Vec<u8> = text.split(',').map(|part| part.parse().unwrap()).collect();
    let address = <[u8; 4]>::try_from(&numbers[..4]).unwrap();
    (address, u16::from_be_bytes([numbers[4], numbers[5]])).into()
}

/// Opens the data connection: in active mode from the port below that of the control connection.
fn open(data: &Data, control: SocketAddr) -> TcpStream {
    match data {
        Data::Nowhere => panic!("RETR without a data connection"),
        Data::Listening(listener) => listener.accept().unwrap().0,
        Data::Calling(client) => {
            let socket = Socket::new(Domain::for_address(*client), Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            let from = SocketAddr::new(control.ip(), control.port() - 1);
            socket.bind(&from.into()).unwrap();
            socket.connect_timeout(&(*client).into(), PATIENCE).unwrap();
            socket.into()
        }
    }
}

fn fetch(family: Family, workers: u8, modes: &[&[&str]]) {
    let mut configuration = Configuration::new(Method::Nat, family, workers);
    let real = SocketAddr::new(server_address(Method::Nat, family, 0, FTP).ip(), FTP);
    configuration.more = format!(
        "[[service]]\nlisten = \"tcp {}\"\nmethod = \"nat\"\nhelper = \"ftp\"\nserver = [{{ address = \"{real}\" }}]\n",
        configuration.virtual_address(FTP)
    );
    let scene = Scene::new(configuration, 2);
    let namespace = &scene.topology.servers[0].namespace;
    let listener = namespace.run(|| TcpListener::bind(real)).unwrap();
    let sessions = modes.len();
    let server = namespace.spawn("ftp", move || {
        for _ in 0..sessions {
            serve(&listener.accept().unwrap().0);
        }
    });
    let host = scene.virtual_address(FTP).ip();
    let host = if host.is_ipv6() {
        format!("\\[{host}\\]")
    } else {
        host.to_string()
    };
    for mode in modes {
        let mut command = scene.client().command("curl");
        command.args(["--silent", "--show-error", "--max-time", "20"]);
        command
            .args(*mode)
            .arg(format!("ftp://{host}/file[1-{FILES}]"));
        let text = Process::spawn(command).finish(PATIENCE).success();
        assert!(
            text == content().repeat(FILES),
            "{mode:?}: {} bytes",
            text.len()
        );
    }
    server.unwrap().join().unwrap();
    assert_eq!(scene.uvsd.status().drops(), []);
    // One control connection each, and the data connections.
    let expected = modes.len() * (1 + FILES);
    assert_eq!(scene.uvsd.status().connections(), expected as u64);
}

#[test]
fn files_come_in_every_mode_over_ipv4() {
    let modes: [&[&str]; 4] = [
        &[],
        &["--disable-epsv", "--no-ftp-skip-pasv-ip"],
        &["--ftp-port", "-"],
        &["--ftp-port", "-", "--disable-eprt"],
    ];
    fetch(Family::V4, 1, &modes);
    fetch(Family::V4, 2, &modes);
}

#[test]
fn files_come_in_every_mode_over_ipv6() {
    fetch(Family::V6, 2, &[&[], &["--ftp-port", "-"]]);
}
