//! Opening a file: whose it is, where it lies, who else has it.

use super::header::{
    HEADER_WORDS, MAGIC, VERSION, WORD_CAPACITY, WORD_DIRECTORY, WORD_MAGIC, WORD_VERSION,
};
use super::{FileConfig, FileError, Mismatch, PAGE};
use crate::memory::Slab;
use crate::shared::{FileSystem, SharedMemory, user};
use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Owner alone: whoever knows the seeds can aim flows at one bucket.
pub(super) const MODE: u32 = 0o600;

/// Opens the file, and keeps others out.
pub(super) fn locked(path: &Path) -> Result<File, FileError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file = match file {
        Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {
            return Err(FileError::NotAFile);
        }
        file => file?,
    };
    let told = file.metadata()?;
    if !told.is_file() {
        return Err(FileError::NotAFile);
    }
    if told.uid() != user() {
        return Err(FileError::Owner {
            owner: told.uid(),
            user: user(),
        });
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(FileError::Taken),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    if FileSystem::of(&file)? == FileSystem::Other {
        if told.len() == 0 {
            let _ = fs::remove_file(path);
        }
        return Err(FileError::NotInMemory);
    }
    Ok(file)
}

/// Why a file is as long as it is: the header tells, if it has one.
pub(super) fn length_mismatch(file: &File, config: &FileConfig, len: u64) -> io::Result<Mismatch> {
    if len < PAGE {
        return Ok(Mismatch::Foreign);
    }
    // The first page alone; on hugetlbfs that is a large one, which is there already.
    let page = FileSystem::of(file)?.page().min(len);
    let memory = Arc::new(SharedMemory::map(file, page, &[])?);
    let header = Slab::<AtomicU64>::within(&memory, 0, HEADER_WORDS)?;
    let word = |word: usize| header[word].load(Relaxed);
    Ok(if word(WORD_MAGIC) != MAGIC {
        Mismatch::Foreign
    } else if word(WORD_VERSION) != VERSION {
        Mismatch::Version {
            found: word(WORD_VERSION),
            ours: VERSION,
        }
    } else if word(WORD_CAPACITY) != u64::from(config.capacity) {
        Mismatch::Capacity {
            found: word(WORD_CAPACITY),
            wanted: config.capacity.into(),
        }
    } else if word(WORD_DIRECTORY) != config.directory_len {
        Mismatch::Directory
    } else {
        Mismatch::Length
    })
}

pub(super) fn map(
    file: &File,
    len: u64,
    config: &FileConfig,
) -> Result<Arc<SharedMemory>, FileError> {
    match SharedMemory::map(file, len, &config.nodes) {
        Ok(memory) => Ok(Arc::new(memory)),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOSPC | libc::ENOMEM | libc::EDQUOT | libc::EFBIG)
            ) =>
        {
            Err(FileError::NoRoom { needed: len })
        }
        Err(error) => Err(error.into()),
    }
}
