//! What the command line shares with the tests.

pub mod bench;
pub mod demo;
pub mod ipvsadm;
pub mod lab;
pub mod replay;
pub mod show;
