//! End to end: uvsd as an operator runs it, between clients and servers that know nothing of it.
//!
//! A [`Scene`] is a network of namespaces with nginx and a UDP echo on every server and one uvsd between them and the
//! client. Everything in it ends with it, and with the test's thread, whatever ends that. The helpers panic like the
//! tests that call them: with what was expected and what was seen. They need root.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

pub mod client;
pub mod compat;
mod configuration;
pub mod dns;
mod driver;
pub mod echo;
pub mod engine;
pub mod ftp;
pub mod iperf;
mod payload;
mod process;
mod scene;
mod server;
pub mod sip;
pub mod udp;
mod uvsd;

pub use configuration::{Configuration, ECHO_PORT, HTTP_PORT, IPERF_PORT, Server};
pub use driver::Driver;
pub use payload::Payload;
pub use process::{Output, Process, eventually};
pub use scene::Scene;
pub use server::{EchoServer, Nginx};
pub use uvsd::{Status, Uvsd, client_executable, executable};
