//! Netlink's bytes: taken apart from whoever sent them, and put together.
//!
//! ```text
//!   datagram:   header 16 │ command 1, version 1, 0 0 │ attribute │ attribute │ …     each padded to 4 bytes; native byte order
//!   header:     length 4, type 2, flags 2, sequence 4, port 4
//!   attribute:  length 2, type 2, value
//! ```

use super::numbers::message;
use super::refusal::Refusal;

/// The bits of an attribute's type that are no part of it: nested, network byte order.
const TYPE_MASK: u16 = 0x3fff;

/// `struct nlmsghdr`, without the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) port: u32,
}

/// A message of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'d> {
    pub(super) header: Header,
    /// All of it, as errors repeat it.
    pub(super) whole: &'d [u8],
}

impl<'d> Message<'d> {
    /// What follows the header.
    pub(super) fn payload(&self) -> &'d [u8] {
        &self.whole[message::HEADER_LEN..]
    }
}

/// The messages of a datagram, up to the first that is none.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.get(..message::HEADER_LEN)?;
        let len = usize::try_from(u32_at(header, 0)).ok()?;
        let whole = rest.get(..len).filter(|_| len >= message::HEADER_LEN)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            header: Header {
                kind: u16_at(header, 4),
                flags: u16_at(header, 6),
                sequence: u32_at(header, 8),
                port: u32_at(header, 12),
            },
            whole,
        })
    })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The attributes of a message or of an attribute. Unknown ones are as good as absent; of several of a type the last counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'d>(&'d [u8]);

impl<'d> Attributes<'d> {
    /// # Errors
    /// When the bytes are no attributes.
    pub(super) fn parse(bytes: &'d [u8]) -> Result<Attributes<'d>, Refusal> {
        let attributes = Attributes(bytes);
        let used: usize = attributes
            .each()
            .map(|(_, value)| (value.len() + 4).next_multiple_of(4))
            .sum();
        // Less than an attribute's header may be left over: padding.
        if bytes.len().saturating_sub(used) >= 4 {
            return Err(Refusal::Malformed);
        }
        Ok(attributes)
    }

    fn each(self) -> impl Iterator<Item = (u16, &'d [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let header = rest.get(..4)?;
            let len = usize::from(u16_at(header, 0));
            let value = rest.get(4..len)?;
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            Some((u16_at(header, 2) & TYPE_MASK, value))
        })
    }

    pub(super) fn bytes(self, kind: u16) -> Option<&'d [u8]> {
        let found = self.each().filter(|(of, _)| *of == kind).last();
        found.map(|(_, value)| value)
    }

    /// # Errors
    /// When it is there and no attributes.
    pub(super) fn nested(self, kind: u16) -> Result<Option<Attributes<'d>>, Refusal> {
        self.bytes(kind).map(Attributes::parse).transpose()
    }

    fn array<const N: usize>(self, kind: u16) -> Result<Option<[u8; N]>, Refusal> {
        // A longer value is taken for its beginning, as in the kernel.
        let array = |bytes: &[u8]| bytes.first_chunk().copied().ok_or(Refusal::Short(kind));
        self.bytes(kind).map(array).transpose()
    }

    pub(super) fn u8(self, kind: u16) -> Result<Option<u8>, Refusal> {
        Ok(self.array::<1>(kind)?.map(|[byte]| byte))
    }

    pub(super) fn u16(self, kind: u16) -> Result<Option<u16>, Refusal> {
        Ok(self.array(kind)?.map(u16::from_ne_bytes))
    }

    /// Network byte order.
    pub(super) fn port(self, kind: u16) -> Result<Option<u16>, Refusal> {
        Ok(self.array(kind)?.map(u16::from_be_bytes))
    }

    pub(super) fn u32(self, kind: u16) -> Result<Option<u32>, Refusal> {
        Ok(self.array(kind)?.map(u32::from_ne_bytes))
    }

    pub(super) fn address<const N: usize>(self, kind: u16) -> Result<Option<[u8; N]>, Refusal> {
        self.array(kind)
    }

    /// A name of at most `limit` bytes, up to its NUL.
    pub(super) fn name(self, kind: u16, limit: usize) -> Result<Option<&'d str>, Refusal> {
        let name = |bytes: &'d [u8]| {
            let end = bytes.iter().position(|byte| *byte == 0);
            let name = &bytes[..end.unwrap_or(bytes.len())];
            if name.len() > limit {
                return Err(Refusal::Short(kind));
            }
            std::str::from_utf8(name).map_err(|_| Refusal::Malformed)
        };
        self.bytes(kind).map(name).transpose()
    }
}

/// Datagrams that are being put together, each of as many messages as fit.
#[derive(Debug, Default)]
pub(super) struct Writer {
    done: Vec<Vec<u8>>,
    current: Vec<u8>,
}

/// Bytes of a datagram, beyond which another one is begun: what a client surely has room for.
const DATAGRAM: usize = 8192;

impl Writer {
    /// Adds a message; `fill` writes what follows its header.
    pub(super) fn message(&mut self, header: Header, fill: impl FnOnce(&mut Body<'_>)) {
        if self.current.len() > DATAGRAM {
            self.done.push(std::mem::take(&mut self.current));
        }
        let start = self.current.len();
        self.current.extend_from_slice(&[0; 4]);
        self.current.extend_from_slice(&header.kind.to_ne_bytes());
        self.current.extend_from_slice(&header.flags.to_ne_bytes());
        self.current
            .extend_from_slice(&header.sequence.to_ne_bytes());
        self.current.extend_from_slice(&header.port.to_ne_bytes());
        fill(&mut Body(&mut self.current));
        let len = u32::try_from(self.current.len() - start).expect("messages are short");
        self.current[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        self.current
            .resize(self.current.len().next_multiple_of(4), 0);
    }

    /// What comes from here on is in another datagram.
    pub(super) fn cut(&mut self) {
        if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    pub(super) fn finish(mut self) -> Vec<Vec<u8>> {
        self.cut();
        self.done
    }
}

/// What follows a header.
pub(super) struct Body<'w>(&'w mut Vec<u8>);

impl Body<'_> {
    /// Bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// `struct genlmsghdr`.
    pub(super) fn command(&mut self, command: u8, version: u8) {
        self.raw(&[command, version, 0, 0]);
    }

    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).expect("attributes are short");
        self.raw(&len.to_ne_bytes());
        self.raw(&kind.to_ne_bytes());
        self.raw(value);
        self.pad();
    }

    pub(super) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    pub(super) fn u16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Network byte order.
    pub(super) fn port(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    pub(super) fn u64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// A string with its NUL.
    pub(super) fn name(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Body<'_>)) {
        let start = self.0.len();
        self.raw(&[0; 2]);
        // Without the bit that says so, as the kernel's IPVS.
        self.raw(&kind.to_ne_bytes());
        fill(&mut Body(self.0));
        let len = u16::try_from(self.0.len() - start).expect("attributes are short");
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}
