//! DPDK's environment (EAL): begun once a process, ended with it. What it says meanwhile is kept for error messages.
#![allow(unsafe_code, reason = "calls of DPDK")]

use super::Settings;
use dpdk_sys as dpdk;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fs::{self, File};
use std::io::Seek;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;

/// Bytes of DPDK's own words that an error repeats.
const WORDS_LEN: usize = 2000;

/// Why there is no environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EalError {
    /// There is no memory in huge pages.
    #[error(
        "DPDK: no free huge pages: set some aside (`sysctl vm.nr_hugepages=512` for pages of 2 MiB), or set `huge_pages = \
         false` in [dpdk] to use ordinary memory, which is slower"
    )]
    NoHugePages,
    /// DPDK refused.
    #[error("DPDK does not start ({error}), and says: {words}")]
    Refused {
        /// What its error number means.
        error: String,
        /// What it logged.
        words: String,
    },
    /// It runs already, otherwise.
    #[error(
        "DPDK was started with other settings in this process; it cannot be started anew: restart uvsd"
    )]
    Different,
}

/// The settings it was begun with.
static RUNNING: Mutex<Option<Settings>> = Mutex::new(None);
/// Where DPDK's words go: a file without a name, in memory.
static LOG: Mutex<Option<File>> = Mutex::new(None);

/// Begins the environment, if it has not begun yet.
///
/// # Errors
/// When DPDK refuses, or runs with other settings already. (What failed once may be tried again only in a new process.)
pub fn start(settings: &Settings) -> Result<(), EalError> {
    let mut running = RUNNING.lock();
    match &*running {
        Some(started) if started == settings => return Ok(()),
        Some(_) => return Err(EalError::Different),
        None => {}
    }
    if settings.huge_pages && !has_huge_pages() {
        return Err(EalError::NoHugePages);
    }
    let prefix = format!("uvs-{}", std::process::id());
    let arguments = arguments(settings, &prefix);
    // It binds the thread that it is begun in to a CPU for ever: not this one.
    let thread = std::thread::Builder::new().name("uvs-dpdk".to_owned());
    let begun = listening(|| {
        let thread = thread.spawn(move || init(&arguments));
        let joined = thread.map(std::thread::JoinHandle::join);
        joined
            .map_err(|error| error.to_string())?
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    // Nothing is in it with these arguments; so nothing stays when the process is killed.
    let _ = fs::remove_dir(format!("/var/run/dpdk/{prefix}"));
    begun.map_err(|(error, words)| EalError::Refused { error, words })?;
    *running = Some(settings.clone());
    Ok(())
}

/// All arguments, the program's name first.
fn arguments(settings: &Settings, prefix: &str) -> Vec<String> {
    let cpu = first_cpu();
    let mut arguments: Vec<String> = ["uvsd", "--no-telemetry", "--file-prefix", prefix]
        .map(str::to_owned)
        .into();
    arguments.extend(["--lcores".to_owned(), format!("0@{cpu}")]);
    if settings.huge_pages {
        arguments.push("--in-memory".to_owned());
    } else {
        // `--in-memory` is not taken together with `--no-huge`.
        arguments.extend(["--no-huge", "--no-shconf"].map(str::to_owned));
    }
    let memory = settings
        .memory_mib
        .or((!settings.huge_pages).then_some(512));
    if let Some(mib) = memory {
        arguments.extend(["-m".to_owned(), mib.to_string()]);
    }
    if settings.pci.is_empty() {
        arguments.push("--no-pci".to_owned());
    }
    for address in &settings.pci {
        arguments.extend(["-a".to_owned(), address.clone()]);
    }
    arguments.extend(settings.arguments.iter().cloned());
    arguments
}

/// A CPU that this process may run on.
fn first_cpu() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = list.and_then(|list| list.trim().split([',', '-']).next());
    first.and_then(|cpu| cpu.parse().ok()).unwrap_or(0)
}

/// Whether any huge page of any size is free, or may be made when it is wanted.
fn has_huge_pages() -> bool {
    let Ok(sizes) = fs::read_dir("/sys/kernel/mm/hugepages") else {
        return false;
    };
    let count = |folder: &fs::DirEntry, name| {
        let text = fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        text.trim().parse().unwrap_or(0_u64)
    };
    sizes
        .filter_map(Result::ok)
        .any(|size| count(&size, "free_hugepages") + count(&size, "nr_overcommit_hugepages") > 0)
}

fn init(arguments: &[String]) -> Result<(), String> {
    let texts: Vec<CString> = arguments
        .iter()
        .filter_map(|text| CString::new(text.as_str()).ok())
        .collect();
    // DPDK keeps pointers into them, and permutes them.
    let mut pointers: Vec<*mut c_char> = texts.into_iter().map(CString::into_raw).collect();
    let count = c_int::try_from(pointers.len()).expect("a few dozen arguments");
    pointers.push(std::ptr::null_mut());
    // SAFETY: `pointers` are as many strings as `count` says and a null behind them, like those of `main`; both they and
    // the list are never freed.
    let result = unsafe { dpdk::rte_eal_init(count, pointers.leak().as_mut_ptr()) };
    if result >= 0 {
        return Ok(());
    }
    // SAFETY: reads a variable of this thread.
    Err(error_text(unsafe { dpdk::uvs_errno() }))
}

/// The words for an error number of DPDK's, positive or negative.
pub(super) fn error_text(error: c_int) -> String {
    // SAFETY: a string is returned for every number, in static memory or the thread's own.
    let text = unsafe { dpdk::rte_strerror(error.abs()) };
    // SAFETY: as above; it is copied before DPDK is called again.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// Keeps what DPDK says while `work` is done, which others must not use DPDK's control functions at; returns it with the
/// result, in one line, if that is an error.
pub(super) fn listening<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<T, (E, String)> {
    let mut log = LOG.lock();
    if log.is_none() {
        *log = open_log();
    }
    let Some(file) = &mut *log else {
        return work().map_err(|error| (error, String::new()));
    };
    // SAFETY: `open_log` has given it a file.
    unsafe { dpdk::uvs_log_keep(1) };
    let result = work();
    // SAFETY: as above.
    unsafe { dpdk::uvs_log_keep(0) };
    let words = take_words(file);
    result.map_err(|error| (error, words))
}

/// A file without a name, in memory, that DPDK logs into when it is told to.
fn open_log() -> Option<File> {
    let fd = rustix::fs::memfd_create("uvs-dpdk-log", rustix::fs::MemfdFlags::CLOEXEC);
    let file = File::from(fd.ok()?);
    let written = file.try_clone().ok()?.into_raw_fd();
    // SAFETY: the descriptor is open, and from now on the shim's alone.
    (unsafe { dpdk::uvs_log_keep_in(written) } == 0).then_some(file)
}

/// What the file holds, at most its end, in one line; empties it.
fn take_words(file: &mut File) -> String {
    let len = file.metadata().map_or(0, |metadata| metadata.len());
    let begin = len.saturating_sub(WORDS_LEN as u64);
    let mut bytes = vec![0; usize::try_from(len - begin).unwrap_or(0)];
    let is_read = file.read_exact_at(&mut bytes, begin).is_ok();
    // Both descriptors share one position. Where it cannot be emptied, more is repeated next time.
    let _ = file.set_len(0).and_then(|()| file.rewind());
    if !is_read {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    // It lists its arguments when one is wrong.
    let told = lines.take_while(|line| !line.starts_with("Usage:"));
    told.collect::<Vec<_>>().join("; ")
}

/// Registers the calling thread with DPDK for as long as it lives: without it, each mbuf is taken from and given back to
/// the pool itself, which all threads share, instead of a stock of the thread's own (of a packet received from net_pcap and
/// sent again, 23.5 ns became 30: `benches/README.md`).
///
/// Source: DPDK Programmer's Guide, "Mempool Library", "Local Cache", and rte_lcore.h (`rte_thread_register`).
pub(super) fn register_thread() {
    struct Registered(bool);
    impl Drop for Registered {
        fn drop(&mut self) {
            if self.0 {
                // SAFETY: called by the thread that was registered, which is about to end.
                unsafe { dpdk::rte_thread_unregister() };
            }
        }
    }
    thread_local! {
        static THREAD: RefCell<Option<Registered>> = const { RefCell::new(None) };
    }
    THREAD.with_borrow_mut(|registered| {
        registered.get_or_insert_with(|| {
            // SAFETY: the environment has begun: there is a port. Without a place for the thread nothing changes.
            Registered(unsafe { dpdk::rte_thread_register() } == 0)
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_leave_no_file_behind_and_find_only_what_is_configured() {
        let ordinary = arguments(&Settings::default(), "uvs-1").join(" ");
        assert!(
            ordinary.contains("--no-huge --no-shconf -m 512 --no-pci"),
            "{ordinary}"
        );
        let settings = Settings {
            huge_pages: true,
            pci: vec!["0000:01:00.0".to_owned()],
            arguments: vec!["--log-level=pmd:8".to_owned()],
            ..Settings::default()
        };
        let huge = arguments(&settings, "uvs-1").join(" ");
        assert!(
            huge.ends_with("--in-memory -a 0000:01:00.0 --log-level=pmd:8"),
            "{huge}"
        );
    }
}
