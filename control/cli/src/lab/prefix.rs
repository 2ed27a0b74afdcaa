//! An address with the length of its network's prefix, as in `10.0.0.1/24`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and its prefix length in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address, host bits and all.
    pub address: IpAddr,
    /// How many leading bits name the network: at most 32 or 128.
    pub len: u8,
}

impl Prefix {
    /// The address alone: /32 or /128.
    #[must_use]
    pub fn host(address: IpAddr) -> Prefix {
        Prefix {
            address,
            len: if address.is_ipv4() { 32 } else { 128 },
        }
    }
}

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an address with a prefix length; accepted: 10.0.0.1/24, fd00::1/64")]
pub struct PrefixError(String);

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Prefix, PrefixError> {
        let parse = || {
            let (address, len) = text.split_once('/')?;
            let prefix = Prefix {
                address: address.parse().ok()?,
                len: len.parse().ok()?,
            };
            (prefix.len <= Prefix::host(prefix.address).len).then_some(prefix)
        };
        parse().ok_or_else(|| PrefixError(text.to_owned()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_parsed_again() {
        for text in [
            "10.0.0.1/24",
            "0.0.0.0/0",
            "fd00::1/64",
            "::/0",
            "10.0.0.1/32",
            "fd00::1/128",
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_length_beyond_the_address_is_refused() {
        for text in [
            "10.0.0.1/33",
            "fd00::1/129",
            "10.0.0.1",
            "/24",
            "10.0.0.1/",
            "10.0.0.1/-1",
            "a/24",
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError(text.to_owned())));
        }
    }
}
