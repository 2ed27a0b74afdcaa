//! The words of a filter: `tcp host 10.0.0.9 port 80 dropped no-server on wan`.

use proto::v1;

/// Why words are no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// A word that means nothing.
    #[error(
        "{0:?} is no word of a filter; accepted: tcp, udp, sctp, host ADDRESS, port NUMBER, on NAME, dropped [REASON], and"
    )]
    Unknown(String),
    /// The last word wants another one.
    #[error("{word:?} stands alone; accepted: {word} {what}")]
    Alone {
        /// The word.
        word: String,
        /// What follows it.
        what: &'static str,
    },
    /// Twice the same, or a third host.
    #[error("{0:?} is there too often; accepted: host twice, everything else once")]
    Again(String),
    /// No port number.
    #[error("port {0:?} is no port number; accepted: 1 to 65535")]
    Port(String),
}

/// Words that begin something.
const BEGINNINGS: [&str; 8] = ["tcp", "udp", "sctp", "host", "port", "on", "dropped", "and"];

/// The filter that the words mean.
pub(super) fn filter(words: &[String]) -> Result<v1::PacketFilter, WordError> {
    let mut filter = v1::PacketFilter::default();
    let mut words = words
        .iter()
        .flat_map(|word| word.split_whitespace())
        .peekable();
    while let Some(word) = words.next() {
        let again = || Err(WordError::Again(word.to_owned()));
        let alone = |what| WordError::Alone {
            word: word.to_owned(),
            what,
        };
        match word {
            "and" => {}
            "tcp" | "udp" | "sctp" if filter.protocol != 0 => return again(),
            "tcp" => filter.protocol = v1::Protocol::Tcp.into(),
            "udp" => filter.protocol = v1::Protocol::Udp.into(),
            "sctp" => filter.protocol = v1::Protocol::Sctp.into(),
            "host" => {
                let host = words.next().ok_or_else(|| alone("ADDRESS"))?.to_owned();
                match (filter.host.is_empty(), filter.other_host.is_empty()) {
                    (true, _) => filter.host = host,
                    (false, true) => filter.other_host = host,
                    (false, false) => return again(),
                }
            }
            "port" if filter.transport_port != 0 => return again(),
            "port" => {
                let text = words.next().ok_or_else(|| alone("NUMBER"))?;
                let port = text.parse::<u16>().ok().filter(|port| *port != 0);
                let port = port.ok_or_else(|| WordError::Port(text.to_owned()))?;
                filter.transport_port = port.into();
            }
            "on" if !filter.port.is_empty() => return again(),
            "on" => {
                let name = words.next().ok_or_else(|| alone("NAME"))?;
                name.clone_into(&mut filter.port);
            }
            "dropped" if filter.only_dropped => return again(),
            "dropped" => {
                filter.only_dropped = true;
                if let Some(reason) = words.next_if(|next| !BEGINNINGS.contains(next)) {
                    reason.clone_into(&mut filter.reason);
                }
            }
            _ => return Err(WordError::Unknown(word.to_owned())),
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<v1::PacketFilter, WordError> {
        filter(&[text.to_owned()])
    }

    #[test]
    fn words_say_which_packets() {
        let all = read("tcp host 10.0.0.9 and host 10.0.0.100 port 80 dropped no-server on wan");
        assert_eq!(
            all,
            Ok(v1::PacketFilter {
                protocol: v1::Protocol::Tcp.into(),
                host: "10.0.0.9".to_owned(),
                other_host: "10.0.0.100".to_owned(),
                transport_port: 80,
                port: "wan".to_owned(),
                only_dropped: true,
                reason: "no-server".to_owned(),
            })
        );
        let dropped = read("dropped udp").unwrap_or_default();
        assert!(dropped.only_dropped && dropped.reason.is_empty());
        assert_eq!(dropped.protocol(), v1::Protocol::Udp);
        assert_eq!(read(""), Ok(v1::PacketFilter::default()));
        assert_eq!(filter(&[]), Ok(v1::PacketFilter::default()));
    }

    #[test]
    fn what_is_no_filter_is_told() {
        for (text, told) in [
            (
                "tpc",
                "\"tpc\" is no word of a filter; accepted: tcp, udp, sctp, host ADDRESS, port NUMBER, on NAME, dropped [REASON], and",
            ),
            ("tcp host", "\"host\" stands alone; accepted: host ADDRESS"),
            (
                "tcp udp",
                "\"udp\" is there too often; accepted: host twice, everything else once",
            ),
            (
                "host 1.1.1.1 host 2.2.2.2 host 3.3.3.3",
                "\"host\" is there too often; accepted: host twice, everything else once",
            ),
            (
                "port http",
                "port \"http\" is no port number; accepted: 1 to 65535",
            ),
            (
                "port 0",
                "port \"0\" is no port number; accepted: 1 to 65535",
            ),
        ] {
            let error = read(text).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), Some(told));
        }
    }
}
