//! Which role a method needs: the one table of it.

use std::fmt;

/// What somebody may do. An operator is a viewer too, an admin everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Looks at counters and configuration.
    Viewer,
    /// Changes the configuration, drains, ends connections.
    Operator,
    /// Does everything.
    Admin,
    /// Sees who speaks to whom: lists of connections, captures.
    Capture,
}

/// Who writes into the audit log what becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenBy {
    /// Nobody: it changes nothing and tells nothing of clients.
    Nobody,
    /// The guard: who called, and the status.
    Guard,
    /// Whoever makes the change, with all that it changed.
    Manager,
}

/// The role that a method needs, by its path, and who writes down what becomes of it. `None`: there is no such method.
#[must_use]
pub fn needed(path: &str) -> Option<(Role, WrittenBy)> {
    use Role::{Capture, Operator, Viewer};
    use WrittenBy::{Guard, Manager, Nobody};
    Some(match path {
        "/uvs.v1.Director/GetStatus"
        | "/uvs.v1.Director/ListServices"
        | "/uvs.v1.Director/WatchStatistics"
        | "/uvs.v1.Configuration/GetConfiguration"
        | "/uvs.v1.Configuration/PlanChange"
        | "/uvs.v1.Configuration/WatchConfiguration"
        | "/grpc.health.v1.Health/Check"
        | "/grpc.health.v1.Health/List"
        | "/grpc.health.v1.Health/Watch"
        | "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => (Viewer, Nobody),
        "/uvs.v1.Configuration/Change"
        | "/uvs.v1.Configuration/Confirm"
        | "/uvs.v1.Configuration/RollBack" => (Operator, Manager),
        "/uvs.v1.Director/ZeroCounters"
        | "/uvs.v1.Connections/Drain"
        | "/uvs.v1.Connections/KillConnections" => (Operator, Guard),
        "/uvs.v1.Connections/ListConnections"
        | "/uvs.v1.Connections/CountConnections"
        | "/uvs.v1.Connections/Explain"
        | "/uvs.v1.Capture/CapturePackets" => (Capture, Guard),
        _ => return None,
    })
}

impl Role {
    /// The list of `[access]` that gives it.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Role::Viewer => "viewers",
            Role::Operator => "operators",
            Role::Admin => "admins",
            Role::Capture => "captures",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key();
        f.write_str(key.strip_suffix('s').unwrap_or(key))
    }
}

/// All roles of somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// With one more.
    #[must_use]
    pub fn with(self, role: Role) -> Roles {
        // An operator is a viewer, an admin everything.
        let all = match role {
            Role::Viewer => 0b0001,
            Role::Operator => 0b0011,
            Role::Admin => 0b1111,
            Role::Capture => 0b1000,
        };
        Roles(self.0 | all)
    }

    /// Whether this is among them.
    #[must_use]
    pub fn has(self, role: Role) -> bool {
        let bit = match role {
            Role::Viewer => 0b0001,
            Role::Operator => 0b0010,
            Role::Admin => 0b0100,
            Role::Capture => 0b1000,
        };
        self.0 & bit != 0
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [Role::Admin, Role::Operator, Role::Viewer, Role::Capture];
        let had: Vec<_> = all.into_iter().filter(|role| self.has(*role)).collect();
        match &had[..] {
            [] => f.write_str("without any role"),
            [Role::Admin, ..] => f.write_str("with the role admin"),
            [only] => write!(f, "with the role {only}"),
            _ => {
                f.write_str("with the roles ")?;
                for (place, role) in had.iter().enumerate() {
                    write!(f, "{}{role}", if place > 0 { ", " } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::FileDescriptorSet;

    #[test]
    fn an_operator_looks_and_an_admin_does_everything() {
        let viewer = Roles::default().with(Role::Viewer);
        assert!(viewer.has(Role::Viewer) && !viewer.has(Role::Operator));
        assert!(!viewer.has(Role::Capture) && !Roles::default().has(Role::Viewer));
        let operator = Roles::default().with(Role::Operator);
        assert!(operator.has(Role::Viewer) && !operator.has(Role::Admin));
        assert!(!operator.has(Role::Capture));
        let admin = Roles::default().with(Role::Admin);
        assert!(admin.has(Role::Operator) && admin.has(Role::Capture));
        let capture = Roles::default().with(Role::Capture);
        assert!(!capture.has(Role::Viewer));
        assert_eq!(viewer.to_string(), "with the role viewer");
        assert_eq!(
            operator.with(Role::Capture).to_string(),
            "with the roles operator, viewer, capture"
        );
        assert_eq!(Roles::default().to_string(), "without any role");
    }

    #[test]
    fn every_method_of_the_interface_has_its_row() {
        let files: FileDescriptorSet = prost::Message::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut methods = 0;
        for file in files.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    assert!(needed(&path).is_some(), "{path} has no row");
                    methods += 1;
                }
            }
        }
        assert!(methods > 12, "{methods}");
        assert_eq!(needed("/uvs.v1.Director/Nothing"), None);
        assert_eq!(needed(""), None);
    }
}
