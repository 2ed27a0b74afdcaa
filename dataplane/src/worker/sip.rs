//! SIP: which call a message belongs to, and messages of servers that no connection knows.
//!
//! Source: RFC 3261 §7.3.1 (folding), §20.8, §25.1; observed with the kernel's ip_vs_pe_sip.

use super::Flows;
use super::connection::Found;
use super::egress::Egress;
use super::family::Ip;
use super::new_flow::Planned;
use super::onward::translated;
use super::persistence::Remembered;
use super::services::Services;
use crate::calls::CallId;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::packet::checksum::Delta;
use crate::packet::wire::{UDP, UDP_LEN};
use crate::port::Port;
use crate::rewrite::Translation;
use crate::snapshot::ServiceKey;
use crate::stats::{add, count_bytes};
use conntrack::{Direction, State, Tuple};

const NAME: &[u8] = b"call-id";
const COMPACT_NAME: u8 = b'i';

/// The call of a UDP packet's SIP message.
pub(super) fn call_of<F: Ip>(frame: &[u8], packet: &Packet<F>) -> Option<CallId> {
    if packet.tuple.protocol != UDP {
        return None;
    }
    let message = frame.get(packet.l4() + UDP_LEN..packet.end())?;
    call_id(message).and_then(CallId::new)
}

/// The Call-ID of a SIP message: of the first header line of that name, which alone counts.
fn call_id(message: &[u8]) -> Option<&[u8]> {
    let mut rest = message;
    loop {
        let end = rest.iter().position(|byte| is_newline(*byte))?;
        rest = after_newline(&rest[end..]);
        if let Some(behind) = behind_name(rest) {
            let value = skip_blanks(skip_blanks(behind)?.strip_prefix(b":")?)?;
            let len = word_and_host(value)?;
            // The line ends behind it.
            return is_newline(*value.get(len)?).then_some(&value[..len]);
        }
    }
}

/// What follows the header's name at the beginning of a line. The short name is not the beginning of another one.
fn behind_name(line: &[u8]) -> Option<&[u8]> {
    if let Some((name, behind)) = line.split_at_checked(NAME.len())
        && name.eq_ignore_ascii_case(NAME)
    {
        return Some(behind);
    }
    match line {
        [name, behind @ ..] if name.eq_ignore_ascii_case(&COMPACT_NAME) => {
            let next = behind.first()?;
            (!next.is_ascii_alphabetic()).then_some(behind)
        }
        _ => None,
    }
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

fn after_newline(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\r\n").unwrap_or(&text[1..])
}

/// Without blanks at the beginning, those of a folded line included. `None` where the header ends.
fn skip_blanks(text: &[u8]) -> Option<&[u8]> {
    let text = without_blanks(text);
    if !is_newline(*text.first()?) {
        return Some(text);
    }
    let next = after_newline(text);
    let folded = without_blanks(next);
    (folded.len() < next.len() && !folded.is_empty()).then_some(folded)
}

/// Without the spaces and tabs at the beginning.
fn without_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
    &text[blanks.count()..]
}

/// The length of `word [ "@" word ]` at the beginning.
fn word_and_host(text: &[u8]) -> Option<usize> {
    let word = word_len(text);
    if word == 0 || text.get(word) != Some(&b'@') {
        return (word > 0).then_some(word);
    }
    let host = word_len(&text[word + 1..]);
    (host > 0).then_some(word + 1 + host)
}

fn word_len(text: &[u8]) -> usize {
    let is_word =
        |byte: &&u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~()<>:\\\"/[]?{}".contains(byte);
    text.iter().take_while(is_word).count()
}

impl<F: Ip> Flows<F> {
    /// A message of a NAT server of a service that looks into SIP goes out in the service's name, and its call stays with
    /// the server. Gives the frame back where it is none.
    ///
    /// Differs from IPVS: there, one client socket may have a connection with each of several servers that spoke to it.
    /// Here it has the first one, and the others' messages go out without.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_new_conn_out`).
    #[cold]
    pub(super) fn server_speaks<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
    ) -> Result<(), Frame> {
        let tuple = &packet.tuple;
        let end = ServiceKey {
            protocol: tuple.protocol,
            address: tuple.source.into(),
            port: tuple.source_port,
        };
        let Some((asked, server)) = services.speaker(&end) else {
            return Err(frame);
        };
        let Some(call) = call_of(frame.bytes(), packet) else {
            return Err(frame);
        };
        let Some(virtual_address) = F::from_ip(asked.key.address) else {
            return Err(frame);
        };
        let asks = Tuple {
            source: tuple.destination,
            source_port: tuple.destination_port,
            destination: virtual_address,
            destination_port: asked.key.port,
            protocol: tuple.protocol,
        };
        let remembered = self.remember_speaker(services, egress, &asks, &asked, &call, server);
        let found = match remembered {
            Ok(remembered) if asked.one_packet => {
                self.speak_alone(egress, frame, packet, &asks, &remembered);
                return Ok(());
            }
            // As the client's packet would have made it.
            Ok(remembered) => {
                let plan = Planned {
                    service: asked.id,
                    port: tuple.source_port,
                    server: remembered.server,
                    template: Some(remembered.template),
                    is_remembered: !remembered.is_new,
                };
                let timeout = egress.snapshot.timeouts.of(State::Udp);
                let found = self.connect(services, egress, &asks, &plan, State::Udp, timeout);
                let found = found.map(|made| made.found().id);
                if found.is_ok_and(|id| self.table.entry(id).server() != server.0) {
                    // The client's socket talks to another server: there is one connection for both.
                    self.speak_alone(egress, frame, packet, &asks, &remembered);
                    return Ok(());
                }
                found
            }
            Err(reason) => Err(reason),
        };
        match found {
            Ok(id) => {
                let direction = Direction::Reply;
                self.forward(services, egress, frame, packet, Found { id, direction });
            }
            Err(reason) => egress.drop(frame, reason),
        }
        Ok(())
    }

    /// Sends one message on without a connection.
    fn speak_alone<P: Port>(
        &self,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
        asks: &Tuple<F>,
        remembered: &Remembered,
    ) {
        let server = remembered.server.id;
        let hop = match egress.hop_towards(asks.source.into()) {
            Ok(hop) => hop,
            Err(reason) => return egress.drop(frame, reason),
        };
        add(&egress.stats.connections, 1);
        if let Some(stats) = egress.stats.server(server) {
            add(&stats.connections, 1);
        }
        let len = packet.end - u32::from(packet.l3);
        count_bytes(&egress.stats, server, Direction::Reply, len);
        self.assure_template(egress.now, remembered.template);
        let from = (packet.tuple.source, packet.tuple.source_port);
        let request = Translation::new(asks, None, Some(from));
        let Delta(ip_delta) = request.ip_delta;
        let Delta(l4_delta) = request.l4_delta;
        let reply = Translation {
            source: Some((asks.destination, asks.destination_port)),
            destination: None,
            ip_delta: Delta(ip_delta).negated(),
            l4_delta: Delta(l4_delta).negated(),
        };
        translated(egress, frame, packet, hop, None, &reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel does with such messages, observed: the Call-ID that it keeps, or a drop.
    #[test]
    fn messages_are_read_as_the_kernel_reads_them() {
        let cases: [(&[u8], Option<&[u8]>); 15] = [
            (
                b"INVITE sip:a@x SIP/2.0\r\nCall-ID: one@x\r\n\r\n",
                Some(b"one@x"),
            ),
            (
                b"INVITE sip:a@x SIP/2.0\r\ni: one@x\r\n\r\n",
                Some(b"one@x"),
            ),
            (
                b"INVITE sip:a@x SIP/2.0\ncall-id : one@x\n\n",
                Some(b"one@x"),
            ),
            (
                b"INVITE sip:a@x SIP/2.0\r\nCALL-ID:\tone@x\r\n\r\n",
                Some(b"one@x"),
            ),
            (b"INVITE sip:a@x SIP/2.0\r\nCall-ID: one@\r\n\r\n", None),
            (
                b"INVITE sip:a@x SIP/2.0\r\nCall-ID: one@x extra\r\n\r\n",
                None,
            ),
            (b"INVITE sip:a@x SIP/2.0\r\nCall-ID: one@x", None),
            (b"Call-ID: one@x\r\n\r\n", None),
            (
                b"INVITE sip:a@x SIP/2.0\r\nCall-ID: nodomain\r\n\r\n",
                Some(b"nodomain"),
            ),
            (
                b"INVITE x\r\nInfo: z\r\n Call-ID: folded@x\r\nCall-ID: \r\nCall-ID: two@x\r\n\r\n",
                None,
            ),
            (
                b"INVITE sip:a@x SIP/2.0\r\n\r\nCall-ID: body@x\r\n",
                Some(b"body@x"),
            ),
            (b"INVITE sip:a@x SIP/2.0\r\nCall-ID: #bad@x\r\n\r\n", None),
            (b"INVITE sip:a@x SIP/2.0\r\nCall-ID: a@b@c\r\n\r\n", None),
            (
                b"INVITE x\r\nCall-IDx: z@x\r\nCall-ID  :   sp@x\r\n\r\n",
                None,
            ),
            (
                b"INVITE x\r\nCall-ID:\r\n  folded@x\r\n\r\n",
                Some(b"folded@x"),
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(call_id(message), expected, "{}", message.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just(b"\r\nCall-ID".to_vec()), Just(b"\n".to_vec()), Just(b": ".to_vec()), Just(b"i".to_vec()),
                    Just(b"@".to_vec()), proptest::collection::vec(any::<u8>(), 0..4),
                ],
                0..12,
            )
        ) {
            let message = parts.concat();
            if let Some(found) = call_id(&message) {
                prop_assert!(!found.is_empty());
                prop_assert!(message.windows(found.len()).any(|window| window == found));
            }
        }
    }
}
