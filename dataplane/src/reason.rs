//! Why a packet was not forwarded: every drop has a name and a counter.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet was dropped. The text is the counter's name wherever people see it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The counter's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// The frame ends before its Ethernet, IP or transport header does.
    Truncated = "truncated",
    /// The IP header's length field reaches beyond the frame, or is shorter than the headers.
    BadLength = "bad-length",
    /// The version nibble is neither that of the EtherType.
    BadVersion = "bad-version",
    /// The IPv4 header checksum is wrong.
    BadIpChecksum = "bad-ip-checksum",
    /// The checksum of an ICMP message is wrong.
    BadIcmpChecksum = "bad-icmp-checksum",
    /// The checksum of a TCP segment is wrong, on a connection that a helper looks into.
    BadTcpChecksum = "bad-tcp-checksum",
    /// A malformed header: TCP data offset, IPv6 extension chain, ARP or ND contents.
    Malformed = "malformed",
    /// A source address no packet may have: multicast, broadcast or loopback.
    BadSource = "bad-source",
    /// An 802.1Q or 802.1ad tag where none is configured.
    VlanTagged = "vlan-tagged",
    /// A fragment that cannot be matched with a connection: of ICMP to an address of ours, or after a first one that
    /// made none.
    Fragment = "fragment",
    /// A fragment that reaches into the first one of its datagram.
    FragmentOverlap = "fragment-overlap",
    /// The first fragment of its datagram did not come.
    FragmentWaitedTooLong = "fragment-waited-too-long",
    /// Too many fragments wait for the first one of their datagram.
    FragmentQueueFull = "fragment-queue-full",
    /// TTL or hop limit is used up; the sender is told.
    TtlExpired = "ttl-expired",
    /// Larger than the next link takes and must not be fragmented; the sender is told.
    TooBig = "too-big",
    /// For a service, but not a first packet and no connection is known.
    NoConnection = "no-connection",
    /// It would have begun a connection, and its turn had come among those that `drop_packet` drops.
    DropPacket = "drop-packet",
    /// The scheduler found no usable server.
    NoServer = "no-server",
    /// A persistent service's packet from port 0, where its templates are kept.
    NoClientPort = "no-client-port",
    /// A message without a Call-ID for a service that keeps calls together.
    NoCallId = "no-call-id",
    /// There are more calls than can be told apart.
    TooManyCalls = "too-many-calls",
    /// The connection's server was removed.
    ServerGone = "server-gone",
    /// The connection table has no room for a new flow, or another worker is halfway through making the same connection.
    TableFull = "table-full",
    /// Half-open connections fill their share of the table.
    HalfOpenFull = "half-open-full",
    /// The addresses and ports of the server's replies are those of another client's requests (NAT).
    ReplyTupleTaken = "reply-tuple-taken",
    /// No free port on the service's local addresses (FULLNAT).
    LipPortsExhausted = "lip-ports-exhausted",
    /// No route to the destination.
    NoRoute = "no-route",
    /// The queue of packets waiting for a neighbour's MAC is full.
    NeighbourQueueFull = "neighbour-queue-full",
    /// The neighbour did not answer.
    NeighbourUnreachable = "neighbour-unreachable",
    /// The neighbour table has no room.
    NeighbourTableFull = "neighbour-table-full",
    /// The transmit ring refused the frame.
    TransmitFull = "transmit-full",
    /// No room in front of the frame for the tunnel header.
    NoHeadroom = "no-headroom",
    /// An ICMP message that quotes a packet no connection is known for.
    IcmpUnrelated = "icmp-unrelated",
    /// A router's word about a tunnel's packet, which is heeded; but the packet inside may be fragmented, so that its
    /// sender need not know.
    PathMtuLearned = "path-mtu-learned",
    /// An ICMP message of a type a director does not relay.
    IcmpUnsupported = "icmp-unsupported",
    /// More generated ICMP than the rate limit allows.
    IcmpRateLimited = "icmp-rate-limited",
}
