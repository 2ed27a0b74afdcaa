#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use super::numbers::{AF_INET, dest, method, service};
use super::*;
use crate::director::Director;
use proptest::prelude::*;
use rustix::io::Errno;

const TEXT: &str = r#"
[director]
connections = 100
servers = 400
[port.lan]
driver = "memory"
addresses = ["10.0.0.1/8"]
[[lip_pool]]
name = "lips"
addresses = ["10.0.0.200"]
[[service]]
listen = "tcp 10.0.0.100:80"
method = "fullnat"
lip_pool = "lips"
slow_start = 9
server = [{ address = "10.0.0.11:8080" }]
"#;

fn netlink() -> Netlink {
    let configuration = Configuration::parse("f", TEXT).unwrap().configuration;
    let director = Arc::new(Director::start(configuration).unwrap());
    Netlink::new(Arc::new(Manager::new(director, 1)))
}

fn message(kind: u16, flags: u16, command: u8, fill: impl FnOnce(&mut Body<'_>)) -> Vec<u8> {
    let mut writer = Writer::default();
    let header = Header {
        kind,
        flags: message::REQUEST | flags,
        sequence: 7,
        port: 9,
    };
    writer.message(header, |body| {
        body.command(command, 1);
        fill(body);
    });
    writer.finish().remove(0)
}

fn put_service(body: &mut Body<'_>) {
    body.nested(top::SERVICE, |body| {
        body.u16(service::FAMILY, AF_INET);
        body.u16(service::PROTOCOL, 6);
        body.bytes(service::ADDRESS, &[10, 0, 0, 100, 0, 0, 0, 0]);
        body.port(service::PORT, 80);
        body.name(service::SCHEDULER, "wrr");
        body.bytes(service::FLAGS, &[0, 0, 0, 0, 255, 255, 255, 255]);
        body.u32(service::TIMEOUT, 0);
        body.bytes(service::NETMASK, &[255; 4]);
    });
}

fn put_server(body: &mut Body<'_>, host: u8, weight: u32) {
    put_service(body);
    body.nested(top::DEST, |body| {
        body.bytes(dest::ADDRESS, &[10, 0, 0, host]);
        body.port(dest::PORT, 8080);
        body.u32(dest::METHOD, method::MASQUERADING);
        body.u32(dest::WEIGHT, weight);
        body.u32(dest::UPPER, 0);
        body.u32(dest::LOWER, 0);
    });
}

fn ask(netlink: &Netlink, datagram: &[u8]) -> Vec<Vec<u8>> {
    netlink
        .answer(
            datagram,
            &Actor::of_uvsd("test"),
            Roles::default().with(Role::Admin),
        )
        .datagrams
}

/// The number of the error that a datagram is.
fn code(datagram: &[u8]) -> i32 {
    assert_eq!(datagram[4], 2, "an error: {datagram:?}");
    -i32::from_ne_bytes(datagram[16..20].try_into().unwrap())
}

fn change(netlink: &Netlink, command: u8, fill: impl FnOnce(&mut Body<'_>)) -> i32 {
    let answer = ask(
        netlink,
        &message(numbers::FAMILY, message::ACK, command, fill),
    );
    assert_eq!(answer.len(), 1);
    code(&answer[0])
}

#[test]
fn a_family_is_told_and_acknowledged_by_itself() {
    let netlink = netlink();
    let family = |name: &str| {
        let get = message(
            message::CONTROL,
            message::ACK,
            control::GET_FAMILY,
            |body| {
                body.name(control::FAMILY_NAME, name);
            },
        );
        ask(&netlink, &get)
    };
    let told = family("IPVS");
    assert_eq!(
        told.len(),
        2,
        "clients read the answer, then wait for the other"
    );
    assert_eq!(&told[0][20..29], [9, 0, 2, 0, b'I', b'P', b'V', b'S', 0]);
    assert_eq!(code(&told[1]), 0);
    assert_eq!(told[1].len(), 36);
    let refused = family("TASKSTATS");
    assert_eq!(code(&refused[0]), Errno::NOENT.raw_os_error());
}

#[test]
fn who_may_not_ask_learns_nothing() {
    let netlink = netlink();
    for command in 1..=17 {
        let asked = message(numbers::FAMILY, message::DUMP, command, put_service);
        let answer = netlink.answer(&asked, &Actor::of_uvsd("test"), Roles::default());
        assert_eq!(answer.datagrams.len(), 1);
        assert_eq!(code(&answer.datagrams[0]), Errno::PERM.raw_os_error());
    }
    assert_eq!(netlink.manager.current().1, 1, "nothing changes");
}

#[test]
fn a_viewer_lists_and_changes_nothing_and_an_operator_sees_no_clients() {
    let netlink = netlink();
    let ask = |roles: Role, kind, flags, command| {
        let asked = message(kind, flags, command, put_service);
        let roles = Roles::default().with(roles);
        let answer = netlink.answer(&asked, &Actor::of_uvsd("test"), roles);
        code(answer.datagrams.last().unwrap())
    };
    let forbidden = Errno::PERM.raw_os_error();
    for command in [command::DEL_SERVICE, command::FLUSH, command::ZERO] {
        let told = ask(Role::Viewer, numbers::FAMILY, message::ACK, command);
        assert_eq!(told, forbidden, "{command}");
    }
    assert_eq!(netlink.manager.current().1, 1, "nothing changes");
    let listed = ask(
        Role::Viewer,
        numbers::FAMILY,
        message::ACK,
        command::GET_INFO,
    );
    assert_eq!(listed, 0);
    let zeroed = ask(Role::Operator, numbers::FAMILY, message::ACK, command::ZERO);
    assert_eq!(zeroed, 0);
    let file = message(numbers::FILE, message::ACK, 0, |body| {
        body.name(1, "ip_vs_conn")
    });
    let roles = Roles::default().with(Role::Operator);
    let answer = netlink.answer(&file, &Actor::of_uvsd("test"), roles);
    assert_eq!(code(&answer.datagrams[0]), forbidden);
    let connections = "/uvs.v1.Connections/ListConnections";
    let (method, why) = &answer.noted[0];
    assert_eq!(*method, connections);
    assert!(why.as_ref().unwrap().contains("needs the role capture"));
    let roles = roles.with(Role::Capture);
    let answer = netlink.answer(&file, &Actor::of_uvsd("test"), roles);
    assert!(answer.file.is_some());
    assert_eq!(answer.noted, [(connections, None)], "a look is noted, too");
}

#[test]
fn counters_of_a_service_that_is_not_there_are_not_zeroed() {
    let netlink = netlink();
    let zero = message(numbers::FAMILY, message::ACK, command::ZERO, |body| {
        body.nested(top::SERVICE, |body| {
            body.u16(service::FAMILY, AF_INET);
            body.u32(service::MARK, 99);
        });
    });
    let told = ask(&netlink, &zero);
    assert_eq!(code(&told[0]), Errno::SRCH.raw_os_error());
    let all = message(numbers::FAMILY, message::ACK, command::ZERO, |_| {});
    assert_eq!(code(&ask(&netlink, &all)[0]), 0);
}

#[test]
fn a_fullnat_server_stays_one_and_a_service_keeps_what_netlink_has_no_words_for() {
    let netlink = netlink();
    assert_eq!(
        change(&netlink, command::SET_DEST, |body| put_server(body, 11, 5)),
        0
    );
    assert_eq!(
        change(&netlink, command::NEW_DEST, |body| put_server(body, 12, 1)),
        0
    );
    assert_eq!(change(&netlink, command::SET_SERVICE, put_service), 0);
    let service = netlink.manager.current().0.services.remove(0);
    assert_eq!((service.scheduler, service.flags.slow_start), ("wrr", 9));
    assert_eq!(service.lip_pool.as_deref(), Some("lips"));
    let servers: Vec<_> = service
        .servers
        .iter()
        .map(|of| (of.method, of.weight))
        .collect();
    assert_eq!(
        servers,
        [
            (conntrack::Method::FullNat, 5),
            (conntrack::Method::FullNat, 1)
        ]
    );
    let listed = ask(
        &netlink,
        &message(
            numbers::FAMILY,
            message::DUMP,
            command::GET_DEST,
            put_service,
        ),
    );
    // The method, and the beginning of the weight.
    let masquerading = [8, 0, 3, 0, 0, 0, 0, 0, 8, 0, 4, 0];
    let told = listed[0].windows(12).filter(|bytes| *bytes == masquerading);
    assert_eq!(told.count(), 2);
}

#[test]
fn errors_have_the_kernels_numbers() {
    let netlink = netlink();
    let is = |got: i32, wanted: Errno| assert_eq!(got, wanted.raw_os_error());
    is(
        change(&netlink, command::NEW_SERVICE, put_service),
        Errno::EXIST,
    );
    is(
        change(&netlink, command::NEW_DEST, |body| put_server(body, 11, 1)),
        Errno::EXIST,
    );
    is(
        change(&netlink, command::SET_DEST, |body| put_server(body, 12, 1)),
        Errno::NOENT,
    );
    is(
        change(&netlink, command::DEL_DEST, |body| put_server(body, 12, 1)),
        Errno::NOENT,
    );
    is(
        change(&netlink, command::SET_DEST, |body| {
            put_server(body, 11, 65_536)
        }),
        Errno::RANGE,
    );
    is(
        change(&netlink, command::NEW_DEST, put_service),
        Errno::INVAL,
    );
    is(change(&netlink, command::NEW_SERVICE, |_| {}), Errno::INVAL);
    is(change(&netlink, 99, |_| {}), Errno::OPNOTSUPP);
    assert_eq!(change(&netlink, command::FLUSH, |_| {}), 0);
    is(
        change(&netlink, command::DEL_SERVICE, put_service),
        Errno::SRCH,
    );
}

#[test]
fn a_long_listing_comes_in_pieces_and_ends() {
    let netlink = netlink();
    for host in 101..200 {
        assert_eq!(
            change(&netlink, command::NEW_DEST, |body| put_server(
                body, host, 1
            )),
            0
        );
    }
    let listed = ask(
        &netlink,
        &message(
            numbers::FAMILY,
            message::DUMP,
            command::GET_DEST,
            put_service,
        ),
    );
    assert!(listed.len() > 3, "{} datagrams", listed.len());
    assert!(listed.iter().all(|datagram| datagram.len() < 16_384));
    let messages: Vec<_> = listed
        .iter()
        .flat_map(|datagram| wire::messages(datagram))
        .collect();
    assert_eq!(messages.len(), 101, "100 servers and the end");
    assert!(
        messages
            .iter()
            .all(|message| message.header.flags == message::MULTI)
    );
    assert_eq!(messages.last().unwrap().header.kind, message::DONE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_are_the_end_of_it(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        command in 0..20u8,
        flags in any::<u16>(),
        places in proptest::collection::vec((0..200usize, any::<u8>()), 0..6),
    ) {
        thread_local! {
            static NETLINK: Netlink = netlink();
        }
        NETLINK.with(|netlink| {
            let _ = ask(netlink, &bytes);
            // Messages that are nearly right.
            for kind in [message::CONTROL, numbers::FAMILY, numbers::FILE] {
                let random = message(kind, flags, command, |body| body.raw(&bytes));
                let _ = ask(netlink, &random);
                let mut broken = message(kind, flags, command, |body| put_server(body, 11, 1));
                for (place, byte) in &places {
                    if let Some(there) = broken.get_mut(*place) {
                        *there = *byte;
                    }
                }
                let _ = ask(netlink, &broken);
            }
        });
    }
}

/// A client of the kernel's would not understand "too often": its answers come later.
#[tokio::test]
async fn who_asks_too_often_waits() {
    use crate::config::AccessSettings;
    use crate::guard::{Access, Audit, Guard};
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};
    let settings = AccessSettings {
        rate: 50,
        ..AccessSettings::default()
    };
    let guard = Guard::new(Access::look_up(&settings).0, Arc::new(Audit::default()));
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let theirs = tokio::net::UnixStream::from_std(theirs.into()).unwrap();
    let netlink = Arc::new(netlink());
    let talk = tokio::spawn(async move { socket::talk(netlink, &guard, theirs).await });
    let asked = message(numbers::FAMILY, 0, command::GET_INFO, |_| {});
    let since = Instant::now();
    for _ in 0..75 {
        send(&ours, &asked, SendFlags::NOSIGNAL).unwrap();
        let mut room = [0; 4096];
        while recv(&ours, &mut room[..], RecvFlags::empty()).is_err() {
            assert!(since.elapsed() < Duration::from_secs(20), "no answer");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // 50 at once, and 25 at 50 a second.
    let took = since.elapsed();
    assert!(took > Duration::from_millis(400), "{took:?}");
    drop(ours);
    talk.await.unwrap().unwrap();
}
