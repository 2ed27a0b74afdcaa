//! What `-h` and `-v` show.

/// The version: of the program whose words these are, and of uvs.
pub(super) fn version() -> String {
    format!(
        "ipvsadm v1.31 (uvs {}, a director in user space)\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// What can be said.
pub(super) fn text() -> String {
    version() + TEXT
}

const TEXT: &str = "\
Rules of a running uvsd, in the words of ipvsadm 1.31. UVS_SOCKET names its control socket, if it is not /run/uvs/uvs.sock.

Commands; each comes first, and alone:
  -A, -E SERVICE [-s NAME] [-p [SECONDS]] [-M MASK] [-o] [--pe NAME] [-b FLAGS] [--laddr ADDRESSES]
                                    a service comes, or gets other settings
  -D SERVICE                        it goes, with its servers
  -a, -e SERVICE -r SERVER [-g|-m|-i|--fullnat] [-w N] [-x N] [-y N] [TUNNEL]
                                    a server comes, or gets other settings
  -d SERVICE -r SERVER              it goes
  -L, -l [SERVICE] [COLUMNS]        services, or one of them, with their servers
  -L -c | --timeout | --daemon      connections, timeouts, synchronisation daemons
  -Z [SERVICE]                      counters begin at 0
  -C                                all services go
  -S [-n] [--full]                  the rules, for -R
  -R [--atomic]                     rules from the standard input, line by line or all at once
  --set TCP TCPFIN UDP              timeouts in seconds; 0 keeps one
  --start-daemon, --stop-daemon master|backup
                                    synchronisation of connections (not there yet)
  -v, -h                            version, this text

SERVICE    -t, -u or --sctp-service ADDRESS[:PORT]; -f MARK [-6]
SERVER     ADDRESS[:PORT]; an IPv6 address with a port is [ADDRESS]:PORT
COLUMNS    --stats, --rate, --thresholds, --persistent-conn or --tun-info; -n: no names; -X: numbers in full;
           --nosort: as they come; --json: as JSON
TUNNEL     --tun-type ipip|gre|gue, --tun-port PORT, --tun-nocsum, --tun-csum, --tun-remcsum
ADDRESSES  of FULLNAT: ADDRESS[,ADDRESS...][:FIRST-LAST]

--fullnat, --laddr, --full, --atomic and --json are of uvs.
";
