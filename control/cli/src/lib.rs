//! What the command line shares with the tests.

pub mod arguments;
pub mod bench;
pub mod compat;
pub mod demo;
pub mod doctor;
pub mod ipvsadm;
pub mod lab;
pub mod replay;
pub mod show;
