//! Preloaded into a program (`uvs compat`), it brings the program's talk with the kernel's IPVS to uvsd.
//!
//! ```text
//!   sendmsg, sendto, send     a message that asks generic netlink for family "IPVS" ─▶ from then on, the socket is one to uvsd
//!   recvmsg, recvfrom         what comes from uvsd comes from the kernel
//!   fopen, open               /proc/net/ip_vs, ip_vs_stats, ip_vs_conn ─▶ what uvsd tells
//!   getsockopt, setsockopt    IPVS by socket options ─▶ refused
//! ```
//!
//! All other sockets and files, those of netlink included, are as ever. The environment variable `UVS_IPVS` names uvsd's socket;
//! where that cannot be reached, the calls fail, and the kernel's IPVS is never asked.

mod files;
mod next;
mod server;
mod sockets;
