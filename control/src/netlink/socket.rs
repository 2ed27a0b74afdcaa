//! The Unix socket of whole datagrams, and who is on its other end.

use super::{Answer, Netlink};
use crate::guard::{Caller, Guard, Record, Told};
use crate::manage::Actor;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Clients at a time, at most; more are turned away.
const CLIENTS: usize = 64;
/// Bytes of a datagram, at most; whoever sends more is hung up on.
const DATAGRAM: usize = 64 << 10;
/// How long nobody is let in after the system had no room for a client.
const REST: Duration = Duration::from_millis(100);

/// Answers clients of the socket for ever; `guard` knows who may ask for what.
///
/// # Errors
/// When the socket itself is out of order.
pub async fn serve(
    netlink: Arc<Netlink>,
    guard: Arc<Guard>,
    listener: std::os::unix::net::UnixListener,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!("netlink: no client is let in: {error}");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("netlink: a client is turned away: {CLIENTS} are there already");
            continue;
        };
        let (netlink, guard) = (Arc::clone(&netlink), Arc::clone(&guard));
        tokio::spawn(async move {
            // A client that goes, or never was one, is no fault.
            if let Err(error) = talk(netlink, &guard, client).await {
                tracing::debug!("netlink: a client is gone: {error}");
            }
            drop(place);
        });
    }
}

/// Answers one client until it goes.
pub(super) async fn talk(
    netlink: Arc<Netlink>,
    guard: &Guard,
    client: UnixStream,
) -> io::Result<()> {
    let credentials = client.peer_cred()?;
    // Where users come from the network, asking for them takes a while.
    let caller = move || Caller::unix(credentials.uid(), credentials.gid());
    let caller = tokio::task::spawn_blocking(caller).await;
    let caller = caller.map_err(io::Error::other)?;
    let actor = Arc::new(Actor {
        way: "netlink".to_owned(),
        ..caller.actor()
    });
    let mut room = vec![0; DATAGRAM];
    loop {
        let receive = || recv(&client, &mut room[..], RecvFlags::TRUNC).map_err(io::Error::from);
        let (_, len) = client.async_io(Interest::READABLE, receive).await?;
        if len == 0 {
            return Ok(());
        }
        // The kernel never says "too often", so nobody would understand it: he waits.
        while let Err(wait) = guard.count(&actor) {
            tokio::time::sleep(wait).await;
        }
        let datagram = room.get(..len).ok_or(Errno::MSGSIZE)?.to_vec();
        let (netlink, asker) = (Arc::clone(&netlink), Arc::clone(&actor));
        let roles = guard.roles(&caller);
        // A change may wait for others, and a table of connections takes a while.
        let answer = tokio::task::spawn_blocking(move || netlink.answer(&datagram, &asker, roles));
        let answer = answer.await.map_err(io::Error::other)?;
        write_down(&answer, guard, &actor);
        send(&client, &answer).await?;
    }
}

/// Into the audit log; refusals into uvsd's own, too.
fn write_down(answer: &Answer, guard: &Guard, actor: &Actor) {
    for (method, refused) in &answer.noted {
        let Some(message) = refused else {
            guard.audit().write(&Record::of(actor, method, Told::Done));
            continue;
        };
        let told = Told::failed(&tonic::Status::permission_denied(message));
        if guard.refuse(actor, method, told) {
            tracing::info!("netlink, {}: refused: {message}", actor.name);
        }
    }
}

async fn send(client: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut file = answer.file.as_ref();
    for datagram in &answer.datagrams {
        let send = || {
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut beside = SendAncillaryBuffer::new(&mut room);
            let files = file.map(|file| [file.as_fd()]);
            if let Some(files) = &files {
                let has_room = beside.push(SendAncillaryMessage::ScmRights(files));
                assert!(has_room, "the room is made for one file");
            }
            let slices = [IoSlice::new(datagram)];
            sendmsg(client, &slices, &mut beside, SendFlags::NOSIGNAL).map_err(io::Error::from)
        };
        client.async_io(Interest::WRITABLE, send).await?;
        file = None;
    }
    Ok(())
}
