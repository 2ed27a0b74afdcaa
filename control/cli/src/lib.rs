//! What the command line shares with the tests.

pub mod lab;
