//! What a compilation takes over from the one before.

use super::Before;
use super::settings::service_key;
use crate::config::{Configuration, Listen, Service as ServiceSettings};
use dataplane::snapshot::{Service, ServiceId, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;

/// What is as it was before a compilation, and so need not be compiled again.
pub(super) struct Kept<'b> {
    /// Whether routes and the ports' addresses are.
    pub(super) ways: bool,
    /// Whether all is that services and servers are made of beside their own settings.
    pub(super) rest: bool,
    snapshot: &'b Snapshot,
    services: HashMap<Listen, &'b ServiceSettings>,
}

impl<'b> Kept<'b> {
    pub(super) fn new(configuration: &Configuration, before: &Before<'b>) -> Kept<'b> {
        let old = before.configuration;
        let ways = old.is_some_and(|old| {
            old.routes == configuration.routes && old.ports == configuration.ports
        });
        let rest = ways
            && old.is_some_and(|old| {
                old.lip_pools == configuration.lip_pools && old.ipvs == configuration.ipvs
            });
        let services = old.iter().flat_map(|old| &old.services);
        Kept {
            ways,
            rest,
            snapshot: before.snapshot,
            services: services.map(|service| (service.listen, service)).collect(),
        }
    }

    /// The settings that a service had.
    pub(super) fn configured(&self, service: &ServiceSettings) -> Option<&'b ServiceSettings> {
        self.services.get(&service.listen).copied()
    }

    /// What a service was compiled to, where it would become the same.
    pub(super) fn service(
        &self,
        service: &ServiceSettings,
        id: ServiceId,
    ) -> Option<&'b Arc<Service>> {
        let is_same = self.rest && self.configured(service) == Some(service);
        let compiled = is_same.then(|| self.snapshot.services.get(&service_key(&service.listen)));
        compiled.flatten().filter(|compiled| compiled.id == id)
    }
}
