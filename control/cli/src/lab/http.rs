//! An HTTP/1.1 server that says who asked it, and its client.

use super::stop::{Serving, Stop};
use super::{LabError, Namespace, RequestError, Response};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Longest request and response that is read, bytes.
const MESSAGE_MAX: u64 = 16 * 1024;
/// How many clients are served at once; more are turned away by closing.
const CLIENTS_MAX: usize = 256;
/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers `GET /question` with a [`Response`] and closes, until it is dropped.
#[derive(Debug)]
pub struct HttpServer {
    _serving: Serving,
}

impl HttpServer {
    /// Serves at one address.
    ///
    /// # Errors
    /// When the address is taken or not the namespace's.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<HttpServer, LabError> {
        let listener = namespace.run(|| {
            TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            })
        });
        let listener = listener.map_err(|source| LabError::Listen {
            service: "http",
            address: address.to_string(),
            source,
        })?;
        let name: Arc<str> = namespace.name().into();
        let serve = move |stop: &Stop| accept(stop, &listener, &name);
        Ok(HttpServer {
            _serving: Serving::start(namespace, "http", serve)?,
        })
    }
}

/// Serves each client on a thread of its own, so that a silent one delays nobody.
fn accept(stop: &Stop, listener: &TcpListener, name: &Arc<str>) {
    let clients = Arc::new(());
    while stop.wait(&[listener.as_fd()]) {
        // A client may be gone again before it is accepted.
        let Ok((stream, peer)) = listener.accept() else {
            continue;
        };
        if Arc::strong_count(&clients) > CLIENTS_MAX {
            continue;
        }
        let (name, client) = (Arc::clone(name), Arc::clone(&clients));
        let thread = thread::Builder::new().name(format!("{name}-client"));
        // Without a thread the client is turned away; what fails between the two of them, the client reports.
        let _ = thread.spawn(move || {
            let _ = serve(&stream, peer, &name);
            drop(client);
        });
    }
}

fn serve(mut stream: &TcpStream, peer: SocketAddr, name: &str) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let question = read_request(stream)?;
    let (status, body) = match question {
        Some(question) => {
            let local = stream.local_addr()?;
            let response = Response {
                server: name.to_owned(),
                peer,
                local,
                question,
            };
            ("200 OK", response.to_string())
        }
        None => ("400 Bad Request", String::new()),
    };
    let length = body.len();
    let message =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(message.as_bytes())
}

/// What is asked for, without the leading slash; `None` when it is no GET.
fn read_request(stream: &TcpStream) -> io::Result<Option<String>> {
    let mut lines = BufReader::new(stream.take(MESSAGE_MAX)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let question = first
        .strip_prefix("GET /")
        .and_then(|rest| rest.split(' ').next());
    Ok(question
        .filter(|question| !question.is_empty())
        .map(str::to_owned))
}

/// Asks an HTTP server on a new connection from the calling thread's namespace.
///
/// # Errors
/// When there is no connection or answer in time, or a wrong answer. The timeout holds for connecting and for each
/// read.
pub fn http_get(
    server: SocketAddr,
    question: &str,
    timeout: Duration,
) -> Result<Response, RequestError> {
    let mut stream = TcpStream::connect_timeout(&server, timeout).map_err(RequestError::Connect)?;
    stream
        .set_read_timeout(Some(timeout))
        .map_err(RequestError::Connect)?;
    let request =
        format!("GET /{question} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .map_err(RequestError::Send)?;
    let mut answer = String::new();
    stream
        .take(MESSAGE_MAX)
        .read_to_string(&mut answer)
        .map_err(RequestError::receive)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => body.parse(),
        _ => Err(RequestError::Answer(answer)),
    }
}
