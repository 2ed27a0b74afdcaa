//! The arguments of `uvs`.

use crate::{
    bench, capture, compat, configure, connections, demo, doctor, drain, explain, replay, show, top,
};
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
    Status(show::StatusOptions),
    /// List a running director's services and real servers with their connections.
    List(show::ListOptions),
    /// Let the counters of a running director's service, or of all, begin anew at 0.
    Zero(show::ZeroOptions),
    /// List, count or end a running director's connections.
    Connections(connections::Options),
    /// Take a server out of service while its connections end by themselves.
    ///
    /// Its weight becomes 0, and stays so; told is what it still has. Ends when nothing is left, or at the deadline. Exit status 1
    /// when it did not come so far.
    Drain(drain::Options),
    /// Watch a running director: services, servers, rates, drops, workers.
    Top(top::Options),
    /// Look at the machine: is it fit for the director, and what is to be done where it is not?
    ///
    /// Huge pages, processors, the interfaces and devices of the configuration, the kernel's settings, the way to each server, and
    /// who else answers ARP for virtual addresses. Of a running uvsd: servers that do not answer. It need not run. Exit status 1
    /// when something would keep the director from working.
    Doctor(doctor::Options),
    /// Say what a running director would do with a packet, and why. Nothing is changed.
    Explain(explain::Options),
    /// Look at a running director's packets, as they come and as they leave, with what became of each.
    ///
    /// The workers never wait for it: packets that there is no room for are counted as missed. One capture at a time.
    Capture(capture::Options),
    /// Run an unmodified ipvsadm, keepalived or ldirectord, which then manages uvs instead of the kernel's IPVS.
    ///
    /// Its talk with the kernel's IPVS, and what it reads of it in /proc/net, goes to uvsd by a preloaded library; all else is
    /// as ever. Programs that are linked statically are refused: they would reach the kernel.
    Compat(compat::Options),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn filters_of_connections_are_read_as_they_are_typed() {
        let line = "uvs connections kill --tcp --client 10.0.0.0/8 --server 10.3.0.1:80 --state established \
                    --worker 0 --no-templates";
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Connections(options) = arguments.command else {
            panic!("{arguments:?}");
        };
        assert_eq!(options.action, crate::connections::Action::Kill);
        let filter = options.filter.message();
        assert_eq!(filter.protocol(), proto::v1::Protocol::Tcp);
        assert_eq!(
            (filter.client.as_str(), filter.server.as_str()),
            ("10.0.0.0/8", "10.3.0.1")
        );
        assert_eq!((filter.server_port, filter.worker_from_one), (80, 1));
        assert_eq!(filter.templates(), proto::v1::Templates::Without);
        for wrong in [
            "--client 10.0.0.0/40",
            "--tcp --udp",
            "--method masq",
            "--templates --no-templates",
        ] {
            let line = format!("uvs connections {wrong}");
            assert!(
                Arguments::try_parse_from(line.split_whitespace()).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_drain_names_service_and_server() {
        let line = "uvs drain udp:10.0.0.100:53 10.3.0.1 --deadline 60s --then reset --json";
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Drain(options) = arguments.command else {
            panic!("{arguments:?}");
        };
        assert_eq!(options.service.protocol(), proto::v1::Protocol::Udp);
        assert_eq!(options.server, ("10.3.0.1".parse().unwrap(), 0));
        assert_eq!(options.deadline, Some(std::time::Duration::from_secs(60)));
        assert_eq!(options.then, crate::drain::Then::Reset);
        assert!(options.json);
    }
}
