//! What FTP commands and replies say about data connections. Pure functions over a segment's payload.
//!
//! As tolerant, and as strict, as the kernel: a reply counts only at the start of a segment and whole inside it, names
//! are compared without case, numbers wrap around.
//!
//! Source: RFC 959 §4.1.2, RFC 2428; observed, `tests/scenario/recorded/ftp-*.json`; Linux
//! net/netfilter/ipvs/ip_vs_ftp.c.

use arrayvec::ArrayVec;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Bytes of the longest text that an address is replaced by: six numbers of three digits and their commas.
pub const TEXT: usize = 23;

/// An address and port that a peer named, and where in the payload it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The address; `None` where the text leaves it out.
    pub address: Option<IpAddr>,
    /// Host byte order.
    pub port: u16,
    /// The bytes that name it.
    pub at: Range<usize>,
}

/// What a client's segment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// PASV: the server is to listen and say where.
    Passive,
    /// EPSV: likewise, in the extended form.
    Extended,
    /// PORT or EPRT: the server is to connect there.
    Active(Named),
}

/// How a reply names an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `h1,h2,h3,h4,p1,p2`, after PASV.
    Plain,
    /// `|protocol|address|port|`, after EPSV.
    Extended,
}

/// The command in a client's segment, of a connection over IPv6 or IPv4.
#[must_use]
pub fn command(payload: &[u8], ipv6: bool) -> Option<Command> {
    if let Some(outcome) = passive(payload, ipv6) {
        return outcome;
    }
    let plain = if ipv6 {
        None
    } else {
        plain(payload, b"PORT", b' ')
    };
    plain
        .or_else(|| extended(payload, b"EPRT", b' ', ipv6, false))
        .map(Command::Active)
}

/// The address in a server's reply, of the form that was asked for.
#[must_use]
pub fn reply(payload: &[u8], form: Form, ipv6: bool) -> Option<Named> {
    match form {
        Form::Plain if ipv6 => None,
        Form::Plain => plain(payload, b"227 ", b'('),
        Form::Extended => extended(payload, b"229 ", b'(', ipv6, true),
    }
}

/// What stands in a reply for an address and port that clients can reach.
#[must_use]
pub fn text(form: Form, address: IpAddr, port: u16) -> ArrayVec<u8, TEXT> {
    let mut text = ArrayVec::new();
    match (form, address) {
        (Form::Plain, IpAddr::V4(address)) => {
            let [high, low] = port.to_be_bytes();
            for number in address.octets().into_iter().chain([high]) {
                push_number(&mut text, number.into());
                text.push(b',');
            }
            push_number(&mut text, low.into());
        }
        _ => {
            text.extend(*b"|||");
            push_number(&mut text, port);
            text.push(b'|');
        }
    }
    text
}

fn push_number(text: &mut ArrayVec<u8, TEXT>, number: u16) {
    let mut digits: ArrayVec<u8, 5> = ArrayVec::new();
    let mut rest = number;
    loop {
        digits.push(b'0' + u8::try_from(rest % 10).unwrap_or(0));
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend(digits.into_iter().rev());
}

/// PASV or EPSV, anywhere in the segment; `Some(None)` for an EPSV that settles that there is no command.
fn passive(payload: &[u8], ipv6: bool) -> Option<Option<Command>> {
    for rest in (0..payload.len()).map(|at| &payload[at..]) {
        if rest.len() < 6 {
            return None;
        }
        if !ipv6 && begins(rest, b"PASV\r\n") {
            return Some(Some(Command::Passive));
        }
        if !begins(rest, b"EPSV") {
            continue;
        }
        match rest[4] {
            b'\r' => return Some(Some(Command::Extended)),
            b' ' => {
                let family = if ipv6 { b'2' } else { b'1' };
                let ours = rest.get(5..7) == Some(&[family, b'\r']);
                return Some(ours.then_some(Command::Extended));
            }
            _ => {}
        }
    }
    None
}

fn begins(bytes: &[u8], pattern: &[u8]) -> bool {
    bytes
        .get(..pattern.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(pattern))
}

/// Where the address begins: behind `pattern` and `skip`s; or at the first digit, unless `only_skip`.
fn start(payload: &[u8], pattern: &[u8], skip: u8, only_skip: bool) -> Option<usize> {
    if !begins(payload, pattern) {
        return None;
    }
    let rest = &payload[pattern.len()..];
    let first = rest
        .iter()
        .position(|byte| *byte == skip || !only_skip && byte.is_ascii_digit())?;
    let skipped = rest[first..].iter().position(|byte| *byte != skip)?;
    Some(pattern.len() + first + skipped)
}

/// Six numbers, and whatever ends them.
fn plain(payload: &[u8], pattern: &[u8], skip: u8) -> Option<Named> {
    let start = start(payload, pattern, skip, false)?;
    let mut numbers = [0_u8; 6];
    let mut place = 0;
    for (at, &byte) in payload.iter().enumerate().skip(start) {
        match byte {
            b'0'..=b'9' => {
                numbers[place] = numbers[place].wrapping_mul(10).wrapping_add(byte - b'0');
            }
            b',' if place < 5 => place += 1,
            _ if place == 5 => {
                let [a, b, c, d, high, low] = numbers;
                return Some(Named {
                    address: Some(Ipv4Addr::new(a, b, c, d).into()),
                    port: u16::from_be_bytes([high, low]),
                    at: start..at,
                });
            }
            _ => return None,
        }
    }
    None
}

/// `|1|address|port|`, or `|||port|` where the address may be missing.
fn extended(
    payload: &[u8],
    pattern: &[u8],
    skip: u8,
    ipv6: bool,
    may_be_missing: bool,
) -> Option<Named> {
    let start = start(payload, pattern, skip, true)?;
    let delimiter = *payload.get(start)?;
    if !(33..=126).contains(&delimiter) {
        return None;
    }
    let mut rest = &payload[start + 1..];
    let mut address = None;
    if *rest.first()? == delimiter {
        if !may_be_missing || *rest.get(1)? != delimiter {
            return None;
        }
        rest = &rest[2..];
    } else {
        let family = if ipv6 { b'2' } else { b'1' };
        if rest.get(..2)? != [family, delimiter] {
            return None;
        }
        let (read, len) = read_address(&rest[2..], delimiter, ipv6)?;
        address = Some(read);
        rest = &rest[2 + len + 1..];
    }
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let port = rest[..digits].iter().fold(0_u16, |port, digit| {
        port.wrapping_mul(10).wrapping_add(u16::from(digit - b'0'))
    });
    if port == 0 || rest[digits] != delimiter {
        return None;
    }
    let end = payload.len() - rest.len() + digits + 1;
    Some(Named {
        address,
        port,
        at: start..end,
    })
}

/// An address up to the delimiter, and its length.
fn read_address(bytes: &[u8], delimiter: u8, ipv6: bool) -> Option<(IpAddr, usize)> {
    let len = bytes.iter().position(|byte| *byte == delimiter)?;
    let bytes = &bytes[..len];
    let address = if ipv6 {
        let text = std::str::from_utf8(bytes).ok()?;
        IpAddr::V6(text.parse::<Ipv6Addr>().ok()?)
    } else {
        IpAddr::V4(read_ipv4(bytes)?)
    };
    Some((address, len))
}

/// Four numbers, with as many zeros in front as anybody likes.
fn read_ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = bytes.split(|byte| *byte == b'.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| !part.is_empty())?;
        *octet = part.iter().try_fold(0_u8, |number, digit| {
            let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
            number.checked_mul(10)?.checked_add(digit)
        })?;
    }
    parts.next().is_none().then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(address: Option<&str>, port: u16, at: Range<usize>) -> Option<Named> {
        Some(Named {
            address: address.map(|text| text.parse().unwrap()),
            port,
            at,
        })
    }

    #[test]
    fn passive_commands_are_the_kernels() {
        for (text, expected) in [
            ("PASV\r\n", Some(Command::Passive)),
            ("pasv\r\n", Some(Command::Passive)),
            ("NOOP\r\nPASV\r\n", Some(Command::Passive)),
            ("XPASV\r\n", Some(Command::Passive)),
            ("PASV\n", None),
            ("PASV \r\n", None),
            ("PASV\r", None),
            ("EPSV\r\n", Some(Command::Extended)),
            ("epsv 1\r\n", Some(Command::Extended)),
            ("EPSV\r\nPASV\r\n", Some(Command::Extended)),
            ("EPSV 2\r\n", None),
            ("EPSV ALL\r\n", None),
            ("EPSV 1", None),
            ("EPSV\n", None),
            ("", None),
        ] {
            assert_eq!(command(text.as_bytes(), false), expected, "{text:?}");
        }
        assert_eq!(command(b"PASV\r\n", true), None);
        assert_eq!(command(b"EPSV 2\r\n", true), Some(Command::Extended));
        assert_eq!(command(b"EPSV 1\r\n", true), None);
    }

    #[test]
    fn active_commands_are_the_kernels() {
        let v4 = Some("10.64.0.7");
        for (text, expected) in [
            ("PORT 10,64,0,7,160,1\r\n", named(v4, 40961, 5..20)),
            ("port  10,64,0,7,160,1\n", named(v4, 40961, 6..21)),
            ("PORT10,64,0,7,160,1)", named(v4, 40961, 4..19)),
            ("PORT 10,64,0,7,0,0\r\n", named(v4, 0, 5..18)),
            ("PORT 10,64,0,7,160,1", None),
            ("NOOP\r\nPORT 10,64,0,7,160,1\r\n", None),
            ("PORT 10,64,0,7,160\r\n", None),
            ("EPRT |1|10.64.0.7|41008|\r\n", named(v4, 41008, 5..24)),
            ("eprt !1!010.64.00.7!41009!", named(v4, 41009, 5..26)),
            ("EPRT |1|10.64.0|41008|\r\n", None),
            ("EPRT |1|10.64.0.7.1|41008|\r\n", None),
            ("EPRT |1|10.64.0.256|41008|\r\n", None),
            ("EPRT |2|10.64.0.7|41008|\r\n", None),
            ("EPRT |1|10.64.0.7|41008\r\n", None),
            ("EPRT |||41008|\r\n", None),
            ("EPRT 11110.64.0.7141020\r\n", None),
        ] {
            let expected = expected.map(Command::Active);
            assert_eq!(command(text.as_bytes(), false), expected, "{text:?}");
        }
        let v6 = command(b"EPRT |2|fd00:64::7|41003|\r\n", true);
        let expected = named(Some("fd00:64::7"), 41003, 5..25);
        assert_eq!(v6, expected.map(Command::Active));
        assert_eq!(command(b"EPRT |1|10.64.0.7|41008|\r\n", true), None);
        assert_eq!(command(b"PORT 10,64,0,7,160,1\r\n", true), None);
    }

    #[test]
    fn replies_are_the_kernels() {
        let v4 = Some("10.2.0.11");
        for (text, expected) in [
            ("227 Mode (10,2,0,11,200,10)\r\n", named(v4, 51210, 10..26)),
            ("227 Mode ((10,2,0,11,200,10)", named(v4, 51210, 11..27)),
            ("227 =10,2,0,11,300,32\r\n", named(v4, 11296, 5..21)),
            ("227 (010,002,000,011,,35)", named(v4, 35, 5..24)),
            ("227 (10,2,0,11,200,34,7)", named(v4, 51234, 5..21)),
            ("227 Mode 9 (10,2,0,11,200,10)", None),
            ("227 (10, 2,0,11,200,10)", None),
            ("227 (10,2,0,11,200,10", None),
            ("227-Mode (10,2,0,11,200,10)", None),
            ("200 ok\r\n227 (10,2,0,11,200,10)", None),
            ("227 ", None),
            ("22", None),
        ] {
            assert_eq!(
                reply(text.as_bytes(), Form::Plain, false),
                expected,
                "{text:?}"
            );
        }
        for (text, expected) in [
            ("229 Ext (|||52001|)\r\n", named(None, 52001, 9..18)),
            ("229 Ext (!!!052002!)\r\n", named(None, 52002, 9..19)),
            ("229 (|1|10.2.0.11|52003|)", named(v4, 52003, 5..24)),
            ("229 (|||117552|)", named(None, 52016, 5..15)),
            ("229 |||52007|\r\n", None),
            ("229 (||| 52008|)", None),
            ("229 (|||0|)", None),
            ("229 (||52008|)", None),
            ("229 (|||52012\r\n", None),
            ("229 (|2|fd00::1|52010|)", None),
            ("229 (", None),
        ] {
            assert_eq!(
                reply(text.as_bytes(), Form::Extended, false),
                expected,
                "{text:?}"
            );
        }
        assert_eq!(reply(b"227 (10,2,0,11,200,10)", Form::Plain, true), None);
        assert_eq!(
            reply(b"229 (|2|fd00::1|52010|)", Form::Extended, true),
            named(Some("fd00::1"), 52010, 5..22)
        );
    }

    #[test]
    fn the_longest_text_has_room() {
        let longest = text(Form::Plain, "255.255.255.255".parse().unwrap(), 65535);
        assert_eq!(longest.as_slice(), b"255,255,255,255,255,255");
        let short = text(Form::Plain, "10.0.0.100".parse().unwrap(), 0x0102);
        assert_eq!(short.as_slice(), b"10,0,0,100,1,2");
        let extended = text(Form::Extended, "fd00::1".parse().unwrap(), 65535);
        assert_eq!(extended.as_slice(), b"|||65535|");
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_nothing_panics_and_names_lie_inside(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..80),
                "(PORT|EPRT|PASV|EPSV|227 |229 )[ (|,.:0-9\r\n]{0,60}".prop_map(String::into_bytes),
            ],
            ipv6 in any::<bool>(),
        ) {
            let names = [
                reply(&bytes, Form::Plain, ipv6),
                reply(&bytes, Form::Extended, ipv6),
                match command(&bytes, ipv6) {
                    Some(Command::Active(named)) => Some(named),
                    _ => None,
                },
            ];
            for named in names.into_iter().flatten() {
                prop_assert!(named.at.start < named.at.end && named.at.end <= bytes.len());
                prop_assert!(named.address.is_none_or(|address| address.is_ipv6() == ipv6));
            }
        }

        #[test]
        fn what_is_written_is_read(a in any::<[u8; 4]>(), port in 1_u16.., form in prop_oneof![Just(Form::Plain), Just(Form::Extended)]) {
            let code = if form == Form::Plain { "227 (" } else { "229 (" };
            let bytes = [code.as_bytes(), &text(form, a.into(), port), b")"].concat();
            let named = reply(&bytes, form, false).unwrap();
            prop_assert_eq!(named.port, port);
            prop_assert_eq!(named.address, (form == Form::Plain).then(|| a.into()));
            prop_assert_eq!(named.at, 5..bytes.len() - 1);
        }
    }
}
