//! What the command line shares with the tests.

pub mod arguments;
pub mod bench;
pub mod connect;
pub mod connections;
pub mod demo;
pub mod doctor;
pub mod drain;
pub mod endpoint;
pub mod ipvsadm;
pub mod lab;
pub mod replay;
pub mod show;
pub mod top;
