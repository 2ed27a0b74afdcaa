//! Debian's own ipvsadm, keepalived and node exporter, unmodified, with uvs in the kernel's place. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Host, Method, Namespace};
use e2e::client::{self, Wrk};
use e2e::{Configuration, HTTP_PORT, Nginx, Process, Scene, Uvsd, compat, eventually};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(15);

/// A director without a network, and its namespace.
struct Desk {
    uvsd: Uvsd,
    namespace: Namespace,
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        let namespace = Namespace::new("desk").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[director]\nconnections = 4096\nservers = 100\ncontrol = \"unix:{}\"\n\
             [port.wan]\ndriver = \"memory\"\naddresses = [\"10.0.0.1/8\", \"fd00::1/16\"]\n",
            folder.path().join("uvs.sock").display()
        );
        let uvsd = Uvsd::launch(&namespace, folder.path(), &text);
        uvsd.wait_for_line("control socket");
        Desk {
            uvsd,
            namespace,
            folder,
        }
    }

    /// What ipvsadm prints, on both ways, and its exit status.
    fn ipvsadm(&self, arguments: &str) -> (String, i32) {
        let output = compat::run(&self.namespace, &self.uvsd, &format!("ipvsadm {arguments}"));
        let code = output.status.code().unwrap();
        (output.stdout + &output.stderr, code)
    }

    fn lists(&self, arguments: &str) -> String {
        let (text, code) = self.ipvsadm(arguments);
        assert_eq!(code, 0, "ipvsadm {arguments}: {text}");
        text
    }
}

/// As the kernel's own saves them.
const TABLE: &str = "\
-A -t 10.0.0.100:80 -s rr
-a -t 10.0.0.100:80 -r 10.2.0.11:8080 -m -w 3
-a -t 10.0.0.100:80 -r 10.2.0.12:8080 -m -w 65535
-A -t 10.0.0.100:443 -s sh -p 600 -M 255.255.255.0 -b sh-fallback,sh-port
-a -t 10.0.0.100:443 -r 10.2.0.11:443 -g -w 1
-a -t 10.0.0.100:443 -r 10.2.0.12:443 -i -w 0 --tun-type ipip
-a -t 10.0.0.100:443 -r 10.2.0.13:443 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum
-a -t 10.0.0.100:443 -r 10.2.0.14:443 -i -w 1 --tun-type gre --tun-csum
-A -t 10.0.0.101:0 -s wlc -p 360
-A -t 10.0.0.101:81 -s mh -b mh-port
-A -u 10.0.0.100:53 -s wlc -o
-A -u 10.0.0.100:5060 -s rr -p 60 --pe sip
-A -t [fd00:a::100]:80 -s wrr -p 30 -M 64
-a -t [fd00:a::100]:80 -r [fd00:2::11]:8080 -m -w 1
-A -f 7 -s wlc -p 360
-a -f 7 -r 10.2.0.11:0 -g -w 1
-A -f 9 -6 -s mh
";

/// As the kernel's own are listed: recorded (`ipvsadm.md` of the reference).
const LISTED: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.0.0.100:80 rr
  -> 10.2.0.11:8080               Masq    3      0          0         
  -> 10.2.0.12:8080               Masq    65535  0          0         
TCP  10.0.0.100:443 sh (sh-fallback,sh-port) persistent 600 mask 255.255.255.0
  -> 10.2.0.11:443                Route   1      0          0         
  -> 10.2.0.12:443                Tunnel  0      0          0         
  -> 10.2.0.13:443                Tunnel  1      0          0         
  -> 10.2.0.14:443                Tunnel  1      0          0         
TCP  10.0.0.101:0 wlc persistent 360
TCP  10.0.0.101:81 mh (mh-port)
UDP  10.0.0.100:53 wlc ops
UDP  10.0.0.100:5060 rr persistent 60 pe sip
TCP  [fd00:a::100]:80 wrr persistent 30 mask 64
  -> [fd00:2::11]:8080            Masq    1      0          0         
FWM  7 wlc persistent 360
  -> 10.2.0.11:0                  Route   1      0          0         
FWM  9 IPv6 mh
";

#[test]
fn ipvsadm_restores_lists_and_saves_as_with_the_kernel() {
    let desk = Desk::new();
    let rules = desk.folder.path().join("rules");
    fs::write(&rules, TABLE).unwrap();
    let mut command = compat::command(&desk.namespace, &desk.uvsd);
    command.args(["ipvsadm", "-R"]);
    let restore = Process::spawn_reading(command, Stdio::from(File::open(&rules).unwrap()));
    assert_eq!(restore.finish(PATIENCE).success(), "");
    assert_eq!(desk.lists("-S -n"), TABLE);
    assert_eq!(desk.lists("-Ln"), LISTED);
    assert_eq!(
        desk.lists("-Ln -t 10.0.0.100:80 --thresholds"),
        "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n  -> RemoteAddress:Port\n\
         TCP  10.0.0.100:80 rr\n  -> 10.2.0.11:8080               0          0          0          0         \n  \
         -> 10.2.0.12:8080               0          0          0          0         \n"
    );
    assert_eq!(
        desk.lists("-L --timeout"),
        "Timeout (tcp tcpfin udp): 900 120 300\n"
    );
    assert_eq!(desk.lists("--set 100 0 50"), "");
    assert_eq!(
        desk.lists("-L --timeout"),
        "Timeout (tcp tcpfin udp): 100 120 50\n"
    );
    desk.lists("--start-daemon master --mcast-interface eth0 --syncid 5");
    assert!(
        desk.lists("-L --daemon")
            .starts_with("master sync daemon (mcast=eth0, syncid=5,")
    );
    desk.lists("--stop-daemon master");
    assert_eq!(desk.lists("-L --daemon"), "");
    // A server without a method becomes one of DR; its port stays, as the service's is the same.
    desk.lists("-e -t 10.0.0.100:443 -r 10.2.0.12:443 -w 5");
    assert!(
        desk.lists("-Ln")
            .contains("10.2.0.12:443                Route   5 ")
    );
    desk.lists("-C");
    assert_eq!(desk.lists("-Ln").lines().count(), 3);
}

#[test]
fn ipvsadm_is_refused_in_the_kernels_words() {
    let desk = Desk::new();
    desk.lists("-A -t 10.0.0.100:80 -s rr");
    desk.lists("-a -t 10.0.0.100:80 -r 10.2.0.11:8080 -m");
    for (arguments, code, text) in [
        ("-A -t 10.0.0.100:80", 255, "Service already exists"),
        ("-E -t 10.0.0.100:81 -s rr", 255, "No such service"),
        ("-D -t 10.0.0.100:81", 255, "No such service"),
        (
            "-a -t 10.0.0.100:81 -r 10.2.0.11 -m",
            255,
            "Service not defined",
        ),
        (
            "-a -t 10.0.0.100:80 -r 10.2.0.11:8080 -m",
            255,
            "Destination already exists",
        ),
        (
            "-e -t 10.0.0.100:80 -r 10.2.0.12:8080 -m",
            255,
            "No such destination",
        ),
        (
            "-d -t 10.0.0.100:80 -r 10.2.0.12:8080",
            255,
            "No such destination",
        ),
        (
            "-A -t 10.0.0.100:81 -s none-such",
            255,
            "Scheduler or persistence engine not found",
        ),
        ("--stop-daemon backup", 255, "No daemon is running"),
        (
            "-a -t 10.0.0.100:80 -r 10.2.0.13 -m -x 5 -y 9",
            255,
            "Numerical result out of range",
        ),
        ("-L -n -t 10.0.0.100:81", 1, "No such service"),
        (
            "-a -t 10.0.0.100:80 -r 224.0.0.1 -m",
            255,
            "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        ),
    ] {
        let (said, status) = desk.ipvsadm(arguments);
        assert_eq!(
            (said.trim_end(), status),
            (text, code),
            "ipvsadm {arguments}"
        );
    }
}

#[test]
fn ldirectord_sets_up_what_its_file_says() {
    let desk = Desk::new();
    let file = desk.folder.path().join("ldirectord.cf");
    let text = "checktimeout=2\ncheckinterval=1\nquiescent=no\nvirtual=10.0.0.100:80\n    real=10.2.0.11:8080 masq 3\n    \
                real=10.2.0.12:8080 gate\n    scheduler=rr\n    protocol=tcp\n    checktype=on\n";
    fs::write(&file, text).unwrap();
    let mut command = compat::command(&desk.namespace, &desk.uvsd);
    command.args(["ldirectord", "-d"]).arg(&file).arg("start");
    let ldirectord = Process::spawn(command);
    let wanted = "-A -t 10.0.0.100:80 -s rr\n-a -t 10.0.0.100:80 -r 10.2.0.11:8080 -m -w 3\n\
                  -a -t 10.0.0.100:80 -r 10.2.0.12:80 -g -w 1\n";
    let same = eventually(PATIENCE, || (desk.lists("-S -n") == wanted).then_some(()));
    assert!(same.is_some(), "{}", desk.lists("-S -n"));
    ldirectord.signal(nix::sys::signal::Signal::SIGTERM);
    let _ = ldirectord.finish(PATIENCE);
    assert_eq!(desk.lists("-S -n"), "", "it takes its services along");
}

#[test]
fn without_uvsd_nobody_is_asked() {
    let mut desk = Desk::new();
    let library = e2e::executable().with_file_name("libuvs_ipvs.so");
    desk.uvsd.stop(nix::sys::signal::Signal::SIGTERM);
    let (text, code) = desk.ipvsadm("-A -t 10.0.0.100:80");
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("uvs.sock.nl: No such file or directory"),
        "{text}"
    );
    // As a program finds it that was started before.
    let mut command = desk.namespace.command("ipvsadm");
    command.arg("-Ln").env("LD_PRELOAD", library);
    command.env("UVS_IPVS", desk.folder.path().join("uvs.sock.nl"));
    let output = Process::spawn(command).finish(PATIENCE);
    assert!(!output.status.success());
    assert!(
        output.stderr.contains("accepted: a running uvsd"),
        "{}",
        output.stderr
    );
}

#[test]
fn no_more_clients_are_let_in_than_there_is_room_for() {
    use socket2::{Domain, SockAddr, Socket, Type};
    let desk = Desk::new();
    let address = SockAddr::unix(desk.folder.path().join("uvs.sock.nl")).unwrap();
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(&address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket
    };
    let clients: Vec<_> = (0..64).map(|_| connect()).collect();
    let one_more = connect();
    let mut room = [std::mem::MaybeUninit::uninit(); 1];
    assert_eq!(one_more.recv(&mut room).unwrap(), 0, "it is turned away");
    desk.uvsd.wait_for_line("a client is turned away");
    drop(clients);
    let served = eventually(PATIENCE, || (desk.ipvsadm("-Ln").1 == 0).then_some(()));
    assert!(served.is_some());
}

/// Two servers, a third for emergencies, and the director's kernel with the director's addresses, as it checks servers.
fn scene(more: &str) -> Scene {
    let configuration = Configuration {
        port_keys: "answered_by = \"kernel\"\n",
        director: more.to_owned(),
        tcp_fin: 3,
        ..Configuration::new(Method::Nat, Family::V4, 1)
    };
    let scene = Scene::new(configuration, 3);
    let director = &scene.topology.director;
    for (interface, host) in [("eth0", Host::DirectorWan), ("eth1", Host::DirectorLan)] {
        director
            .add_address(interface, host.prefix(Family::V4))
            .unwrap();
    }
    scene
}

fn real(scene: &Scene, index: u8) -> SocketAddr {
    scene.configuration.real_address(index, HTTP_PORT)
}

/// What `ipvsadm` lists of one service: its servers and their weights.
fn servers(scene: &Scene, service: &str) -> Vec<(String, String)> {
    let director = &scene.topology.director;
    let listed = compat::run(director, &scene.uvsd, &format!("ipvsadm -Ln -t {service}"));
    let rows = listed.stdout.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words.first() == Some(&"->") && words.len() == 6)
            .then(|| (words[1].to_owned(), words[3].to_owned()))
    });
    rows.filter(|(name, _)| name != "RemoteAddress:Port")
        .collect()
}

fn wait_for(scene: &Scene, service: &str, wanted: &[(SocketAddr, u16)]) {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(address, weight)| (address.to_string(), weight.to_string()))
        .collect();
    let same = eventually(PATIENCE, || {
        (servers(scene, service) == wanted).then_some(())
    });
    assert!(
        same.is_some(),
        "{service}: {:?}, not {wanted:?}",
        servers(scene, service)
    );
}

#[test]
fn what_ipvsadm_sets_up_serves_and_is_told_in_the_kernels_files() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene(&format!("proc = \"{}\"\n", folder.path().display()));
    let director = &scene.topology.director;
    let run = |words: &str| compat::run(director, &scene.uvsd, words).success();
    let vip = scene.virtual_address(HTTP_PORT);
    run("ipvsadm -C");
    assert_eq!(run("ipvsadm -Ln").lines().count(), 3);
    run(&format!("ipvsadm -A -t {vip} -s rr"));
    for index in [0, 1] {
        run(&format!(
            "ipvsadm -a -t {vip} -r {} -m",
            real(&scene, index)
        ));
    }
    assert_eq!(client::ask(scene.client(), vip, "name", 8).len(), 8);
    let stats = run(&format!("ipvsadm -Ln --stats -t {vip}"));
    let service = stats.lines().find(|line| line.starts_with("TCP")).unwrap();
    let conns: u64 = service.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(conns > 0, "{stats}");
    let connections = run("ipvsadm -Lnc");
    assert!(connections.contains(&vip.to_string()), "{connections}");
    assert_eq!(
        connections.lines().count() as u64,
        2 + conns,
        "{connections}"
    );
    // What is asked for, and what is written each second.
    assert!(run("cat /proc/net/ip_vs_conn").contains("C0000264 0438"));
    let written = eventually(PATIENCE, || {
        let text = fs::read_to_string(folder.path().join("net/ip_vs_stats")).ok()?;
        let row = text.lines().nth(2)?.split_whitespace().next()?.to_owned();
        (u64::from_str_radix(&row, 16) == Ok(conns)).then_some(())
    });
    assert!(
        written.is_some(),
        "{conns} connections are not in net/ip_vs_stats"
    );
    let metrics = node_exporter(director, folder.path());
    assert!(
        metrics.contains(&format!("node_ipvs_connections_total {conns}\n")),
        "{metrics}"
    );
    let (address, port) = (real(&scene, 0).ip(), real(&scene, 0).port());
    let weight = format!(
        "node_ipvs_backend_weight{{local_address=\"{}\",local_mark=\"\",local_port=\"{}\",proto=\"TCP\",\
         remote_address=\"{address}\",remote_port=\"{port}\"}} 1\n",
        vip.ip(),
        vip.port()
    );
    assert!(metrics.contains(&weight), "{metrics}\nwithout {weight}");
}

/// What the unmodified node exporter makes of the files below `folder`.
fn node_exporter(namespace: &Namespace, folder: &Path) -> String {
    let address: SocketAddr = "127.0.0.1:9100".parse().unwrap();
    namespace.set_up("lo", true).unwrap();
    let mut command = namespace.command("prometheus-node-exporter");
    command.arg(format!("--path.procfs={}", folder.display()));
    command.args(["--collector.disable-defaults", "--collector.ipvs"]);
    command.arg(format!("--web.listen-address={address}"));
    let _exporter = Process::spawn(command);
    let curl = || {
        let url = format!("http://{address}/metrics");
        let answer = Process::start(namespace, "curl", &["--silent", "--fail", &url]);
        let answer = answer.finish(PATIENCE);
        answer.status.success().then_some(answer.stdout)
    };
    eventually(PATIENCE, curl).expect("the node exporter answers")
}

/// A service of keepalived's, checked each second.
fn keepalived(scene: &Scene, port: u16, keys: &str, servers: &[(u8, &str)]) -> String {
    let vip = scene.virtual_address(port);
    let mut text = format!(
        "virtual_server {} {port} {{\ndelay_loop 1\nlvs_sched rr\nlvs_method NAT\nprotocol TCP\n{keys}\n",
        vip.ip()
    );
    for (index, check) in servers {
        let real = real(scene, *index);
        text += &format!(
            "real_server {} {} {{\nweight 1\n{check}\n}}\n",
            real.ip(),
            real.port()
        );
    }
    text + "}\n"
}

const TCP_CHECK: &str =
    "TCP_CHECK { connect_timeout 1\n retry 1\n delay_before_retry 1\n warmup 0\n }";
const HTTP_GET: &str = "HTTP_GET { url { path /name\n status_code 200\n }\n connect_timeout 1\n retry 1\n \
                        delay_before_retry 1\n warmup 0\n }";

/// The unmodified keepalived takes a dead server out under load and puts it back, brings the sorry server, and keeps a server
/// whose script fails without a share.
#[test]
fn keepalived_manages_servers_under_load() {
    let mut scene = scene("");
    let folder = tempfile::tempdir().unwrap();
    let healthy = folder.path().join("healthy");
    let quorum = folder.path().join("quorum");
    fs::write(&healthy, "").unwrap();
    let sorry = real(&scene, 2);
    let misc = format!(
        "inhibit_on_failure\nMISC_CHECK {{ misc_path \"/usr/bin/test -e {}\"\n misc_timeout 1\n warmup 0\n }}",
        healthy.display()
    );
    let text = format!(
        "global_defs {{\nscript_user root\nenable_script_security\nlvs_flush\n}}\n{}{}",
        keepalived(
            &scene,
            HTTP_PORT,
            &format!("sorry_server {} {}", sorry.ip(), sorry.port()),
            &[(0, TCP_CHECK), (1, HTTP_GET)],
        ),
        keepalived(
            &scene,
            1090,
            &format!(
                "quorum 2\nquorum_up \"/usr/bin/touch {q}\"\nquorum_down \"/usr/bin/rm -f {q}\"",
                q = quorum.display()
            ),
            &[(0, TCP_CHECK), (1, &misc)],
        )
    );
    let file = folder.path().join("keepalived.conf");
    fs::write(&file, text).unwrap();
    let mut command = compat::command(&scene.topology.director, &scene.uvsd);
    command.args([
        "keepalived",
        "--dont-fork",
        "--log-console",
        "--check",
        "--use-file",
    ]);
    command.arg(&file);
    command.arg("--pid").arg(folder.path().join("pid"));
    command
        .arg("--checkers_pid")
        .arg(folder.path().join("checkers"));
    let keepalived = Process::spawn(command);

    let [http, other] = [HTTP_PORT, 1090].map(|port| scene.virtual_address(port).to_string());
    let (one, two) = ((real(&scene, 0), 1), (real(&scene, 1), 1));
    wait_for(&scene, &http, &[one, two]);
    wait_for(&scene, &other, &[one, two]);
    assert!(eventually(PATIENCE, || quorum.exists().then_some(())).is_some());

    // A script fails: no share, and no quorum; it succeeds again.
    fs::remove_file(&healthy).unwrap();
    wait_for(&scene, &other, &[one, (two.0, 0)]);
    assert!(eventually(PATIENCE, || (!quorum.exists()).then_some(())).is_some());
    fs::write(&healthy, "").unwrap();
    wait_for(&scene, &other, &[one, two]);

    // A server dies under load: only who was sent to it fails.
    let wrk = Wrk::start_slowly(scene.client(), &scene.url("name"));
    let before = scene.uvsd.servers(HTTP_PORT).len();
    assert_eq!(before, 2);
    std::thread::sleep(Duration::from_secs(1));
    drop(scene.nginx.remove(1));
    wait_for(&scene, &http, &[one]);
    let dying = wrk.stop();
    let failed: u64 = dying.errors.values().sum();
    println!(
        "{} requests served, {failed} failed while server 2 was dead and listed",
        dying.good
    );
    let wrk = Wrk::start_slowly(scene.client(), &scene.url("name"));
    // It returns under load, and nobody notices.
    let nginx = restart(&scene, folder.path(), 1);
    scene.nginx.insert(1, nginx);
    wait_for(&scene, &http, &[one, two]);
    std::thread::sleep(Duration::from_secs(1));
    let load = wrk.stop();
    load.assert_flawless(100);
    assert_eq!(load.bodies.len(), 2, "{load:?}");
    // Whatever failed was sent to server 2, beside what that served.
    let of_two = |load: &client::Load| -> u64 {
        let bodies = load.bodies.iter();
        let of_two = bodies.filter(|(body, _)| body.starts_with("server2"));
        of_two.map(|(_, count)| *count).sum()
    };
    let (served, counted) = (
        of_two(&dying) + of_two(&load),
        scene.uvsd.servers(HTTP_PORT)[1].connections,
    );
    assert!(
        served > 0 && failed + served <= counted,
        "{failed} failed, {served} served of {counted} by server 2"
    );

    // Both die: the sorry server; one returns, and it goes.
    scene.nginx.truncate(0);
    wait_for(&scene, &http, &[(sorry, 1)]);
    let answer = restart(&scene, folder.path(), 2);
    let served = client::ask(scene.client(), scene.virtual_address(HTTP_PORT), "name", 1);
    assert_eq!(served.len(), 1, "by the sorry server");
    drop(answer);
    scene.nginx.push(restart(&scene, folder.path(), 0));
    wait_for(&scene, &http, &[one]);
    keepalived.signal(nix::sys::signal::Signal::SIGTERM);
    let said = keepalived.finish(PATIENCE);
    assert!(said.status.success(), "{}{}", said.stdout, said.stderr);
    // It takes what it has set up along.
    assert_eq!(servers(&scene, &http), []);
}

fn restart(scene: &Scene, folder: &Path, index: u8) -> Nginx {
    let namespace = &scene.topology.servers[usize::from(index)].namespace;
    let own = folder.join(format!("again{index}"));
    Nginx::start(namespace, &own, real(scene, index))
}

/// The unmodified ldirectord asks servers for a page: one that dies loses its share and gets it again, and where none is left the
/// fallback serves.
#[test]
fn ldirectord_takes_a_dead_server_out_and_puts_it_back() {
    let mut scene = scene("");
    let vip = scene.virtual_address(HTTP_PORT);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ldirectord.cf");
    let text = format!(
        "checktimeout=1\ncheckinterval=1\nquiescent=yes\nvirtual={vip}\n    real={} masq 3\n    real={} masq 3\n    \
         fallback={} masq\n    scheduler=rr\n    protocol=tcp\n    checktype=negotiate\n    service=http\n    request=\"name\"\n    \
         receive=\"server\"\n",
        real(&scene, 0),
        real(&scene, 1),
        real(&scene, 2),
    );
    fs::write(&file, text).unwrap();
    let mut command = compat::command(&scene.topology.director, &scene.uvsd);
    command.args(["ldirectord", "-d"]).arg(&file).arg("start");
    let ldirectord = Process::spawn(command);
    let service = vip.to_string();
    let [one, two, fallback] = [0, 1, 2].map(|index| real(&scene, index));
    wait_for(&scene, &service, &[(one, 3), (two, 3)]);
    drop(scene.nginx.remove(1));
    wait_for(&scene, &service, &[(one, 3), (two, 0)]);
    assert_eq!(client::ask(scene.client(), vip, "name", 4).len(), 4);
    scene.nginx.push(restart(&scene, folder.path(), 1));
    wait_for(&scene, &service, &[(one, 3), (two, 3)]);
    // nginx 2 is the fallback's.
    scene.nginx.remove(0);
    scene.nginx.pop();
    wait_for(&scene, &service, &[(one, 0), (two, 0), (fallback, 1)]);
    assert_eq!(client::ask(scene.client(), vip, "name", 2).len(), 2);
    ldirectord.signal(nix::sys::signal::Signal::SIGTERM);
    let _ = ldirectord.finish(PATIENCE);
    assert_eq!(servers(&scene, &service), []);
}
