//! The file in which the tables lie, so that they outlive the process: what is where in it, and whether it can be trusted.
//!
//! ```text
//!   ┌────────┬─────────────┬─────────────┬──────────┬──────────────┬────────────┬──────────────┬────────────┐
//!   │ header │ directory A │ directory B │ words    │ entries IPv4 │ index IPv4 │ entries IPv6 │ index IPv6 │
//!   └────────┴─────────────┴─────────────┴──────────┴──────────────┴────────────┴──────────────┴────────────┘
//!     magic, version, sizes,  control's: length,       the data       as `entry.rs` and `index.rs` have them; links,
//!     seeds, boot, clock, sum number, bytes, sum        plane's        free lists and timers are made anew
//! ```
//! The header is written once, its magic last. Of the two directories the newer whole one holds: one that was being
//! written when the process was killed leaves the other. Entries are believed one by one (`adopt.rs`).
//!
//! Its mode is 0600: whoever knows the seeds can aim flows at one bucket.

mod header;
mod opening;
mod why;

pub use why::{FileError, Mismatch};

use crate::entry::Entry;
use crate::family::{Family, V4, V6};
use crate::index::Bucket;
use crate::memory::Slab;
use crate::shared::{FileSystem, SharedMemory, monotonic_ns};
use crate::sizing::buckets;
use crate::sync::{AtomicU64, Ordering, Ordering::Relaxed, fence};
use header::{
    HEADER_WORDS, MAGIC, VERSION, WORD_BOOT, WORD_CAPACITY, WORD_CLOCK, WORD_DIRECTORY,
    WORD_HASHED, WORD_MAGIC, WORD_SEEDS, WORD_SIZES, WORD_SUM, WORD_VERSION, WORD_WORDS, boot,
    hashed, header_sum, sizes, sum, whole,
};
use opening::{MODE, length_mismatch, locked, map};
use std::fs::{File, Permissions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of the header; every part begins at a multiple of it.
const PAGE: u64 = 4096;
/// Words before the bytes of a directory: its number, its length, its sum.
const DIRECTORY_WORDS: usize = 3;

/// What a file is to have room for.
#[derive(Clone, Debug)]
pub struct FileConfig {
    /// Connections of each family.
    pub capacity: u32,
    /// Bytes of a directory.
    pub directory_len: u64,
    /// Words that are the caller's.
    pub words: u64,
    /// NUMA nodes for what is new.
    pub nodes: Vec<u16>,
}

/// What was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: everything begins empty.
    Nothing,
    /// Something that cannot be used; it was replaced.
    Replaced(Mismatch),
    /// A table, to be looked at entry by entry.
    Table,
}

/// Where the parts of a file are, bytes.
struct Layout {
    directories: [u64; 2],
    words: u64,
    families: [(u64, u64); 2],
    len: u64,
}

impl Layout {
    fn new(config: &FileConfig) -> Layout {
        let mut end = PAGE;
        let mut part = |bytes: u64| {
            let start = end;
            end += bytes.next_multiple_of(PAGE);
            start
        };
        let directory = config.directory_len.next_multiple_of(8) + 8 * DIRECTORY_WORDS as u64;
        let directories = [part(directory), part(directory)];
        let words = part(config.words * 8);
        let index = buckets(config.capacity) * size_of::<Bucket>() as u64;
        let entries = (u64::from(config.capacity) + 1) * 64;
        let families = [
            (part(entries), part(index)),
            (part(2 * entries), part(index)),
        ];
        Layout {
            directories,
            words,
            families,
            len: end,
        }
    }
}

const _: () = assert!(size_of::<Entry<V4>>() == 64 && size_of::<Entry<V6>>() == 128);

/// A file with tables, locked for as long as this is.
pub struct TableFile {
    path: PathBuf,
    memory: Arc<SharedMemory>,
    header: Slab<AtomicU64>,
    config: FileConfig,
    layout: Layout,
    epoch: Instant,
    _lock: File,
}

/// Words in a file or in memory of their own, shared by the workers.
pub struct Words(Slab<AtomicU64>);

impl Words {
    /// Zeroes, in memory of their own, whose pages come as they are used.
    ///
    /// # Errors
    /// There is no address space for them.
    pub fn new(count: usize) -> io::Result<Words> {
        Slab::untouched(count).map(Words)
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        &self.0
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Words").field(&self.0.len()).finish()
    }
}

impl TableFile {
    /// Opens the file, or makes one, with the folder that it is to be in.
    ///
    /// # Errors
    /// When there can be none; what was there is as before.
    pub fn open(path: &Path, config: FileConfig) -> Result<(TableFile, Found), FileError> {
        let file = locked(path)?;
        let system = FileSystem::of(&file)?;
        let layout = Layout::new(&config);
        let len = layout.len.next_multiple_of(system.page());
        let before = file.metadata()?;
        let mismatch = if before.len() == 0 {
            None
        } else if before.mode() & 0o7777 & !MODE != 0 {
            Some(Mismatch::Mode)
        } else if before.len() != len {
            Some(length_mismatch(&file, &config, before.len())?)
        } else {
            None
        };
        let is_empty = before.len() == 0 || mismatch.is_some();
        if is_empty {
            file.set_permissions(Permissions::from_mode(MODE))?;
            file.set_len(0)?;
            file.set_len(len)?;
        }
        let memory = match map(&file, len, &config) {
            Err(error) if is_empty => {
                // Room that is not enough is not kept from others.
                let _ = file.set_len(0);
                return Err(error);
            }
            mapped => mapped?,
        };
        let mut opened = TableFile {
            path: path.to_owned(),
            header: Slab::within(&memory, 0, HEADER_WORDS)?,
            memory,
            config,
            layout,
            epoch: Instant::now(),
            _lock: file,
        };
        if is_empty {
            opened.begin()?;
            return Ok((opened, mismatch.map_or(Found::Nothing, Found::Replaced)));
        }
        match opened.judge() {
            Ok(()) => Ok((opened, Found::Table)),
            Err(mismatch) => {
                opened = opened.replaced()?;
                Ok((opened, Found::Replaced(mismatch)))
            }
        }
    }

    /// The same file with nothing in it. To be called before anybody uses it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn replaced(self) -> Result<TableFile, FileError> {
        let TableFile {
            path,
            memory,
            header,
            config,
            layout,
            _lock: file,
            ..
        } = self;
        drop((header, memory));
        let len = file.metadata()?.len();
        file.set_len(0)?;
        file.set_len(len)?;
        let memory = map(&file, len, &config)?;
        let mut opened = TableFile {
            path,
            header: Slab::within(&memory, 0, HEADER_WORDS)?,
            memory,
            config,
            layout,
            epoch: Instant::now(),
            _lock: file,
        };
        opened.begin()?;
        Ok(opened)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layout.len
    }

    /// When tick 0 was: the same for all processes that had the table.
    #[must_use]
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// The key of the hash.
    #[must_use]
    pub fn seeds(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|word| self.header[WORD_SEEDS + word].load(Relaxed))
    }

    /// `count` of the words that are the caller's, from the one numbered `first` on.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn words(&self, first: usize, count: usize) -> io::Result<Words> {
        let end = first.checked_add(count);
        if end.is_none_or(|end| end as u64 > self.config.words) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let offset = whole(self.layout.words) + first * 8;
        Slab::within(&self.memory, offset, count).map(Words)
    }

    /// What was written to the directory last, as a whole.
    #[must_use]
    pub fn directory(&self) -> Option<Vec<u8>> {
        let whole = [0, 1].map(|side| self.read_directory(side));
        let newest = whole
            .into_iter()
            .flatten()
            .max_by_key(|(number, _)| *number);
        newest.map(|(_, bytes)| bytes)
    }

    /// Whether one was ever written, whole or not.
    #[must_use]
    pub fn had_directory(&self) -> bool {
        let is_zero = |side| {
            let slab = self.directory_slab(side);
            slab.is_ok_and(|slab| slab.iter().all(|word| word.load(Relaxed) == 0))
        };
        !(is_zero(0) && is_zero(1))
    }

    /// Writes the directory, in the place of the older one. False where it has no room for so much.
    pub fn write_directory(&self, bytes: &[u8]) -> bool {
        if bytes.len() as u64 > self.config.directory_len {
            return false;
        }
        let numbers = [0, 1].map(|side| self.read_directory(side).map_or(0, |(number, _)| number));
        let side = usize::from(numbers[0] > numbers[1]);
        let number = numbers[0].max(numbers[1]) + 1;
        let Ok(slab) = self.directory_slab(side) else {
            return false;
        };
        // Whoever is killed in between leaves a wrong sum.
        slab[2].store(0, Relaxed);
        fence(Ordering::SeqCst);
        slab[0].store(number, Relaxed);
        slab[1].store(bytes.len() as u64, Relaxed);
        for (word, chunk) in slab[DIRECTORY_WORDS..].iter().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(whole), Relaxed);
        }
        fence(Ordering::SeqCst);
        slab[2].store(sum([number, bytes.len() as u64], bytes), Ordering::SeqCst);
        true
    }

    fn read_directory(&self, side: usize) -> Option<(u64, Vec<u8>)> {
        let slab = self.directory_slab(side).ok()?;
        let [number, len, told] = [0, 1, 2].map(|word| slab[word].load(Relaxed));
        if number == 0 || len > self.config.directory_len {
            return None;
        }
        let words = slab[DIRECTORY_WORDS..].iter();
        let mut bytes: Vec<u8> = words
            .take(whole(len.div_ceil(8)))
            .flat_map(|word| word.load(Relaxed).to_le_bytes())
            .collect();
        bytes.truncate(whole(len));
        (sum([number, len], &bytes) == told).then_some((number, bytes))
    }

    fn directory_slab(&self, side: usize) -> io::Result<Slab<AtomicU64>> {
        let count = DIRECTORY_WORDS + whole(self.config.directory_len.div_ceil(8));
        Slab::within(&self.memory, whole(self.layout.directories[side]), count)
    }

    /// The entries and the buckets of a family.
    pub(crate) fn slabs<F: Family>(&self) -> io::Result<(Slab<Entry<F>>, Slab<Bucket>)> {
        let is_v6 = size_of::<Entry<F>>() == size_of::<Entry<V6>>();
        let (entries, index) = self.layout.families[usize::from(is_v6)];
        let count = whole(buckets(self.config.capacity));
        Ok((
            Slab::within(
                &self.memory,
                whole(entries),
                self.config.capacity as usize + 1,
            )?,
            Slab::within(&self.memory, whole(index), count)?,
        ))
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.config.capacity
    }

    pub(crate) fn nodes(&self) -> &[u16] {
        &self.config.nodes
    }

    /// Writes the header of an empty file.
    fn begin(&mut self) -> io::Result<()> {
        let seeds = crate::table::random_seeds();
        let mut words = self.expected()?;
        words[WORD_CLOCK] = monotonic_ns()?;
        self.epoch = Instant::now();
        words[WORD_SEEDS..WORD_SEEDS + 4].copy_from_slice(&seeds);
        words[WORD_HASHED] = hashed(seeds);
        words[WORD_SUM] = header_sum(&words);
        for (stored, word) in self.header.iter().zip(words).skip(1) {
            stored.store(word, Relaxed);
        }
        self.header[WORD_MAGIC].store(MAGIC, Ordering::SeqCst);
        Ok(())
    }

    /// What the header of a table for this configuration says, at this boot, but for its seeds, its clock and its sum.
    fn expected(&self) -> io::Result<[u64; WORD_SUM + 1]> {
        let mut words = [0; WORD_SUM + 1];
        words[WORD_MAGIC] = MAGIC;
        words[WORD_VERSION] = VERSION;
        words[WORD_SIZES] = sizes();
        words[WORD_CAPACITY] = self.config.capacity.into();
        words[WORD_DIRECTORY] = self.config.directory_len;
        words[WORD_WORDS] = self.config.words;
        words[WORD_BOOT..WORD_BOOT + 2].copy_from_slice(&boot()?);
        Ok(words)
    }

    /// Whether the header is that of a table that can be used here and now. Takes its clock over.
    fn judge(&mut self) -> Result<(), Mismatch> {
        let words: [u64; WORD_SUM + 1] =
            std::array::from_fn(|word| self.header[word].load(Relaxed));
        if words[WORD_MAGIC] != MAGIC {
            return Err(Mismatch::Foreign);
        }
        if words[WORD_VERSION] != VERSION {
            return Err(Mismatch::Version {
                found: words[WORD_VERSION],
                ours: VERSION,
            });
        }
        if words[WORD_SUM] != header_sum(&words) {
            return Err(Mismatch::Torn);
        }
        let expected = self.expected().map_err(|_| Mismatch::Boot)?;
        let differs = |word: usize| words[word] != expected[word];
        if differs(WORD_BOOT) || differs(WORD_BOOT + 1) {
            return Err(Mismatch::Boot);
        }
        if differs(WORD_CAPACITY) {
            return Err(Mismatch::Capacity {
                found: words[WORD_CAPACITY],
                wanted: expected[WORD_CAPACITY],
            });
        }
        if differs(WORD_DIRECTORY) {
            return Err(Mismatch::Directory);
        }
        if differs(WORD_SIZES) || differs(WORD_WORDS) {
            return Err(Mismatch::Length);
        }
        let seeds = std::array::from_fn(|word| words[WORD_SEEDS + word]);
        if words[WORD_HASHED] != hashed(seeds) {
            return Err(Mismatch::Hash);
        }
        let now = (monotonic_ns().ok(), Instant::now());
        let passed = now.0.and_then(|ns| ns.checked_sub(words[WORD_CLOCK]));
        let epoch = passed.and_then(|ns| now.1.checked_sub(Duration::from_nanos(ns)));
        self.epoch = epoch.ok_or(Mismatch::Boot)?;
        Ok(())
    }
}

impl std::fmt::Debug for TableFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
