//! How packets reach a real server.

/// The forwarding method of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// Destination rewritten (masquerading); replies come back through the director.
    Nat,
    /// Direct routing: only the MAC changes; replies go straight to the client.
    Dr,
    /// IP tunnel to the real server; replies go straight to the client.
    Tun,
    /// Both addresses rewritten: the real server sees a local address of the director (LIP).
    FullNat,
    /// The director itself serves.
    Local,
}

impl Method {
    const ALL: [Method; 5] = [
        Method::Nat,
        Method::Dr,
        Method::Tun,
        Method::FullNat,
        Method::Local,
    ];

    /// Whether replies pass the director, so that the connection stands in the table under two keys.
    #[inline]
    #[must_use]
    pub const fn sees_replies(self) -> bool {
        matches!(self, Method::Nat | Method::FullNat)
    }

    /// Whether the byte is a method's.
    #[cfg(not(loom))]
    pub(crate) fn is_byte(byte: u8) -> bool {
        usize::from(byte) < Method::ALL.len()
    }

    #[inline]
    pub(crate) fn from_byte(byte: u8) -> Method {
        METHOD_OF[usize::from(byte)]
    }
}

/// The methods by their numbers; no entry has a byte beyond.
static METHOD_OF: [Method; 256] = {
    let mut methods = [Method::Local; 256];
    let mut number = 0;
    while number < Method::ALL.len() {
        methods[number] = Method::ALL[number];
        number += 1;
    }
    methods
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_survives_its_byte() {
        for method in Method::ALL {
            assert_eq!(Method::from_byte(method as u8), method);
        }
    }
}
