//! The file in which the tables outlive the process: what of it is control's, and what was taken over at the start.
//!
//! Entries know their server by a number. Which server that is stands in the file's directory, which is written before
//! the workers get a snapshot with a new number in it; so whatever an entry says can be read.

use super::{StartError, table_config};
use crate::compile::{Compiler, ServerKey};
use crate::config::{Configuration, Listen, Protocol};
use conntrack::{
    Adopted, FileConfig, FileError, Found, Mismatch, State, TableFile, Ticks, Timeouts,
};
use dataplane::worker::{self, Burden, Tables, file_words};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a template or an FTP control connection lasts for the sake of its connections.
const HELD: Ticks = Ticks::from_seconds(60);

/// A server that connections know by a number.
pub(super) type Left = (u32, ServerKey, Burden);

/// See the module's text.
pub(crate) struct Kept {
    file: TableFile,
    /// How it went.
    pub(crate) takeover: Takeover,
}

/// What was found in the file when the director started.
#[derive(Clone, Debug)]
pub struct Takeover {
    /// The file.
    pub path: PathBuf,
    /// What there was.
    pub found: Found,
    /// What of it goes on, and what does not.
    pub adopted: Adopted,
    /// How long it took until it was ready.
    pub took: Duration,
}

impl fmt::Display for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Takeover { path, found, .. } = self;
        write!(f, "table {}: ", path.display())?;
        match found {
            Found::Nothing => write!(f, "new")?,
            Found::Replaced(why) => write!(f, "what was there was replaced: {why}")?,
            Found::Table => {
                let refused = self.adopted.refused;
                write!(f, "adopted {} connections", self.adopted.adopted)?;
                write!(f, ", refused {}", refused.all())?;
                for (count, why) in [
                    (refused.fields, "damaged"),
                    (refused.keys, "not found by their keys"),
                    (refused.server, "of unknown servers"),
                    (refused.helper, "whose helper's record is gone"),
                ] {
                    if count > 0 {
                        write!(f, ", {count} of them {why}")?;
                    }
                }
            }
        }
        write!(f, "; {} ms", self.took.as_millis())
    }
}

impl Kept {
    /// Opens the file for a configuration, and takes over what is in it. Tells the servers of those connections too.
    pub(super) fn open(
        path: &Path,
        configuration: &Configuration,
        nodes: Vec<u16>,
    ) -> Result<(Tables, Kept, Vec<Left>), StartError> {
        let began = Instant::now();
        let settings = &configuration.director;
        let failed = |error: FileError| StartError::TableFile {
            path: path.to_owned(),
            error,
        };
        let config = FileConfig {
            capacity: settings.connections,
            directory_len: u64::from(settings.servers) * LISTED_LEN as u64,
            words: file_words(),
            nodes,
        };
        let (mut file, mut found) = TableFile::open(path, config).map_err(failed)?;
        let listed = match (&found, file.directory()) {
            (Found::Table, Some(bytes)) => read(&bytes, configuration),
            (Found::Table, None) if file.had_directory() => None,
            // A process that got no further than this left no connections either.
            _ => Some(Vec::new()),
        };
        let listed = match listed {
            Some(listed) => listed,
            None => {
                file = file.replaced().map_err(failed)?;
                found = Found::Replaced(Mismatch::Servers);
                Vec::new()
            }
        };
        let mut servers = vec![None; settings.servers as usize];
        for (number, (_, address)) in &listed {
            servers[*number as usize] = Some(*address);
        }
        let times = (worker::ticks_since(file.epoch()), longest(configuration));
        let (tables, taken) = Tables::in_file(&table_config(settings), &file, times, &servers)?;
        let configured: HashSet<ServerKey> = keys(configuration).collect();
        let left = listed.into_iter().map(|(number, key)| {
            let burden = taken.burdens[number as usize];
            (number, key, burden)
        });
        let left = left
            .filter(|(_, key, burden)| configured.contains(key) || *burden != Burden::default());
        let mut adopted = Adopted::default();
        for family in taken.adopted {
            adopted += family;
        }
        let left = left.collect();
        let takeover = Takeover {
            path: path.to_owned(),
            found,
            adopted,
            took: began.elapsed(),
        };
        Ok((tables, Kept { file, takeover }, left))
    }

    /// When tick 0 was.
    pub(super) fn epoch(&self) -> Instant {
        self.file.epoch()
    }

    /// Writes down which server has which number.
    pub(super) fn write(&self, compiler: &Compiler) {
        let mut bytes = Vec::new();
        for (number, key) in compiler.numbered() {
            bytes.extend(listed(number, key));
        }
        let is_written = self.file.write_directory(&bytes);
        assert!(
            is_written,
            "there is room for as many servers as have numbers"
        );
    }
}

/// The longest that anything may live without a packet.
fn longest(configuration: &Configuration) -> Ticks {
    let mut timeouts = Timeouts::default();
    let seconds = configuration.timeouts;
    timeouts.set(seconds.tcp, seconds.tcp_fin, seconds.udp);
    let of_states = State::ALL.iter().map(|state| timeouts.of(*state));
    let services = configuration.services.iter();
    let of_templates = services
        .filter_map(|service| service.persistence)
        .map(|persistence| Ticks::from_seconds(persistence.timeout));
    let all = of_states.chain(of_templates).chain([HELD]);
    Ticks(all.map(|timeout| timeout.0).max().unwrap_or(HELD.0))
}

fn keys(configuration: &Configuration) -> impl Iterator<Item = ServerKey> {
    configuration.services.iter().flat_map(|service| {
        let servers = service.servers.iter();
        servers.map(|server| (service.listen, server.address))
    })
}

/// Bytes of a server in the directory: number, kind, the mark or the virtual address, and the real one.
const LISTED_LEN: usize = 4 + 1 + SOCKET_LEN + SOCKET_LEN;
/// A family, an address and a port.
const SOCKET_LEN: usize = 1 + 16 + 2;
/// Kinds that are no protocol's number.
const MARK_V4: u8 = 0;
const MARK_V6: u8 = 1;

fn listed(number: u32, (listen, server): &ServerKey) -> [u8; LISTED_LEN] {
    let (kind, address) = match *listen {
        Listen::Address { protocol, address } => (protocol.number(), socket(address)),
        Listen::Mark { mark, ipv6 } => {
            let mut address = [0; SOCKET_LEN];
            address[..4].copy_from_slice(&mark.to_le_bytes());
            (if ipv6 { MARK_V6 } else { MARK_V4 }, address)
        }
    };
    let mut bytes = [0; LISTED_LEN];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4] = kind;
    bytes[5..5 + SOCKET_LEN].copy_from_slice(&address);
    bytes[5 + SOCKET_LEN..].copy_from_slice(&socket(*server));
    bytes
}

fn socket(address: SocketAddr) -> [u8; SOCKET_LEN] {
    let mut bytes = [0; SOCKET_LEN];
    match address.ip() {
        IpAddr::V4(ip) => bytes[1..5].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => {
            bytes[0] = 1;
            bytes[1..17].copy_from_slice(&ip.octets());
        }
    }
    bytes[17..].copy_from_slice(&address.port().to_le_bytes());
    bytes
}

/// The servers of a directory; `None` where it makes no sense. Of those that are not configured there are no more than
/// there are numbers for.
fn read(bytes: &[u8], configuration: &Configuration) -> Option<Vec<(u32, ServerKey)>> {
    let limit = configuration.director.servers as usize;
    let configured: HashSet<ServerKey> = keys(configuration).collect();
    let (records, rest) = bytes.as_chunks::<LISTED_LEN>();
    if !rest.is_empty() {
        return None;
    }
    let mut numbers = HashMap::new();
    let mut room = limit.saturating_sub(configured.len());
    for record in records {
        let (number, key) = parse(record)?;
        if number as usize >= limit {
            return None;
        }
        if !configured.contains(&key) {
            if room == 0 {
                continue;
            }
            room -= 1;
        }
        if numbers.insert(number, key).is_some() {
            return None;
        }
    }
    let mut servers: Vec<_> = numbers.into_iter().collect();
    servers.sort_unstable_by_key(|(number, _)| *number);
    Some(servers)
}

fn parse(record: &[u8; LISTED_LEN]) -> Option<(u32, ServerKey)> {
    let (number, rest) = record.split_first_chunk()?;
    let (kind, rest) = rest.split_first()?;
    let (virtual_end, rest) = rest.split_first_chunk::<SOCKET_LEN>()?;
    let protocol = match kind {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        &MARK_V4 | &MARK_V6 => None,
        _ => return None,
    };
    let listen = match protocol {
        Some(protocol) => Listen::Address {
            protocol,
            address: parse_socket(virtual_end)?,
        },
        None => Listen::Mark {
            mark: u32::from_le_bytes(*virtual_end.first_chunk()?),
            ipv6: *kind == MARK_V6,
        },
    };
    let server = parse_socket(rest.first_chunk()?)?;
    Some((u32::from_le_bytes(*number), (listen, server)))
}

fn parse_socket(bytes: &[u8; SOCKET_LEN]) -> Option<SocketAddr> {
    let ip: IpAddr = match bytes[0] {
        0 => <[u8; 4]>::try_from(&bytes[1..5]).ok()?.into(),
        1 => <[u8; 16]>::try_from(&bytes[1..17]).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(
        ip,
        u16::from_le_bytes([bytes[17], bytes[18]]),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_survives_its_bytes() {
        let server: SocketAddr = "[fd00::7]:8080".parse().unwrap();
        let other: SocketAddr = "10.0.2.1:0".parse().unwrap();
        let address = |protocol, text: &str| Listen::Address {
            protocol,
            address: text.parse().unwrap(),
        };
        for key in [
            (address(Protocol::Tcp, "10.0.0.1:80"), other),
            (address(Protocol::Udp, "[fd00::1]:53"), server),
            (address(Protocol::Sctp, "10.0.0.1:0"), server),
            (
                Listen::Mark {
                    mark: 7,
                    ipv6: false,
                },
                other,
            ),
            (
                Listen::Mark {
                    mark: u32::MAX,
                    ipv6: true,
                },
                server,
            ),
        ] {
            assert_eq!(parse(&listed(70_000, &key)), Some((70_000, key)));
        }
        let mut unknown = listed(1, &(address(Protocol::Tcp, "10.0.0.1:80"), other));
        unknown[4] = 99;
        assert_eq!(parse(&unknown), None);
    }
}
