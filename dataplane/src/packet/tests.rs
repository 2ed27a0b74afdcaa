//! Tests of the packet layer.

mod checksums;
mod icmp;
mod neighbours;
mod parsing;
