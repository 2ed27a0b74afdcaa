//! Files of `/proc/net`, made when the preload library asks for them, and handed over open.

use super::Netlink;
use super::numbers::NAME_LEN;
use super::refusal::Refusal;
use super::wire::Attributes;
use crate::proc::File;
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, memfd_create};
use std::io::{BufWriter, Seek, Write};

/// The attribute with the file's name.
const NAME: u16 = 1;

/// The file that the attributes name.
pub(super) fn named(attributes: Attributes<'_>) -> Result<File, Refusal> {
    let name = attributes.name(NAME, NAME_LEN)?;
    let name = name.ok_or(Refusal::Missing("name of a file"))?;
    File::named(name).ok_or_else(|| Refusal::Unknown(name.to_owned()))
}

/// Makes a file.
pub(super) fn open(netlink: &Netlink, file: File) -> Result<OwnedFd, Refusal> {
    let memory = memfd_create("ip_vs", MemfdFlags::CLOEXEC).map_err(|_| Refusal::NoMemory)?;
    let mut out = BufWriter::new(std::fs::File::from(memory));
    let written = file.write(netlink.manager.director(), &mut out);
    let rewound = written.and_then(|()| out.flush()).and_then(|()| {
        out.get_mut().rewind()?;
        Ok(())
    });
    rewound.map_err(|_| Refusal::NoMemory)?;
    let file = out.into_inner().map_err(|_| Refusal::NoMemory)?;
    Ok(file.into())
}
