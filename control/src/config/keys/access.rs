//! Keys of who may do what.

use super::{Accepts, Key, Table, of, optional, required, table};

const CALLERS: Accepts = Accepts::Form(
    "at most 256 of \"user:NAME\", \"uid:NUMBER\", \"group:NAME\", \"gid:NUMBER\", \"san:NAME\", such as [\"group:netops\", \"san:spiffe://example.org/deploy\"]",
);
const PEM: Accepts = Accepts::Form("an absolute path of at most 200 bytes to a file in PEM");

const fn callers(name: &'static str, about: &'static str) -> Key {
    let key = optional(name, "a list of callers", CALLERS, "[]", about);
    of("a caller", key)
}

/// `[access]`.
pub const ACCESS: Table = Table {
    name: "access",
    keys: &[
        optional(
            "group",
            "the name of a group",
            Accepts::Form("1 to 255 bytes without blanks"),
            "the group that uvsd runs with",
            "the group of the control socket: its members and root can connect at all",
        ),
        callers(
            "viewers",
            "who may look at counters and configuration, plan and watch; root and uvsd's own user may do everything",
        ),
        callers(
            "operators",
            "who may do that, change the configuration, drain servers, end connections",
        ),
        callers("admins", "who may do everything"),
        callers(
            "captures",
            "who may list connections, have them explained, capture packets; nothing else by this alone",
        ),
        optional(
            "audit",
            "a file for the audit log",
            Accepts::Form(
                "an absolute path of at most 200 bytes, such as \"/var/log/uvs/audit.jsonl\"",
            ),
            "none",
            "where each change, each refusal and each look at connections is appended, a line of JSON each; SIGHUP opens it again",
        ),
        optional(
            "rate",
            "a number of calls",
            Accepts::Number(1, 1_000_000),
            "5000",
            "calls of each caller in a second; what comes above is refused",
        ),
        table(
            "tls",
            "the gRPC service over TCP, for those whose certificates are named above by `san:`",
        ),
    ],
};

/// `[access.tls]`.
pub const ACCESS_TLS: Table = Table {
    name: "access.tls",
    keys: &[
        required(
            "listen",
            "an address and a port",
            Accepts::Form(
                "an address and a port that is not 0, such as \"10.1.0.1:7443\" or \"[::]:7443\"",
            ),
            "where to listen",
        ),
        required(
            "certificate",
            "a certificate",
            PEM,
            "uvsd's certificate, and those between it and the one that clients know",
        ),
        required(
            "key",
            "a private key",
            PEM,
            "its private key; nobody but uvsd's user should be able to read it",
        ),
        required(
            "client_ca",
            "certificates",
            PEM,
            "who signs the certificates of clients; others are refused",
        ),
    ],
};
