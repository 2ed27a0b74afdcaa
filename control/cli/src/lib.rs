//! What the command line shares with the tests.

pub mod arguments;
pub mod bench;
pub mod configure;
pub mod connect;
pub mod demo;
pub mod doctor;
pub mod ipvsadm;
mod json;
pub mod lab;
mod remote;
pub mod replay;
pub mod show;
