//! Interfaces that go down, vanish and come back.

use super::*;

/// Each worker's rings are made anew when an interface comes back: that must not take long either.
#[test]
fn sixteen_workers_open_and_close_an_interface_soon() {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    let config = Config {
        workers: 16,
        ..Config::new(PortId(0), "left0")
    };
    let started = Instant::now();
    let ports = open(&left, config);
    let opened = started.elapsed();
    let started = Instant::now();
    drop(ports);
    let closed = started.elapsed();
    println!("16 workers: opened in {opened:?}, closed in {closed:?}");
    assert!(opened < Duration::from_secs(2), "{opened:?}");
}

/// Lets the port notice what has happened to its link: it looks now and then when there is nothing to receive.
fn idle(port: &mut AfPacketPort) {
    let mut burst = Burst::new();
    for _ in 0..2000 {
        port.receive(&mut burst);
        burst.drain(..).for_each(|frame| port.release(frame));
    }
}

/// Whether the socket has something to say: frames or an error.
fn is_ready(port: &AfPacketPort) -> bool {
    let mut fds = [nix::poll::PollFd::new(
        port.wait_on().expect("a socket"),
        nix::poll::PollFlags::POLLIN,
    )];
    nix::poll::poll(&mut fds, 0u8).expect("the descriptor is open") > 0
}

#[test]
fn an_interface_that_was_down_goes_on() {
    let (a, _b, mut left, mut right) = pair();
    a.ip("link set left0 down");
    let frame = numbered(right.info().mac, 60, 1);
    for errors in 1..=3 {
        assert!(left.send(&frame, &Offload::NONE));
        left.flush();
        assert_eq!(left.counters().transmit_errors, errors);
    }
    idle(&mut left);
    assert!(!is_ready(&left), "the waiter would spin");
    a.ip("link set left0 up");
    idle(&mut left);
    assert!(left.send(&numbered(right.info().mac, 60, 2), &Offload::NONE));
    left.flush();
    assert_eq!(receive_numbers(&mut right, 1), [2]);
    assert!(right.send(&numbered(left.info().mac, 60, 3), &Offload::NONE));
    right.flush();
    assert_eq!(receive_numbers(&mut left, 1), [3]);
}

/// That an interface has gone down is told once, to whoever asks next: also to him who asks for a long frame.
#[test]
fn long_frames_that_wait_while_the_link_goes_down_keep_their_place() {
    let (a, b, mut left, mut right) = pair();
    a.ip("link set left0 mtu 9000");
    b.ip("link set right0 mtu 9000");
    let to = right.info().mac;
    for numbers in [0..10, 10..20] {
        idle(&mut left);
        for number in numbers.clone() {
            assert!(left.send(&numbered(to, 9014, number), &Offload::NONE));
        }
        left.flush();
        std::thread::sleep(std::time::Duration::from_millis(50));
        b.ip("link set right0 down");
        let received = receive_numbers(&mut right, 10);
        assert!(received.iter().copied().eq(numbers), "{received:?}");
        b.ip("link set right0 up");
    }
    assert_eq!(right.counters().receive_missed, 0);
}

#[test]
fn an_interface_that_was_replaced_goes_on() {
    for workers in [1, 2] {
        let (left, right) = (Namespace::new(), Namespace::new());
        left.veth("left0", 0x10, &right, "right0");
        let mut ports = open(
            &left,
            Config {
                workers,
                ..Config::new(PortId(0), "left0")
            },
        );
        left.ip("link delete left0");
        for port in &mut ports {
            assert!(port.send(&[0xff; 60], &Offload::NONE));
            port.flush();
            assert_eq!(port.counters().transmit_errors, 1);
            idle(port);
            assert!(!is_ready(port), "the waiter would spin");
        }
        left.veth("left0", 0x50, &right, "right0");
        // The workers' threads are in the interface's namespace.
        let mut ports = left.run(move || {
            ports.iter_mut().for_each(idle);
            ports
        });
        let mut peer = open_one(&right, "right0");
        std::thread::sleep(Duration::from_millis(50));
        for (number, port) in (0..).zip(&mut ports) {
            assert_eq!(port.info().mac, Mac([2, 0, 0, 0, 0, 0x50]));
            assert!(port.send(&numbered(peer.info().mac, 60, number), &Offload::NONE));
            port.flush();
            assert_eq!(receive_numbers(&mut peer, 1), [number]);
        }
        for source_port in 0..100 {
            let mut frame = datagram(ports[0].info().mac, source_port, 0);
            frame[12..14].copy_from_slice(&EXPERIMENTAL);
            assert!(peer.send(&frame, &Offload::NONE));
        }
        peer.flush();
        std::thread::sleep(Duration::from_millis(50));
        let mut received = 0;
        for port in &mut ports {
            let mut burst = Burst::new();
            while port.receive(&mut burst) > 0 {
                for frame in burst.drain(..) {
                    received += usize::from(number_of(frame.bytes()).is_some());
                    port.release(frame);
                }
            }
        }
        assert_eq!(received, 100, "each frame at one worker");
    }
}

#[test]
fn what_came_before_an_interface_was_replaced_is_still_received() {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    let (mut sender, (port, handle)) =
        (open_one(&left, "left0"), open_with_handle(&right, "right0"));
    for number in 0..5 {
        assert!(sender.send(&numbered(port.info().mac, 60, number), &Offload::NONE));
    }
    sender.flush();
    std::thread::sleep(Duration::from_millis(50));
    left.ip("link delete left0");
    left.veth("left0", 0x50, &right, "right0");
    assert_eq!(handle.state().link, Link::Down);
    let numbers = right.run(move || {
        let mut port = port;
        let numbers = receive_numbers(&mut port, 5);
        idle(&mut port);
        numbers
    });
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert_eq!(statistic(&handle, "sockets_reopened"), 1);
    assert_eq!(handle.state().mac, Mac([2, 0, 0, 0, 0, 0x51]));
}

#[test]
fn the_handle_tells_of_its_interface_as_it_is_now() {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.veth("left0", 0x10, &right, "right0");
    let (mut port, handle) = open_with_handle(&left, "left0");
    let link = || handle.state().link;
    // The kernel believes in a new carrier a little later.
    let deadline = Instant::now() + Duration::from_secs(5);
    while link() != Link::Up {
        assert!(Instant::now() < deadline, "{:?}", handle.state());
        std::thread::sleep(Duration::from_millis(5));
    }
    left.ip("link set left0 mtu 1400");
    left.ip("link set left0 address 02:00:00:00:00:aa");
    let state = handle.state();
    assert_eq!((state.mtu, state.mac), (1400, Mac([2, 0, 0, 0, 0, 0xaa])));
    port.receive(&mut Burst::new());
    left.ip("link set left0 down");
    assert_eq!(link(), Link::Down);
    assert!(port.send(&[0xff; 60], &Offload::NONE));
    port.flush();
    assert_eq!(statistic(&handle, "transmit_link_down"), 1);
    left.ip("link delete left0");
    assert_eq!(link(), Link::Gone);
    let is_told = port.receive(&mut Burst::new());
    assert_eq!(is_told, 0);
    left.veth("left0", 0x50, &right, "right0");
    assert_eq!(link(), Link::Down, "the worker has not looked yet");
    // The handle's look is enough: one call, not many without a frame.
    let mut port = left.run(move || {
        port.receive(&mut Burst::new());
        port
    });
    assert_eq!(handle.state().mac, Mac([2, 0, 0, 0, 0, 0x50]));
    assert_eq!(port.info().mac, Mac([2, 0, 0, 0, 0, 0x50]));
    assert_eq!(statistic(&handle, "sockets_reopened"), 1);
    let before = statistic(&handle, "tx_packets");
    assert!(port.send(&[0xff; 60], &Offload::NONE));
    port.flush();
    assert_eq!(statistic(&handle, "tx_packets"), before + 1);
    assert_eq!(port.counters().transmit_errors, 1);
}
