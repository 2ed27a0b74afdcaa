//! The gRPC services: a director's answers as messages (here), the changes that it is asked for (`configuration.rs`), its
//! connections (`connections.rs`, `drain.rs`) and rates (`statistics.rs`).

mod capture;
mod configuration;
mod connections;
mod drain;
mod explain;
pub mod messages;
mod place;
mod read;
mod refusal;
mod statistics;
mod write;

pub use capture::CaptureService;
pub use configuration::ConfigurationService;
pub use connections::ConnectionsService;
pub(crate) use refusal::code;

use crate::config::{Granularity, GueChecksum, Listen, Persistence, TunnelKind, scheduler_flags};
use crate::director::{Director, Takeover};
use crate::rates::Rates;
use crate::status::{
    NeighbourStatus, PortStatus, ServerStatus, ServiceStatus, Status as DirectorStatus,
    WorkerStatus,
};
use crate::traffic::Traffic;
use conntrack::{Method, TableStatistics};
use dataplane::helper::Helper;
use dataplane::port::handle::Link;
use dataplane::snapshot::Engine;
use proto::v1;
use scheduler::Options;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Answers for one director.
#[derive(Clone)]
pub struct DirectorService {
    director: Arc<Director>,
}

impl DirectorService {
    /// The service of `director`, to be handed to a tonic server.
    #[must_use]
    pub fn server(director: Arc<Director>) -> v1::director_server::DirectorServer<DirectorService> {
        v1::director_server::DirectorServer::new(DirectorService { director })
    }
}

#[tonic::async_trait]
impl v1::director_server::Director for DirectorService {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(status(&self.director.status())))
    }

    async fn list_services(
        &self,
        _: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        let services = self.director.services().iter().map(service).collect();
        Ok(Response::new(v1::ListServicesResponse { services }))
    }

    type WatchStatisticsStream = statistics::Statistics;

    async fn watch_statistics(
        &self,
        request: Request<v1::WatchStatisticsRequest>,
    ) -> Result<Response<Self::WatchStatisticsStream>, Status> {
        statistics::watch(Arc::clone(&self.director), &request.into_inner()).map(Response::new)
    }

    async fn zero_counters(
        &self,
        request: Request<v1::ZeroCountersRequest>,
    ) -> Result<Response<v1::ZeroCountersResponse>, Status> {
        statistics::zero(&self.director, &request.into_inner())?;
        Ok(Response::new(v1::ZeroCountersResponse {}))
    }
}

fn status(status: &DirectorStatus) -> v1::GetStatusResponse {
    let [ipv4, ipv6] = &status.tables;
    let (capacity, in_use) = status.lip_ports;
    let drops = status.drops.iter().map(|(reason, packets)| v1::Drop {
        reason: reason.name().to_owned(),
        packets: *packets,
    });
    v1::GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: u64::try_from(status.uptime.as_millis()).unwrap_or(u64::MAX),
        configuration_version: status.version,
        workers: (0u32..)
            .zip(&status.workers)
            .map(|(index, status)| worker(index, status))
            .collect(),
        ports: status.ports.iter().map(port).collect(),
        tables: vec![table("ipv4", ipv4), table("ipv6", ipv6)],
        warnings: status.warnings.clone(),
        drops: drops.collect(),
        lip_ports: Some(v1::LipPorts { capacity, in_use }),
        table_file: status.takeover.as_ref().map(table_file),
        neighbours: status.neighbours.iter().map(neighbour).collect(),
    }
}

fn table_file(takeover: &Takeover) -> v1::TableFile {
    v1::TableFile {
        path: takeover.path.display().to_string(),
        adopted: takeover.adopted.adopted,
        refused: takeover.adopted.refused.all(),
        took_ms: u64::try_from(takeover.took.as_millis()).unwrap_or(u64::MAX),
        summary: takeover.to_string(),
    }
}

fn worker(index: u32, status: &WorkerStatus) -> v1::Worker {
    v1::Worker {
        index,
        running: status.running,
        received: status.received,
        forwarded: status.forwarded,
        replied: status.replied,
        exceptions: status.exceptions,
        waiting: status.waiting,
        dropped: status.dropped,
        connections: status.connections,
        bursts: status.bursts,
        sleeps: status.sleeps,
        helpers_refused: status.helpers_refused,
        half_open_replaced: status.half_open_replaced,
        fragments_forgotten: status.fragments_forgotten,
        receive_missed: status.receive_missed,
        transmit_errors: status.transmit_errors,
    }
}

fn port(status: &PortStatus) -> v1::Port {
    let statistics = status.statistics.iter().map(|(name, value)| v1::Statistic {
        name: name.clone(),
        value: *value,
    });
    v1::Port {
        name: status.info.name.clone(),
        driver: status.info.driver.to_owned(),
        mac: status.state.mac.to_string(),
        mtu: status.state.mtu,
        addresses: status.addresses.clone(),
        mode: status.state.mode.clone(),
        link: match status.state.link {
            Link::Up => v1::Link::Up,
            Link::Down => v1::Link::Down,
            Link::Gone => v1::Link::Gone,
        }
        .into(),
        receive_missed: status.receive_missed,
        transmit_errors: status.transmit_errors,
        statistics: statistics.collect(),
    }
}

fn table(family: &str, statistics: &TableStatistics) -> v1::ConnectionTable {
    v1::ConnectionTable {
        family: family.to_owned(),
        capacity: statistics.capacity.into(),
        connections: statistics.entries,
        half_open: statistics.half_open.into(),
        half_open_limit: statistics.half_open_limit.into(),
        refused_full: statistics.inserts_refused_full,
        refused_half_open: statistics.inserts_refused_half_open,
        bytes: statistics.bytes,
        bytes_in_gigantic_pages: statistics.pages.gigantic,
        bytes_in_huge_pages: statistics.pages.huge,
        bytes_in_transparent_huge_pages: statistics.pages.transparent,
    }
}

fn neighbour(status: &NeighbourStatus) -> v1::Neighbour {
    v1::Neighbour {
        port: status.port.clone(),
        address: status.address.to_string(),
        mac: status.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        state: status.state.to_owned(),
    }
}

fn service(status: &ServiceStatus) -> v1::Service {
    v1::Service {
        key: Some(key(&status.listen)),
        scheduler: status.scheduler.to_owned(),
        flags: flags(&status.flags),
        servers: status.servers.iter().map(server).collect(),
        one_packet: status.one_packet,
        persistence: status.persistence.as_ref().map(persistence),
        traffic: Some(traffic(status.traffic)),
        helper: match status.helper {
            None => String::new(),
            Some(Helper::Ftp) => "ftp".to_owned(),
        },
        slow_start_s: status.flags.slow_start,
        rates: Some(rates(status.rates)),
    }
}

fn rates(rates: Rates) -> v1::Rates {
    v1::Rates {
        connections: rates.connections,
        in_packets: rates.in_packets,
        out_packets: rates.out_packets,
        in_bytes: rates.in_bytes,
        out_bytes: rates.out_bytes,
    }
}

fn traffic(traffic: Traffic) -> v1::Traffic {
    v1::Traffic {
        connections: traffic.connections,
        in_packets: traffic.in_packets,
        in_bytes: traffic.in_bytes,
        out_packets: traffic.out_packets,
        out_bytes: traffic.out_bytes,
    }
}

fn key(listen: &Listen) -> v1::ServiceKey {
    match *listen {
        Listen::Address { protocol, address } => v1::ServiceKey {
            protocol: write::protocol(protocol).into(),
            address: address.ip().to_string(),
            port: address.port().into(),
            ..v1::ServiceKey::default()
        },
        Listen::Mark { mark, ipv6 } => v1::ServiceKey {
            mark,
            mark_ipv6: ipv6,
            ..v1::ServiceKey::default()
        },
    }
}

fn persistence(settings: &Persistence) -> v1::Persistence {
    v1::Persistence {
        timeout_s: settings.timeout,
        granularity: match settings.granularity {
            Granularity::Address => String::new(),
            granularity => granularity.to_string(),
        },
        engine: match settings.engine {
            None => String::new(),
            Some(Engine::Sip) => "sip".to_owned(),
        },
    }
}

fn server(status: &ServerStatus) -> v1::RealServer {
    v1::RealServer {
        address: status.address.ip().to_string(),
        port: status.address.port().into(),
        method: write::method(status.method).into(),
        weight: status.weight.into(),
        active: status.active,
        inactive: status.inactive,
        persistent: status.persistent,
        upper: status.upper,
        lower: status.lower,
        connections: status.traffic.connections,
        in_packets: status.traffic.in_packets,
        in_bytes: status.traffic.in_bytes,
        out_packets: status.traffic.out_packets,
        out_bytes: status.traffic.out_bytes,
        tunnel: (status.method == Method::Tun).then(|| tunnel(status.tunnel)),
        rates: Some(rates(status.rates)),
    }
}

fn tunnel(kind: TunnelKind) -> v1::Tunnel {
    let full = |checksum| match checksum {
        true => v1::TunnelChecksum::Full,
        false => v1::TunnelChecksum::None,
    };
    let (kind, port, checksum) = match kind {
        TunnelKind::Ipip => (v1::TunnelKind::Ipip, 0, v1::TunnelChecksum::None),
        TunnelKind::Gre { checksum } => (v1::TunnelKind::Gre, 0, full(checksum)),
        TunnelKind::Gue { port, checksum } => {
            let checksum = match checksum {
                GueChecksum::Remote => v1::TunnelChecksum::Remote,
                checksum => full(checksum == GueChecksum::Full),
            };
            (v1::TunnelKind::Gue, port, checksum)
        }
    };
    v1::Tunnel {
        kind: kind.into(),
        port: port.into(),
        checksum: checksum.into(),
    }
}

fn flags(flags: &Options) -> Vec<String> {
    let names = scheduler_flags(flags).into_iter();
    names.map(str::to_owned).collect()
}
