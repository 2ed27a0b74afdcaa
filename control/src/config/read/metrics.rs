//! `[metrics]`.

use super::switch;
use crate::config::model::MetricsSettings;
use crate::config::reader::Section;
use std::net::SocketAddr;

pub(super) fn read_metrics(section: &Section<'_, '_>) -> MetricsSettings {
    let default = MetricsSettings::default();
    let is_on = |name, default| switch(section, name).unwrap_or(default);
    MetricsSettings {
        listen: section
            .parsed("listen", parse_listen)
            .unwrap_or(default.listen),
        services: is_on("services", default.services),
        servers: is_on("servers", default.servers),
        neighbours: is_on("neighbours", default.neighbours),
        port_statistics: is_on("port_statistics", default.port_statistics),
    }
}

fn parse_listen(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    (address.port() != 0 && !address.ip().is_multicast()).then_some(address)
}
