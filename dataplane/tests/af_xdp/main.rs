//! The port `af_xdp` against the kernel, through veth pairs. Needs root, iproute2 and util-linux, and fails without.

#[allow(dead_code, reason = "the other port's tests need more of it")]
#[path = "../af_packet/namespace.rs"]
mod namespace;

use dataplane::frame::{Frame, Offload};
use dataplane::packet::{Parsed, checksum, parse};
use dataplane::port::af_packet::{self, AfPacketPort};
use dataplane::port::af_xdp::{self, AfXdpPort, Config, OpenError};
use dataplane::port::handle::{Link, Opened, PortHandle};
use dataplane::port::{Burst, Mac, Port, PortId, Sent};
use dataplane::snapshot::{Owned, Snapshot};
use namespace::Namespace;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LEFT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const PORT: u16 = 7777;
const LEFT_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x10]);
/// An EtherType for experiments: the kernel's stack has no use for it.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Entries of a ring.
const RING_LEN: u32 = 2048;
const PATIENCE: Duration = Duration::from_secs(5);

/// A kernel with addresses at each end of a veth pair.
fn pair() -> (Namespace, Namespace) {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    left.ip("address add 10.9.0.1/24 dev left0");
    right.ip("address add 10.9.0.2/24 dev right0");
    (left, right)
}

fn open(namespace: &Namespace, config: Config) -> Result<Opened<AfXdpPort>, OpenError> {
    namespace.run(move || af_xdp::open(&config))
}

fn open_left(left: &Namespace) -> (AfXdpPort, Arc<dyn PortHandle>) {
    let mut opened = open(left, Config::new(PortId(0), "left0")).expect("there, up, and alone");
    (opened.queues.remove(0), opened.handle)
}

/// Of a director that has the left address for FULLNAT: every transport's port of it.
fn left_is_ours() -> Snapshot {
    Snapshot {
        owned: [(IpAddr::from(LEFT), Owned::Local)].into_iter().collect(),
        ..Snapshot::default()
    }
}

/// The right kernel sends so many datagrams, each with its number in it.
fn send_datagrams(right: &Namespace, count: u8) {
    right.run(move || {
        let socket = UdpSocket::bind("10.9.0.2:0").expect("the address is there");
        for number in 0..count {
            let sent = socket.send_to(&[number; 100], (LEFT, PORT));
            assert_eq!(sent.expect("there is a way"), 100);
        }
    });
}

/// What the left kernel receives at the address, until nothing more comes.
fn kernels_datagrams(left: &Namespace) -> impl FnOnce() -> Vec<u8> + use<> {
    let socket = left.run(|| UdpSocket::bind((LEFT, PORT)).expect("nobody else has it"));
    move || {
        let wait = Duration::from_millis(300);
        socket.set_read_timeout(Some(wait)).expect("not zero");
        let (mut numbers, mut buffer) = (Vec::new(), [0; 200]);
        while let Ok(len) = socket.recv(&mut buffer) {
            assert_eq!(len, 100);
            numbers.push(buffer[0]);
        }
        numbers
    }
}

/// Frames with UDP datagrams for the port, as many as `count`; others are the kernel's.
fn receive_udp(port: &mut AfXdpPort, count: usize) -> Vec<Frame> {
    let (mut frames, mut burst) = (Vec::new(), Burst::new());
    let deadline = Instant::now() + PATIENCE;
    while frames.len() < count && Instant::now() < deadline {
        port.receive(&mut burst);
        for frame in burst.drain(..) {
            if frame.bytes()[12..14] == [8, 0] && frame.bytes()[23] == 17 {
                frames.push(frame);
            } else {
                port.release(frame);
            }
        }
    }
    frames
}

fn statistic(handle: &Arc<dyn PortHandle>, name: &str) -> u64 {
    let statistics = handle.statistics();
    let found = statistics.iter().find(|(of, _)| of == name);
    found.unwrap_or_else(|| panic!("{name}: {statistics:?}")).1
}

#[test]
fn the_kernel_has_everything_until_it_is_ours() {
    let (left, right) = pair();
    let (mut port, handle) = open_left(&left);
    assert_eq!(port.info().mac, LEFT_MAC);
    assert_eq!((port.info().mtu, port.info().driver), (1500, "af_xdp"));
    let kernels = kernels_datagrams(&left);
    send_datagrams(&right, 3);
    assert_eq!(kernels(), [0, 1, 2]);

    handle.adopt(&left_is_ours()).expect("there is room");
    let kernels = kernels_datagrams(&left);
    send_datagrams(&right, 5);
    let frames = receive_udp(&mut port, 5);
    assert_eq!(frames.len(), 5);
    for (number, frame) in (0..).zip(frames) {
        assert_eq!(frame.bytes()[42..], [number; 100]);
        assert_eq!(frame.offload, Offload::NONE);
        let Parsed::Ipv4(packet) = parse(frame.bytes(), &Offload::NONE) else {
            panic!("a datagram");
        };
        let (from, to) = (packet.tuple.source, packet.tuple.destination);
        let datagram = &frame.bytes()[34..];
        let sum = checksum::l4::<dataplane::packet::V4>(from, to, 17, datagram);
        assert_eq!(sum, 0, "the sender has left its checksum to the link");
        assert!(frame.headroom() >= 128);
        port.release(frame);
    }
    assert_eq!(statistic(&handle, "checksums_completed"), 5);
    assert!(statistic(&handle, "rx_packets") >= 8);
    assert_eq!(kernels(), []);

    handle.adopt(&Snapshot::default()).expect("it is less");
    let kernels = kernels_datagrams(&left);
    send_datagrams(&right, 1);
    assert_eq!(kernels(), [0]);
}

#[test]
fn what_is_left_to_the_kernel_gets_there_so_many_at_a_time() {
    let (left, right) = pair();
    let (mut port, handle) = open_left(&left);
    handle.adopt(&left_is_ours()).expect("there is room");
    let kernels = kernels_datagrams(&left);
    send_datagrams(&right, 20);
    let port = left.run(move || {
        for frame in receive_udp(&mut port, 20) {
            port.leave(frame);
        }
        port
    });
    assert_eq!(kernels(), (0..16).collect::<Vec<u8>>());
    assert_eq!(statistic(&handle, "given_back_to_kernel"), 16);
    assert_eq!(statistic(&handle, "not_given_back_to_kernel"), 4);
    drop(port);
}

/// What the kernel's stack has, too, is not given back a second time.
#[test]
fn arp_is_for_both() {
    let (left, right) = pair();
    let (mut port, handle) = open_left(&left);
    right.ip("neighbour flush dev right0");
    let kernels = kernels_datagrams(&left);
    send_datagrams(&right, 1);
    assert_eq!(kernels(), [0], "the kernel has answered");
    let mut burst = Burst::new();
    let mut requests = 0;
    for _ in 0..64 {
        port.receive(&mut burst);
        for frame in burst.drain(..) {
            requests += u32::from(frame.bytes()[12..14] == [8, 6]);
            port.leave(frame);
        }
    }
    assert!(requests > 0);
    assert_eq!(statistic(&handle, "given_back_to_kernel"), 0);
    assert_eq!(statistic(&handle, "not_given_back_to_kernel"), 0);
}

fn numbered(number: u32) -> Vec<u8> {
    let to = [2, 0, 0, 0, 0, 0x11];
    let mut frame = [&to[..], &LEFT_MAC.0, &EXPERIMENTAL, &number.to_be_bytes()].concat();
    frame.resize(60, 0xa5);
    frame
}

fn arrived(port: &mut AfPacketPort, count: usize) -> Vec<u32> {
    let (mut numbers, mut burst) = (Vec::new(), Burst::new());
    let deadline = Instant::now() + PATIENCE;
    while numbers.len() < count && Instant::now() < deadline {
        port.receive(&mut burst);
        for frame in burst.drain(..) {
            if let Some(number) = frame.bytes()[14..].first_chunk::<4>()
                && frame.bytes()[12..14] == EXPERIMENTAL
            {
                numbers.push(u32::from_be_bytes(*number));
            }
            port.release(frame);
        }
    }
    numbers
}

/// The kernel sends 32 frames with a system call, a flush all that wait; a full ring refuses, and has room afterwards.
#[test]
fn one_flush_sends_all_that_waits_up_to_a_full_ring() {
    let (left, right) = pair();
    let (mut port, handle) = open_left(&left);
    let config = af_packet::Config {
        receive_slots: 4096,
        ..af_packet::Config::new(PortId(1), "right0")
    };
    let mut other = right
        .run(move || af_packet::open(config))
        .expect("there and up")
        .queues
        .remove(0);
    for round in 0..3 {
        let first = round * RING_LEN;
        for number in first..first + RING_LEN {
            assert!(port.send(&numbered(number), &Offload::NONE), "{number}");
        }
        assert!(!port.send(&numbered(0), &Offload::NONE), "the ring is full");
        port.flush();
        let expected: Vec<u32> = (first..first + RING_LEN).collect();
        assert_eq!(arrived(&mut other, expected.len()), expected);
        let mut burst = Burst::new();
        port.receive(&mut burst);
        burst.drain(..).for_each(|frame| port.release(frame));
    }
    assert_eq!(port.counters(), Default::default());
    assert_eq!(statistic(&handle, "xdp_tx_invalid_descs"), 0);
}

#[test]
fn a_received_frame_is_sent_from_where_it_is_with_more_in_front() {
    let (left, right) = pair();
    let (mut port, handle) = open_left(&left);
    handle.adopt(&left_is_ours()).expect("there is room");
    let config = af_packet::Config::new(PortId(1), "right0");
    let mut other = right
        .run(move || af_packet::open(config))
        .expect("there and up")
        .queues
        .remove(0);
    // More than there are chunks: each is used again and again.
    for _ in 0..200 {
        send_datagrams(&right, 32);
        let frames = receive_udp(&mut port, 32);
        assert_eq!(frames.len(), 32);
        for (number, mut frame) in (0..).zip(frames) {
            assert!(frame.prepend(100));
            frame.bytes_mut()[..18].copy_from_slice(&numbered(number)[..18]);
            assert!(matches!(port.transmit(frame), Sent::Taken));
        }
        port.flush();
        assert_eq!(arrived(&mut other, 32), (0..32).collect::<Vec<u32>>());
    }
    assert_eq!(port.counters(), Default::default());
}

/// A macvlan has no XDP of its own.
#[test]
fn without_native_xdp_it_is_behind_the_driver_and_says_why() {
    let (left, right) = pair();
    left.ip("address del 10.9.0.1/24 dev left0");
    left.ip("link add link left0 name upper0 address 02:00:00:00:00:20 type macvlan mode bridge");
    left.ip("address add 10.9.0.1/24 dev upper0");
    left.ip("link set upper0 up");
    let opened = open(&left, Config::new(PortId(0), "upper0"));
    let Opened { mut queues, handle } = opened.expect("there, up, and alone");
    let mode = handle.state().mode;
    let expected = "skb, copy, 1 queue, checksums completed, not native: ";
    assert!(mode.starts_with(expected), "{mode}");
    handle.adopt(&left_is_ours()).expect("there is room");
    // The lower interface would answer for the address, too.
    right.ip("neighbour replace 10.9.0.1 lladdr 02:00:00:00:00:20 dev right0");
    send_datagrams(&right, 4);
    let frames = receive_udp(&mut queues[0], 4);
    let numbers: Vec<u8> = frames.iter().map(|frame| frame.bytes()[42]).collect();
    assert_eq!(numbers, [0, 1, 2, 3], "{:?}", handle.statistics());
    frames
        .into_iter()
        .for_each(|frame| queues[0].release(frame));
}

#[test]
fn the_link_is_told_up_down_and_gone_and_calls_go_on() {
    let (left, right) = pair();
    let (mut port, handle) = open_left(&left);
    assert_eq!(
        handle.state().mode,
        "native, copy, 1 queue, checksums completed"
    );
    handle.adopt(&left_is_ours()).expect("there is room");
    let becomes = |link: Link| {
        // The kernel learns of a carrier a little later than the driver.
        let deadline = Instant::now() + PATIENCE;
        while handle.state().link != link {
            assert!(Instant::now() < deadline, "{:?}", handle.state());
        }
    };
    becomes(Link::Up);
    right.ip("link set right0 down");
    becomes(Link::Down);
    left.ip("link set left0 down");
    becomes(Link::Down);
    assert!(port.send(&numbered(0), &Offload::NONE));
    port.flush();
    left.ip("link set left0 up");
    right.ip("link set right0 up");
    becomes(Link::Up);
    send_datagrams(&right, 2);
    let frames = receive_udp(&mut port, 2);
    assert_eq!(frames.len(), 2);
    frames.into_iter().for_each(|frame| port.release(frame));
    left.ip("link del left0");
    becomes(Link::Gone);
    let mut burst = Burst::new();
    let mut taken = 0;
    for _ in 0..3 * RING_LEN {
        port.receive(&mut burst);
        taken += u32::from(port.send(&numbered(0), &Offload::NONE));
        port.flush();
    }
    assert!(
        taken <= RING_LEN,
        "nothing leaves: the ring is full and says so"
    );
    handle
        .adopt(&Snapshot::default())
        .expect("the map is there");
}

#[test]
fn another_hardware_address_is_followed_once_control_looks() {
    let (left, right) = pair();
    let (mut port, handle) = open_left(&left);
    handle.adopt(&left_is_ours()).expect("there is room");
    left.ip("link set left0 address 02:00:00:00:00:30");
    right.ip("neighbour replace 10.9.0.1 lladdr 02:00:00:00:00:30 dev right0");
    assert_eq!(handle.state().mac, Mac([2, 0, 0, 0, 0, 0x30]));
    send_datagrams(&right, 3);
    let frames = receive_udp(&mut port, 3);
    assert_eq!(frames.len(), 3);
    frames.into_iter().for_each(|frame| port.release(frame));
}

#[test]
fn errors_say_what_to_do() {
    let (left, _right) = pair();
    left.ip("link add down0 type veth peer name down1");
    left.ip("link add large0 mtu 9000 type veth peer name large1");
    left.ip("link set large0 up");
    let open = |interface: &str, workers| {
        let config = Config {
            workers,
            ..Config::new(PortId(0), interface)
        };
        let refused = open(&left, config).err();
        refused.expect("it cannot be opened").to_string()
    };
    let cases = [
        (
            "none0",
            1,
            "interface \"none0\" does not exist in this network namespace",
        ),
        (
            "lo",
            1,
            "interface \"lo\" is of ARP hardware type 772; accepted is Ethernet (1)",
        ),
        (
            "down0",
            1,
            "interface \"down0\" is down; `ip link set down0 up` first",
        ),
        (
            "large0",
            1,
            "interface \"large0\" has MTU 9000; with driver \"af_xdp\" at most 3822",
        ),
        (
            "a-name-too-long0",
            1,
            "interface \"a-name-too-long0\": accepted are names of 1 to 15",
        ),
        (
            "left0",
            2,
            "interface \"left0\" receives by 1 queues, and there are 2 workers",
        ),
    ];
    for (interface, workers, expected) in cases {
        let error = open(interface, workers);
        assert!(error.starts_with(expected), "{error}");
    }
    let first = open_left(&left);
    let error = open("left0", 1);
    assert!(
        error.starts_with("interface \"left0\" has an XDP program already (id "),
        "{error}"
    );
    drop(first);
    drop(open_left(&left));
}

/// Runs an ignored test of this file with fewer rights.
fn run_with(
    namespace: &Namespace,
    program: &'static str,
    arguments: &[&'static str],
    test: &'static str,
) {
    let this = std::env::current_exe().expect("a test binary");
    let arguments = arguments.to_vec();
    let output: Output = namespace.run(move || {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(this)
            .args(["--ignored", "--exact", test]);
        command.output().expect("util-linux is installed")
    });
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn without_capabilities_and_memory_the_errors_name_them() {
    let (left, _right) = pair();
    let without = "-net_admin,-bpf,-sys_admin,-perfmon";
    let arguments = ["--inh-caps", without, "--bounding-set", without];
    run_with(
        &left,
        "setpriv",
        &arguments,
        "is_refused_without_capabilities",
    );
    let arguments = [
        "--memlock=65536:65536",
        "setpriv",
        "--inh-caps",
        "-ipc_lock",
        "--bounding-set",
        "-ipc_lock",
    ];
    run_with(&left, "prlimit", &arguments, "is_refused_without_memory");
}

#[test]
#[ignore = "run by without_capabilities_and_memory_the_errors_name_them"]
fn is_refused_without_capabilities() {
    let error = af_xdp::open(&Config::new(PortId(0), "left0")).err();
    let error = error.expect("the capabilities were dropped");
    assert!(matches!(error, OpenError::NotPermitted { .. }), "{error}");
    assert!(error.to_string().contains("CAP_NET_ADMIN and CAP_BPF"));
}

#[test]
#[ignore = "run by without_capabilities_and_memory_the_errors_name_them"]
fn is_refused_without_memory() {
    let error = af_xdp::open(&Config::new(PortId(0), "left0")).err();
    let error = error.expect("the limit was lowered").to_string();
    let expected = "interface \"left0\": 9 MiB for the frames of a queue are more than";
    assert!(
        error.starts_with(expected) && error.contains("LimitMEMLOCK"),
        "{error}"
    );
}
