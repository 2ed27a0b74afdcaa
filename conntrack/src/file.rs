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

use crate::entry::Entry;
use crate::family::{Family, V4, V6};
use crate::index::Bucket;
use crate::memory::Slab;
use crate::shared::{FileSystem, SharedMemory, monotonic_ns, user};
use crate::sizing::buckets;
use crate::sync::{AtomicU64, Ordering, Ordering::Relaxed, fence};
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// "uvstable", and what changes with every change of what lies in the file.
const MAGIC: u64 = u64::from_be_bytes(*b"uvstable");
const VERSION: u64 = 1;
const MODE: u32 = 0o600;
/// Bytes of the header; every part begins at a multiple of it.
const PAGE: u64 = 4096;
/// Words before the bytes of a directory: its number, its length, its sum.
const DIRECTORY_WORDS: usize = 3;

/// Words of the header.
const WORD_MAGIC: usize = 0;
const WORD_VERSION: usize = 1;
const WORD_SIZES: usize = 2;
const WORD_CAPACITY: usize = 3;
const WORD_DIRECTORY: usize = 4;
const WORD_WORDS: usize = 5;
const WORD_BOOT: usize = 6;
const WORD_CLOCK: usize = 8;
const WORD_SEEDS: usize = 9;
const WORD_HASHED: usize = 13;
const WORD_SUM: usize = 14;

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
            header: Slab::within(&memory, 0, PAGE as usize / 8)?,
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
            header: Slab::within(&memory, 0, PAGE as usize / 8)?,
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
        let offset = self.layout.words as usize + first * 8;
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
            .take(len.div_ceil(8) as usize)
            .flat_map(|word| word.load(Relaxed).to_le_bytes())
            .collect();
        bytes.truncate(len as usize);
        (sum([number, len], &bytes) == told).then_some((number, bytes))
    }

    fn directory_slab(&self, side: usize) -> io::Result<Slab<AtomicU64>> {
        let count = DIRECTORY_WORDS + self.config.directory_len.div_ceil(8) as usize;
        Slab::within(&self.memory, self.layout.directories[side] as usize, count)
    }

    /// The entries and the buckets of a family.
    pub(crate) fn slabs<F: Family>(&self) -> io::Result<(Slab<Entry<F>>, Slab<Bucket>)> {
        let is_v6 = size_of::<Entry<F>>() == size_of::<Entry<V6>>();
        let (entries, index) = self.layout.families[usize::from(is_v6)];
        let count = buckets(self.config.capacity) as usize;
        Ok((
            Slab::within(
                &self.memory,
                entries as usize,
                self.config.capacity as usize + 1,
            )?,
            Slab::within(&self.memory, index as usize, count)?,
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

/// Opens the file, and keeps others out.
fn locked(path: &Path) -> Result<File, FileError> {
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
fn length_mismatch(file: &File, config: &FileConfig, len: u64) -> io::Result<Mismatch> {
    if len < PAGE {
        return Ok(Mismatch::Foreign);
    }
    // The first page alone; on hugetlbfs that is a large one, which is there already.
    let page = FileSystem::of(file)?.page().min(len);
    let memory = Arc::new(SharedMemory::map(file, page, &[])?);
    let header = Slab::<AtomicU64>::within(&memory, 0, PAGE as usize / 8)?;
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

fn map(file: &File, len: u64, config: &FileConfig) -> Result<Arc<SharedMemory>, FileError> {
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

/// What parts are made of, and in which order a word has its bytes.
fn sizes() -> u64 {
    let order = u64::from(u16::from_ne_bytes([1, 2]));
    let buckets = size_of::<Bucket>() as u64;
    order << 48
        | buckets << 32
        | (size_of::<Entry<V6>>() as u64) << 16
        | size_of::<Entry<V4>>() as u64
}

/// What the hash function makes of the seeds: another version of it, or another CPU's, makes something else.
fn hashed(seeds: [u64; 4]) -> u64 {
    let [a, b, c, d] = seeds;
    ahash::RandomState::with_seeds(a, b, c, d).hash_one((MAGIC, 1_u64, 2_u64))
}

fn header_sum(words: &[u64; WORD_SUM + 1]) -> u64 {
    sum(words[..WORD_SUM].iter().copied(), &[])
}

/// Which boot of the machine this is.
fn boot() -> io::Result<[u64; 2]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    Ok([(number >> 64) as u64, number as u64])
}

/// CRC-32 of words and bytes, with a mark of a sum above it, so that zeroes have none.
///
/// Source: ITU-T V.42 §8.1.1.6.2, bits in the order of Ethernet's.
fn sum(words: impl IntoIterator<Item = u64>, bytes: &[u8]) -> u64 {
    let words = words.into_iter().flat_map(u64::to_le_bytes);
    let step = |crc: u32, byte: u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    };
    let crc = words.chain(bytes.iter().copied()).fold(u32::MAX, step);
    1 << 32 | u64::from(!crc)
}
