//! The arguments of `uvs`.

use crate::{bench, configure, connect, demo, doctor, replay};
use clap::{Parser, Subcommand};

/// A userspace virtual server: IPVS in user space.
#[derive(Debug, Parser)]
#[command(name = "uvs", version, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `uvs` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Drive real TCP and UDP through the director, in network namespaces that nobody else sees.
    ///
    /// A client, the director and three servers run in this process. Every request is a kernel's own connection to
    /// the virtual address; its answer proves the way it took. Ends with a table; exit status 0 means that every
    /// request was served.
    Demo(demo::Options),
    /// Run the director over a capture, without a network and without root.
    ///
    /// Writes what the director would have sent, and prints a table of verdicts and drop reasons.
    Replay(replay::Options),
    /// Measure how fast the director is on this machine, without a network and without root.
    ///
    /// Its own worker over memory ports: connections are made, then packets of them forwarded, each of a connection
    /// at random. Prints a table; ends within a minute unless asked for more.
    Bench(bench::Options),
    /// Say how a running director does: workers, connections, drops, neighbours.
    Status(connect::Options),
    /// List a running director's services and real servers with their connections.
    List(connect::Options),
    /// Look at the machine: is it fit for the director, and what is to be done where it is not?
    ///
    /// Huge pages, processors, the interfaces and devices of the configuration, and the kernel's settings. Needs no running
    /// uvsd. Exit status 1 when something would keep the director from working.
    Doctor(doctor::Options),
    /// The rules of a running director in the words of ipvsadm 1.31: the same arguments, outputs and exit statuses.
    ///
    /// Also when this program is called by the name ipvsadm, ipvsadm-save or ipvsadm-restore. UVS_SOCKET in the environment
    /// names the control socket. `uvs ipvsadm -h` tells the arguments.
    #[command(disable_help_flag = true)]
    Ipvsadm {
        /// As ipvsadm takes them.
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGUMENTS"
        )]
        words: Vec<String>,
    },
    /// What looks at a director's configuration or changes it.
    #[command(flatten)]
    Configure(Box<configure::Command>),
}
