//! A laboratory of network namespaces: links, addresses, routes, clients and servers for the demo and the end to end
//! tests.
//!
//! A [`Namespace`] has no name on the host: it is a file descriptor of this process and ends with it, whatever ends
//! the process. Nothing here touches the namespace the process was started in.

mod command;
mod decapsulator;
mod http;
mod isolate;
mod namespace;
mod netlink;
mod prefix;
mod response;
mod stop;
pub mod topology;
mod udp;

pub use decapsulator::Decapsulator;
pub use http::{HttpServer, http_get};
pub use isolate::{IsolateError, isolate};
pub use namespace::{Namespace, link};
pub use netlink::Link;
pub use prefix::{Prefix, PrefixError};
pub use response::{RequestError, Response};
pub use topology::{Family, Host, Method, Topology};
pub use udp::{UdpServer, udp_ask};

use std::io;

/// Why a piece of the laboratory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The process may not make network namespaces.
    #[error(
        "no new network namespace for {name}: {source}; the process needs CAP_SYS_ADMIN: run as root, or call \
         lab::isolate() before the first thread"
    )]
    Unshare {
        /// The namespace that was to be.
        name: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("no thread for {name}: {source}")]
    Thread {
        /// What the thread was for.
        name: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel refused a link, an address or a route.
    #[error("{namespace}: {action}: {source}")]
    Netlink {
        /// Where.
        namespace: String,
        /// What was asked, in the words of ip(8).
        action: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A kernel setting could not be written.
    #[error("{namespace}: sysctl {key}={value}: {source}")]
    Sysctl {
        /// Where.
        namespace: String,
        /// The setting, with dots.
        key: String,
        /// What was to be written.
        value: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A server could not be bound.
    #[error("{service} on {address}: {source}")]
    Listen {
        /// Which kind of server.
        service: &'static str,
        /// Its address.
        address: String,
        /// What the kernel answered.
        source: io::Error,
    },
}
