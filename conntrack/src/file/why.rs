//! Why a file cannot be used, or what is in it.

use std::io;

/// Why there is no file to lay the tables in.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Somebody has it open.
    #[error("another uvsd has it; accepted: stop that one, or another path")]
    Taken,
    /// It is on a disk, or elsewhere.
    #[error(
        "it would not lie in memory; accepted: a path on tmpfs (such as /dev/shm/uvs/table) or on hugetlbfs"
    )]
    NotInMemory,
    /// It is a folder, a device or the like.
    #[error("no regular file is there; accepted: a path where none or a table is")]
    NotAFile,
    /// Somebody else's, who could write what he likes.
    #[error(
        "it belongs to user {owner}, uvsd runs as {user}; accepted: a file of its own, or none"
    )]
    Owner {
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// The file system is full.
    #[error(
        "no room: it takes {} MiB; accepted: fewer connections, or a larger file system (more huge pages where it is on \
         hugetlbfs)", needed.div_ceil(1 << 20)
    )]
    NoRoom {
        /// Bytes of the file.
        needed: u64,
    },
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why what was found in a file is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Some other program's, or one that was never finished.
    #[error("it is not a table of uvs")]
    Foreign,
    /// Another uvsd's.
    #[error("its format is {found}, this uvsd's is {ours}")]
    Version {
        /// Its format.
        found: u64,
        /// The one this code knows.
        ours: u64,
    },
    /// Its header was damaged.
    #[error("its header is damaged")]
    Torn,
    /// Another machine's, or one of before the last boot.
    #[error("it is of another boot of the machine")]
    Boot,
    /// The configuration is another one.
    #[error("it has room for {found} connections, configured are {wanted}")]
    Capacity {
        /// What it has room for.
        found: u64,
        /// What is configured.
        wanted: u64,
    },
    /// The configuration is another one.
    #[error("its directory of servers has another size: director.servers was another")]
    Directory,
    /// Its parts are of another size.
    #[error("its length or its parts do not fit")]
    Length,
    /// Made with another hash function.
    #[error("its keys were hashed in another way")]
    Hash,
    /// Others could have read the seeds, or written.
    #[error("others than its owner may use it")]
    Mode,
    /// What control wrote there.
    #[error("its directory of servers is damaged")]
    Servers,
}
