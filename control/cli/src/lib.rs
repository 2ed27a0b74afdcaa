//! What the command line shares with the tests.

pub mod arguments;
pub mod bench;
pub mod capture;
pub mod compat;
pub mod configure;
pub mod connect;
pub mod connections;
pub mod demo;
pub mod doctor;
pub mod drain;
pub mod endpoint;
pub mod explain;
pub mod ipvsadm;
mod json;
pub mod lab;
pub mod output;
mod remote;
pub mod replay;
pub mod show;
mod stop;
pub mod top;
