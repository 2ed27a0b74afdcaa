//! The arguments of uvsd.

use clap::Parser;
use std::path::PathBuf;

/// A userspace virtual server: IPVS without the kernel.
#[derive(Debug, Parser)]
#[command(name = "uvsd", version)]
pub struct Arguments {
    /// The configuration; SIGHUP reads it again.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Only tells whether the configuration can be used: prints OK, or every mistake.
    #[arg(long)]
    pub check: bool,
}
