//! dnsmasq on the servers, dig for clients.

use crate::process::{Process, eventually};
use cli::lab::Namespace;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A name that every server has an address for; each has another one.
pub const NAME: &str = "example.test";
/// A name with a text that makes an answer two packets.
pub const LONG_NAME: &str = "long.example.test";
/// Strings of the text.
const STRINGS: usize = 9;
/// Bytes of each: as many as fit one.
const STRING_LEN: usize = 250;
const START: Duration = Duration::from_secs(10);
const QUERIES: Duration = Duration::from_secs(30);

/// Starts dnsmasq. `number` is the server's place in the topology: it answers with [`address`] of that.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn serve(namespace: &Namespace, number: u8, listen: SocketAddr) -> Process {
    let mut command = namespace.command("dnsmasq");
    // Alone and without the host's configuration. With --no-daemon it has no children.
    command.args(["--no-daemon", "--conf-file=/dev/null", "--user=root"]);
    command.args(["--no-resolv", "--no-hosts", "--bind-interfaces"]);
    command.args(["--edns-packet-max=4096", "--local=/test/"]);
    command.arg(format!("--listen-address={}", listen.ip()));
    command.arg(format!("--port={}", listen.port()));
    command.arg(format!("--address=/{NAME}/{}", address(number)));
    let strings = vec![string(); STRINGS].join(",");
    command.arg(format!("--txt-record={LONG_NAME},{strings}"));
    let mut dnsmasq = Process::spawn(command);
    let up = || {
        let connect = || TcpStream::connect_timeout(&listen, START);
        namespace.run(connect).ok()
    };
    assert!(
        eventually(START, up).is_some(),
        "dnsmasq is not up on {listen}: {:?}",
        dnsmasq.ended()
    );
    dnsmasq
}

/// What a server says the address of [`NAME`] is.
#[must_use]
pub fn address(number: u8) -> String {
    format!("198.51.100.{}", number + 1)
}

/// How dig shows the text of [`LONG_NAME`].
#[must_use]
pub fn text() -> String {
    vec![format!("\"{}\"", string()); STRINGS].join(" ")
}

fn string() -> String {
    "uvs23".repeat(STRING_LEN / 5)
}

/// Asks for `name` so many times, one after the other, each time once and from another port; the answers. `options` are
/// dig's.
///
/// # Panics
/// When a question gets no answer.
#[must_use]
pub fn dig(
    client: &Namespace,
    server: SocketAddr,
    options: &[&str],
    question: [&str; 2],
    count: usize,
) -> Vec<String> {
    let mut command = client.command("dig");
    command.arg(format!("@{}", server.ip()));
    command.args(["-p", &server.port().to_string()]);
    command.args(["+short", "+tries=1", "+time=3", "+nocookie"]);
    command.args(options);
    for _ in 0..count {
        command.args(question);
    }
    let text = Process::spawn(command).finish(QUERIES).success();
    let answers: Vec<_> = text.lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), count, "{text}");
    answers
}
