//! From settings, plans and changes to messages.

use super::{flags, key, persistence, tunnel};
use crate::config::{
    Configuration, LipPool, Mark, PortSettings, Protocol, Route, Server, Service, TimeoutSettings,
};
use crate::manage::{Change, Outcome, Pending};
use crate::plan::{Action, Plan, PlannedServer, PlannedService};
use conntrack::Method;
use dataplane::helper::Helper;
use dataplane::snapshot::Ipvs;
use prost_types::{Duration, Timestamp};
use proto::v1;
use std::time::{SystemTime, UNIX_EPOCH};

/// What of a configuration can change.
pub(super) fn state(of: &Configuration) -> v1::State {
    v1::State {
        services: of.services.iter().map(service).collect(),
        ports: of.ports.iter().map(port_addresses).collect(),
        lip_pools: of.lip_pools.iter().map(lip_pool).collect(),
        routes: of.routes.iter().map(route).collect(),
        marks: of.marks.iter().map(mark).collect(),
        timeouts: Some(timeouts(of.timeouts)),
        ipvs: Some(ipvs(&of.ipvs)),
    }
}

pub(super) fn service(of: &Service) -> v1::ServiceSettings {
    v1::ServiceSettings {
        key: Some(key(&of.listen)),
        scheduler: of.scheduler.to_owned(),
        flags: flags(&of.flags),
        method: method(of.method).into(),
        lip_pool: of.lip_pool.clone().unwrap_or_default(),
        one_packet: of.one_packet,
        persistence: of.persistence.as_ref().map(persistence),
        helper: match of.helper {
            None => String::new(),
            Some(Helper::Ftp) => "ftp".to_owned(),
        },
        slow_start_s: of.flags.slow_start,
        addresses: texts(&of.addresses),
        servers: of.servers.iter().map(server).collect(),
    }
}

fn server(of: &Server) -> v1::ServerSettings {
    v1::ServerSettings {
        address: of.address.ip().to_string(),
        port: of.address.port().into(),
        weight: Some(of.weight.into()),
        method: method(of.method).into(),
        upper: of.upper,
        lower: of.lower,
        tunnel: (of.method == Method::Tun).then(|| tunnel(of.tunnel)),
    }
}

pub(super) fn method(method: Method) -> v1::Method {
    match method {
        Method::Nat => v1::Method::Nat,
        Method::Dr => v1::Method::Dr,
        Method::Tun => v1::Method::Tun,
        Method::FullNat => v1::Method::Fullnat,
        Method::Local => v1::Method::Unspecified,
    }
}

pub(super) fn protocol(protocol: Protocol) -> v1::Protocol {
    match protocol {
        Protocol::Tcp => v1::Protocol::Tcp,
        Protocol::Udp => v1::Protocol::Udp,
        Protocol::Sctp => v1::Protocol::Sctp,
    }
}

fn port_addresses(of: &PortSettings) -> v1::PortAddresses {
    v1::PortAddresses {
        port: of.name.clone(),
        addresses: texts(&of.addresses),
    }
}

fn lip_pool(of: &LipPool) -> v1::LipPool {
    v1::LipPool {
        name: of.name.clone(),
        addresses: texts(&of.addresses),
        first_port: of.first_port.into(),
        last_port: of.last_port.into(),
    }
}

fn route(of: &Route) -> v1::Route {
    v1::Route {
        to: of.to.to_string(),
        via: of.via.map(|via| via.to_string()).unwrap_or_default(),
        port: of.port.clone().unwrap_or_default(),
    }
}

fn mark(of: &Mark) -> v1::Mark {
    let prefix = |prefix: Option<_>| prefix.as_ref().map(ToString::to_string).unwrap_or_default();
    let range = |(first, last): (u16, u16)| v1::PortRange {
        first: first.into(),
        last: last.into(),
    };
    v1::Mark {
        mark: of.mark,
        port: of.port.clone().unwrap_or_default(),
        source: prefix(of.source),
        destination: prefix(of.destination),
        protocol: of.protocol.map(protocol).unwrap_or_default().into(),
        source_ports: of.source_ports.map(range),
        destination_ports: of.destination_ports.map(range),
    }
}

fn timeouts(of: TimeoutSettings) -> v1::Timeouts {
    v1::Timeouts {
        tcp_s: Some(of.tcp),
        tcp_fin_s: Some(of.tcp_fin),
        udp_s: Some(of.udp),
    }
}

fn ipvs(of: &Ipvs) -> v1::Ipvs {
    v1::Ipvs {
        conn_reuse_mode: Some(of.conn_reuse_mode.into()),
        expire_nodest_conn: Some(of.expire_nodest_conn),
        expire_quiescent_template: Some(of.expire_quiescent_template),
        sloppy_tcp: Some(of.sloppy_tcp),
        sloppy_sctp: Some(of.sloppy_sctp),
        schedule_icmp: Some(of.schedule_icmp),
        nat_icmp_send: Some(of.nat_icmp_send),
        pmtu_disc: Some(of.pmtu_disc),
        lblc_expiration_s: Some(of.lblc_expiration),
        lblcr_expiration_s: Some(of.lblcr_expiration),
        secure_tcp: Some(of.secure_tcp.into()),
        drop_packet: Some(of.drop_packet.into()),
        drop_entry: Some(of.drop_entry.into()),
        am_droprate: Some(of.am_droprate),
        amemthresh: Some(of.amemthresh),
    }
}

/// What a change changes.
pub(super) fn plan(of: &Plan) -> v1::Plan {
    v1::Plan {
        summary: of.to_string(),
        services: of.services.iter().map(planned_service).collect(),
        connections_cut: of.connections_cut(),
        ways_changed: of.ways_changed,
        lip_pools_changed: of.lip_pools_changed,
        marks_changed: of.marks_changed,
        timeouts_changed: of.timeouts_changed,
        ipvs_changed: of.ipvs_changed,
    }
}

fn planned_service(of: &PlannedService) -> v1::PlannedService {
    v1::PlannedService {
        key: Some(key(&of.listen)),
        action: of.action.map(action).unwrap_or_default().into(),
        servers: of.servers.iter().map(planned_server).collect(),
        connections_kept: of.connections_kept,
        connections_cut: of.connections_cut,
        slots_moved: of.slots_moved,
    }
}

fn planned_server(of: &PlannedServer) -> v1::PlannedServer {
    v1::PlannedServer {
        address: of.address.ip().to_string(),
        port: of.address.port().into(),
        action: action(of.action).into(),
        connections: of.connections,
    }
}

fn action(action: Action) -> v1::Action {
    match action {
        Action::Add => v1::Action::Add,
        Action::Edit => v1::Action::Edit,
        Action::Remove => v1::Action::Remove,
    }
}

pub(super) fn pending(of: Pending) -> v1::Pending {
    v1::Pending {
        revision: of.revision,
        left: Duration::try_from(of.left).ok(),
    }
}

pub(super) fn changed(of: &Outcome) -> v1::ChangeResponse {
    v1::ChangeResponse {
        revision: of.revision,
        plan: Some(plan(&of.plan)),
        pending: of.pending.map(pending),
        warning: of.warning.clone().unwrap_or_default(),
    }
}

pub(super) fn news(of: &Change) -> v1::WatchConfigurationResponse {
    v1::WatchConfigurationResponse {
        revision: of.outcome.revision,
        plan: Some(plan(&of.outcome.plan)),
        time: Some(timestamp(of.time)),
        actor: of.actor.name.clone(),
        pending: of.outcome.pending.map(pending),
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
