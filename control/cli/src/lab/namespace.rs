//! A network namespace that only this process knows.

use super::netlink::{Netlink, VethEnd};
use super::{LabError, Link, Prefix, command};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What every namespace starts with, wherever the host's own settings stand. The kernel's takes the defaults of new
/// IPv4 interfaces from the first namespace, so they are all set by name.
const IPV4_SETTINGS: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.lo.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.all.arp_ignore", "0"),
    ("net.ipv4.conf.default.arp_ignore", "0"),
    ("net.ipv4.conf.all.arp_announce", "0"),
    ("net.ipv4.conf.default.arp_announce", "0"),
];

/// Without duplicate address detection and router discovery addresses are usable at once and stay as they were set.
const IPV6_SETTINGS: &[(&str, &str)] = &[
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.all.forwarding", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
];

/// How long a link or an address may take to become usable.
const READY: Duration = Duration::from_secs(5);

/// A network namespace with lo up and nothing else. It ends with this value and all that runs in it.
#[derive(Debug, Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    fd: OwnedFd,
    netlink: Mutex<Netlink>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Inner")
            .field("name", &self.name)
            .field("fd", &self.fd)
            .finish_non_exhaustive()
    }
}

impl Namespace {
    /// Makes a namespace. The name is for messages and threads alone; the host never sees it.
    ///
    /// # Errors
    /// When the process lacks CAP_SYS_ADMIN, or the kernel refuses a setting.
    pub fn new(name: &str) -> Result<Namespace, LabError> {
        let unshare_error = |source: io::Error| LabError::Unshare {
            name: name.to_owned(),
            source,
        };
        let (fd, netlink) = thread::scope(|scope| {
            let made = thread::Builder::new()
                .name(name.to_owned())
                .spawn_scoped(scope, || {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    Ok((
                        OwnedFd::from(File::open("/proc/thread-self/ns/net")?),
                        Netlink::open()?,
                    ))
                });
            let made = made.map_err(|source| LabError::Thread {
                name: name.to_owned(),
                source,
            })?;
            made.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                .map_err(unshare_error)
        })?;
        let inner = Inner {
            name: name.to_owned(),
            fd,
            netlink: Mutex::new(netlink),
        };
        let namespace = Namespace {
            inner: Arc::new(inner),
        };
        namespace.sysctls(IPV4_SETTINGS)?;
        if Path::new("/proc/sys/net/ipv6").exists() {
            namespace.sysctls(IPV6_SETTINGS)?;
        }
        namespace.set_up("lo", true)?;
        Ok(namespace)
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Runs `work` on a thread inside the namespace and waits for it. What it opens, and the threads it starts,
    /// belong to the namespace.
    ///
    /// # Panics
    /// When `work` does, or when no thread can be started.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name(self.inner.name.clone())
                .spawn_scoped(scope, || {
                    self.enter();
                    work()
                });
            let thread = thread.expect("the process may start another thread");
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread inside the namespace.
    ///
    /// # Errors
    /// When the process may not start another thread.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, LabError> {
        let name = format!("{}-{name}", self.inner.name);
        let namespace = self.clone();
        let thread = thread::Builder::new().name(name.clone()).spawn(move || {
            namespace.enter();
            work()
        });
        thread.map_err(|source| LabError::Thread { name, source })
    }

    /// A command whose process will run inside the namespace, and be killed when the thread that starts it ends.
    ///
    /// # Panics
    /// When the process has no file descriptor left.
    pub fn command(&self, program: &str) -> Command {
        let fd = self
            .inner
            .fd
            .try_clone()
            .expect("the process may open another file");
        command::within(fd, program)
    }

    /// Writes a kernel setting; `key` with dots, as sysctl(8) prints it.
    ///
    /// # Errors
    /// When the kernel has no such setting or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        self.sysctls(&[(key, value)])
    }

    /// Writes several kernel settings.
    ///
    /// # Errors
    /// At the first that the kernel refuses.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<(), LabError> {
        self.run(|| {
            for (key, value) in settings {
                let path = format!("/proc/sys/{}", key.replace('.', "/"));
                std::fs::write(path, value).map_err(|source| LabError::Sysctl {
                    namespace: self.inner.name.clone(),
                    key: (*key).to_owned(),
                    value: (*value).to_owned(),
                    source,
                })?;
            }
            Ok(())
        })
    }

    /// What the kernel says of an interface.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn link(&self, interface: &str) -> Result<Link, LabError> {
        self.ask(format!("link show {interface}"), |netlink| {
            netlink.link(interface)
        })
    }

    /// Brings an interface up or down.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn set_up(&self, interface: &str, is_up: bool) -> Result<(), LabError> {
        let state = if is_up { "up" } else { "down" };
        self.ask(format!("link set {interface} {state}"), |netlink| {
            netlink.set_up(interface, is_up)
        })
    }

    /// Sets the largest IP packet of an interface, bytes.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be so large.
    pub fn set_mtu(&self, interface: &str, mtu: u32) -> Result<(), LabError> {
        self.ask(format!("link set {interface} mtu {mtu}"), |netlink| {
            netlink.set_mtu(interface, mtu)
        })
    }

    /// Sets the hardware address of an interface.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot have such an address.
    pub fn set_mac(&self, interface: &str, mac: [u8; 6]) -> Result<(), LabError> {
        self.ask(
            format!("link set {interface} address {mac:02x?}"),
            |netlink| netlink.set_mac(interface, mac),
        )
    }

    /// Takes an interface away; of a veth pair both ends.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn delete_link(&self, interface: &str) -> Result<(), LabError> {
        self.ask(format!("link delete {interface}"), |netlink| {
            netlink.delete(interface)
        })
    }

    /// Makes a bridge, up, without spanning tree and multicast snooping.
    ///
    /// # Errors
    /// When the name is taken or the kernel has no bridges.
    pub fn add_bridge(&self, name: &str) -> Result<(), LabError> {
        self.ask(format!("link add {name} type bridge"), |netlink| {
            netlink.add_bridge(name)
        })
    }

    /// Makes an interface a port of a bridge of the same namespace.
    ///
    /// # Errors
    /// When one of them is missing.
    pub fn set_bridge(&self, interface: &str, bridge: &str) -> Result<(), LabError> {
        let action = format!("link set {interface} master {bridge}");
        self.ask(action, |netlink| netlink.set_bridge(interface, bridge))
    }

    /// Adds an address, and waits until it is usable where the interface is.
    ///
    /// # Errors
    /// When the interface is missing or has the address.
    pub fn add_address(&self, interface: &str, prefix: Prefix) -> Result<(), LabError> {
        let action = || format!("address add {prefix} dev {interface}");
        self.ask(action(), |netlink| netlink.add_address(interface, prefix))?;
        if prefix.address.is_ipv4() || !(interface == "lo" || self.link(interface)?.is_operational)
        {
            return Ok(());
        }
        // Even without duplicate address detection the kernel answers neighbours for an IPv6 address only some time
        // after it was added, and calls it tentative until then.
        self.wait_until(action, || Ok(!self.run(|| has_tentative(interface))))
    }

    /// Adds a route by way of a gateway on one of the namespace's networks.
    ///
    /// # Errors
    /// When the gateway is not reachable or the route exists.
    pub fn add_route(&self, to: Prefix, via: IpAddr) -> Result<(), LabError> {
        self.ask(format!("route add {to} via {via}"), |netlink| {
            netlink.add_route(to, via)
        })
    }

    /// Waits until an interface is usable: the kernel learns of a carrier a little later than the driver.
    fn wait_for(&self, interface: &str) -> Result<(), LabError> {
        let action = || format!("link set {interface} up");
        self.wait_until(action, || Ok(self.link(interface)?.is_operational))
    }

    fn wait_until(
        &self,
        action: impl Fn() -> String,
        done: impl Fn() -> Result<bool, LabError>,
    ) -> Result<(), LabError> {
        let deadline = Instant::now() + READY;
        while !done()? {
            if Instant::now() > deadline {
                return Err(LabError::Netlink {
                    namespace: self.inner.name.clone(),
                    action: action(),
                    source: io::ErrorKind::TimedOut.into(),
                });
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn ask<T>(
        &self,
        action: String,
        question: impl FnOnce(&mut Netlink) -> io::Result<T>,
    ) -> Result<T, LabError> {
        let mut netlink = self
            .inner
            .netlink
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        question(&mut netlink).map_err(|source| LabError::Netlink {
            namespace: self.inner.name.clone(),
            action,
            source,
        })
    }

    fn enter(&self) {
        setns(self.as_fd(), CloneFlags::CLONE_NEWNET).expect("who made a namespace may enter it");
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

/// Whether an IPv6 address of an interface of the thread's namespace is not yet usable (IFA_F_TENTATIVE).
fn has_tentative(interface: &str) -> bool {
    let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    addresses.lines().any(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let flags = words
            .get(4)
            .and_then(|flags| u32::from_str_radix(flags, 16).ok());
        words.last() == Some(&interface) && flags.is_some_and(|flags| flags & 0x40 != 0)
    })
}

/// Joins two namespaces by a veth pair; both ends are up and usable.
///
/// # Errors
/// When a name is taken, the kernel has no veth, or the link does not come up.
pub fn link(
    a: &Namespace,
    a_interface: &str,
    b: &Namespace,
    b_interface: &str,
    mtu: u32,
) -> Result<(), LabError> {
    link_by_queues((a, a_interface), (b, b_interface), mtu, 1)
}

/// As [`link`], by an interface and a number of queues that both ends have each way.
pub(super) fn link_by_queues(
    (a, a_interface): (&Namespace, &str),
    (b, b_interface): (&Namespace, &str),
    mtu: u32,
    queues: u32,
) -> Result<(), LabError> {
    let action = format!(
        "link add {a_interface} mtu {mtu} type veth peer name {b_interface} netns {}",
        b.name()
    );
    a.ask(action, |netlink| {
        let a = VethEnd {
            name: a_interface,
            namespace: a.as_fd(),
            mtu,
            queues,
        };
        let b = VethEnd {
            name: b_interface,
            namespace: b.as_fd(),
            mtu,
            queues,
        };
        netlink.add_veth(a, b)
    })?;
    a.set_up(a_interface, true)?;
    b.set_up(b_interface, true)?;
    a.wait_for(a_interface)?;
    b.wait_for(b_interface)
}
