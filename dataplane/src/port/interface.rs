//! What can be wrong with a network interface, whichever driver opens it.

use libc::{ARPHRD_ETHER, ENODEV, ENXIO};
use std::io;

/// Why an interface is no port.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of that name.
    #[error(
        "interface {interface:?} does not exist in this network namespace; `ip link` lists those that do"
    )]
    NoSuchInterface {
        /// The name.
        interface: String,
    },
    /// It carries something other than Ethernet frames.
    #[error(
        "interface {interface:?} is of ARP hardware type {hardware_type}; accepted is Ethernet (1)"
    )]
    NotEthernet {
        /// The name.
        interface: String,
        /// ARPHRD_*.
        hardware_type: u16,
    },
    /// It is administratively down.
    #[error("interface {interface:?} is down; `ip link set {interface} up` first")]
    Down {
        /// The name.
        interface: String,
    },
}

impl InterfaceError {
    /// Whether the kernel says by `error` that there is no such interface; other errors come back.
    pub(super) fn no_such(interface: &str, error: io::Error) -> Result<InterfaceError, io::Error> {
        match error.raw_os_error() {
            Some(ENODEV | ENXIO) => Ok(InterfaceError::NoSuchInterface {
                interface: interface.to_owned(),
            }),
            _ => Err(error),
        }
    }

    /// Whether an interface of this kind and state can be a port.
    pub(super) fn check(interface: &str, hardware_type: u16, up: bool) -> Result<(), Self> {
        let interface = || interface.to_owned();
        if hardware_type != ARPHRD_ETHER {
            return Err(InterfaceError::NotEthernet {
                interface: interface(),
                hardware_type,
            });
        }
        if !up {
            return Err(InterfaceError::Down {
                interface: interface(),
            });
        }
        Ok(())
    }
}
