//! What the kernel's IPVS tells in `/proc/net`: `ip_vs`, `ip_vs_stats` and `ip_vs_conn`, in its format. Tools that read them,
//! such as the Prometheus node exporter, read a folder of such files instead.
//!
//! ```text
//!   director.proc = FOLDER ─▶ FOLDER/net/ip_vs, FOLDER/net/ip_vs_stats        written anew each second, whole or not at all
//!   preload library, "/proc/net/ip_vs_conn" ─▶ netlink ─▶ a file in memory    made when it is asked for
//! ```
//!
//! Differs from IPVS: `persistent` counts hundredths of a second whatever HZ is, as the kernel of the recordings does, and a
//! FULLNAT server is told as masquerading.
//!
//! Source: Linux net/netfilter/ipvs/ip_vs_ctl.c and ip_vs_conn.c (the formats), and recordings of them.

use crate::config::{Granularity, Listen};
use crate::connections::{self, ConnectionView, Filter};
use crate::director::Director;
use crate::rates::Rates;
use crate::status::{ServerStatus, ServiceStatus};
use crate::traffic::Traffic;
use conntrack::Method;
use scheduler::RealServerId;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the folder is written.
const PERIOD: Duration = Duration::from_secs(1);
/// Connections of one file, at most; a line after them says so.
pub const CONNECTIONS: usize = 1 << 20;
/// The files of the folder.
const FILES: [&str; 2] = ["ip_vs", "ip_vs_stats"];

/// A file of `/proc/net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// Services and servers.
    Services,
    /// The director's statistics.
    Statistics,
    /// Connections.
    Connections,
}

impl File {
    /// The file of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<File> {
        match name {
            "ip_vs" => Some(File::Services),
            "ip_vs_stats" => Some(File::Statistics),
            "ip_vs_conn" => Some(File::Connections),
            _ => None,
        }
    }

    /// Writes what stands in it now.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write(self, director: &Director, out: &mut impl Write) -> io::Result<()> {
        match self {
            File::Services => services(&director.services(), director.settings.connections, out),
            File::Statistics => {
                let (traffic, rates) = director.total();
                statistics(&traffic, &rates, out)
            }
            File::Connections => all_connections(director, out),
        }
    }
}

impl Director {
    /// Everything that was exchanged since the start, also with services and servers that are gone.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let ids = (0..self.settings.servers).map(RealServerId);
        ids.fold(Traffic::default(), |sum, id| {
            sum.and(Traffic::of(&self.stats, id))
        })
    }
}

fn services(services: &[ServiceStatus], size: u32, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "IP Virtual Server version 1.2.1 (size={size})")?;
    writeln!(out, "Prot LocalAddress:Port Scheduler Flags")?;
    writeln!(
        out,
        "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn"
    )?;
    for service in services {
        let one_packet = if service.one_packet { "ops " } else { "" };
        let scheduler = service.scheduler;
        match service.listen {
            Listen::Mark { mark, .. } => {
                write!(out, "FWM  {mark:08X} {scheduler} {one_packet}")?;
            }
            Listen::Address { protocol, address } => {
                let protocol = protocol.to_string().to_uppercase();
                let after = if address.is_ipv4() {
                    format!("{one_packet} ")
                } else {
                    // The kernel does not say it there.
                    String::new()
                };
                let ip = name(address.ip(), true);
                let port = address.port();
                write!(out, "{protocol:<3}  {ip}:{port:04X} {scheduler} {after}")?;
            }
        }
        if let Some(persistence) = &service.persistence {
            let mask = match persistence.granularity {
                Granularity::Address if service.listen.is_ipv4() => u32::MAX,
                Granularity::Address => 128u32.swap_bytes(),
                Granularity::Netmask(mask) => mask.to_bits(),
                Granularity::Prefix(len) => u32::from(len).swap_bytes(),
            };
            let hundredths = u64::from(persistence.timeout) * 100;
            write!(out, "persistent {hundredths} {mask:08X}")?;
        }
        writeln!(out)?;
        for server in service.servers.iter().rev() {
            write_server(server, out)?;
        }
    }
    Ok(())
}

fn write_server(server: &ServerStatus, out: &mut impl Write) -> io::Result<()> {
    let method = match server.method {
        Method::Nat | Method::FullNat => "Masq",
        Method::Tun => "Tunnel",
        Method::Dr => "Route",
        Method::Local => "Local",
    };
    writeln!(
        out,
        "  -> {}:{:04X}      {method:<7} {:<6} {:<10} {:<10}",
        name(server.address.ip(), true),
        server.address.port(),
        server.weight,
        server.active,
        server.inactive
    )
}

/// An address as the kernel's files have it.
fn name(address: IpAddr, in_brackets: bool) -> String {
    match address {
        IpAddr::V4(v4) => format!("{:08X}", v4.to_bits()),
        IpAddr::V6(v6) if in_brackets => format!("[{}]", groups(v6)),
        IpAddr::V6(v6) => groups(v6),
    }
}

fn groups(address: Ipv6Addr) -> String {
    address
        .segments()
        .map(|group| format!("{group:04x}"))
        .join(":")
}

fn statistics(total: &Traffic, rates: &Rates, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "   Total Incoming Outgoing         Incoming         Outgoing"
    )?;
    writeln!(
        out,
        "   Conns  Packets  Packets            Bytes            Bytes"
    )?;
    row(total, out)?;
    writeln!(out)?;
    writeln!(
        out,
        " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s"
    )?;
    let rates = Traffic {
        connections: rates.connections,
        in_packets: rates.in_packets,
        in_bytes: rates.in_bytes,
        out_packets: rates.out_packets,
        out_bytes: rates.out_bytes,
    };
    row(&rates, out)
}

fn row(of: &Traffic, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:8X} {:8X} {:8X} {:16X} {:16X}",
        of.connections, of.in_packets, of.out_packets, of.in_bytes, of.out_bytes
    )
}

fn all_connections(director: &Director, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData"
    )?;
    let (mut count, mut failed) = (0, Ok(()));
    let _ = connections::for_each(director, &Filter::default(), |connection| {
        if count == CONNECTIONS {
            tracing::warn!("ip_vs_conn: more than {CONNECTIONS} connections; the rest is left out");
            return ControlFlow::Break(());
        }
        count += 1;
        failed = write_connection(&connection, out);
        if failed.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    failed
}

fn write_connection(connection: &ConnectionView, out: &mut impl Write) -> io::Result<()> {
    let protocol = match connection.protocol {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        _ => "IP",
    };
    write!(out, "{protocol:<3}")?;
    for end in [
        connection.client,
        connection.virtual_server,
        connection.real_server,
    ] {
        write!(out, " {} {:04X}", name(end.ip(), false), end.port())?;
    }
    let (state, left) = (connection.state_name(), connection.left.as_secs());
    write!(out, " {state:<11} {left:7}")?;
    if let Some(data) = &connection.engine_data {
        write!(out, " sip {}", String::from_utf8_lossy(data))?;
    }
    writeln!(out)
}

/// The folder that a director's files are written to.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    written: Option<Instant>,
    /// Whether it could not be written last time: told once.
    is_failing: bool,
}

impl Folder {
    /// At `path`, which `net` is made in.
    #[must_use]
    pub fn new(path: PathBuf) -> Folder {
        Folder {
            path,
            written: None,
            is_failing: false,
        }
    }

    /// Writes the files if it is time.
    pub fn refresh(&mut self, director: &Director) {
        if self
            .written
            .is_some_and(|written| written.elapsed() < PERIOD)
        {
            return;
        }
        self.written = Some(Instant::now());
        let written = self.write(director);
        if let Err(error) = &written
            && !self.is_failing
        {
            tracing::warn!("director.proc {}: {error}", self.path.display());
        }
        self.is_failing = written.is_err();
    }

    fn write(&self, director: &Director) -> io::Result<()> {
        let folder = self.path.join("net");
        fs::create_dir_all(&folder)?;
        for file in FILES {
            let mut text = Vec::new();
            File::named(file)
                .expect("the list holds files that there are")
                .write(director, &mut text)?;
            replace(&folder.join(file), &text)?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    /// Nobody may take what was for what is.
    fn drop(&mut self) {
        for file in FILES {
            // It may not be there.
            let _ = fs::remove_file(self.path.join("net").join(file));
        }
    }
}

/// Whoever reads it meanwhile reads the old one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
