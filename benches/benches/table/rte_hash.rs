//! DPDK's `rte_hash` as a lock-free dataplane would use it: readers without locks, several writers, memory reclaimed by
//! RCU, keys of 16 bytes (which it compares faster than 13), CRC32, and states found by the key's position.
//!
//! DPDK runs without its huge pages and devices; the hash's own memory lies in transparent huge pages, as that of all
//! structures here does, through an external heap.
#![allow(unsafe_code, reason = "DPDK is C")]

use crate::flows::Key;
use crate::structure::{BURST, Form, Found, Hand, States, Structure, THREADS};
use dpdk_sys as dpdk;
use std::ffi::{CString, c_char, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const HUGE_PAGE: usize = 2 << 20;
/// Keys taken out that wait for readers; more than threads that yield their CPU now and then leave waiting.
const DEFERRED: u32 = 1 << 20;
/// `ENOSPC`.
const NO_ROOM: i32 = 28;
/// From so many on a removal takes some of them back.
const RECLAIM_FROM: u32 = 64;

/// A hash, its RCU and its heap.
pub(crate) struct RteHash {
    hash: NonNull<dpdk::rte_hash>,
    rcu: NonNull<dpdk::rte_rcu_qsbr>,
    states: States,
    /// Where the heap lies: its name is forgotten by DPDK before this memory is freed.
    memory: Vec<u8>,
    heap: CString,
}

// SAFETY: both are made for use by several threads: the hash with lock-free readers and several writers, the RCU
// variable by each thread under its own number; they are freed by `drop` alone.
unsafe impl Sync for RteHash {}

impl Structure for RteHash {
    type Key = Key;
    type Hand<'a> = RteHand<'a>;
    const ROWS: &'static [(&'static str, Form)] =
        &[("rte_hash", Form::Burst), ("rte_hash-single", Form::Single)];

    fn new(room: usize) -> RteHash {
        initialise();
        // DPDK knows hashes and heaps by their names.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("flows{}", NUMBER.fetch_add(1, Relaxed));
        let name = CString::new(name).expect("it has no zero byte");
        // A key is 32 bytes of it, its slot and free index 16 at most; then alignment and what is small.
        let mut memory = vec![0_u8; (room + 16_384) * 56 + (64 << 20)];
        let socket = add_heap(&name, &mut memory);
        let hash = create(&name, room, socket);
        let rcu = create_rcu(hash, socket);
        // SAFETY: the hash is alive.
        let last = unsafe { dpdk::rte_hash_max_key_id(hash.as_ptr()) };
        let last = usize::try_from(last).expect("the hash has keys");
        RteHash {
            hash,
            rcu,
            states: States::new(last + 1),
            memory,
            heap: name,
        }
    }

    fn hand(&self, thread: usize) -> RteHand<'_> {
        // SAFETY: the environment is initialised; `drop` of the hand, in this thread, undoes it.
        let status = unsafe { dpdk::rte_thread_register() };
        assert_eq!(status, 0, "DPDK takes the thread: {}", error());
        let thread = u32::try_from(thread).expect("below THREADS");
        // SAFETY: the variable has room for THREADS, and no other thread has this number at this time.
        unsafe { dpdk::uvs_rcu_online(self.rcu.as_ptr(), thread) };
        RteHand {
            structure: self,
            thread,
        }
    }
}

impl Drop for RteHash {
    fn drop(&mut self) {
        let this = &*self;
        // In a thread that DPDK knows: keys that still wait for readers go to that thread's own free ones.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let hand = this.hand(0);
                // SAFETY: nobody uses the hash any more, which frees what it took from the heap.
                unsafe { dpdk::rte_hash_free(this.hash.as_ptr()) };
                drop(hand);
            });
        });
        // SAFETY: nor the variable, which the hash let go of.
        unsafe { dpdk::rte_free(self.rcu.as_ptr().cast()) };
        let (start, len) = pages(&mut self.memory);
        // SAFETY: the same range that was added; all that was in it is freed.
        let status = unsafe {
            dpdk::rte_malloc_heap_memory_remove(self.heap.as_ptr(), start.as_ptr().cast(), len)
        };
        assert_eq!(status, 0, "DPDK gives the memory back: {}", error());
        // SAFETY: the heap is empty.
        let status = unsafe { dpdk::rte_malloc_heap_destroy(self.heap.as_ptr()) };
        assert_eq!(status, 0, "DPDK forgets the heap: {}", error());
    }
}

/// A thread that DPDK knows, online in the RCU variable.
pub(crate) struct RteHand<'a> {
    structure: &'a RteHash,
    thread: u32,
}

impl Hand<Key> for RteHand<'_> {
    fn lookup(&mut self, form: Form, keys: &[Key; BURST]) -> Found {
        let hash = self.structure.hash.as_ptr();
        #[allow(clippy::cast_possible_truncation, reason = "32")]
        const COUNT: u32 = BURST as u32;
        let mut positions = [-1_i32; BURST];
        match form {
            Form::Burst => {
                let mut pointers = [std::ptr::null(); BURST];
                for (pointer, key) in pointers.iter_mut().zip(keys) {
                    *pointer = address(key);
                }
                // SAFETY: as many pointers to 16 bytes and as many positions as is said, all alive during the call.
                unsafe {
                    dpdk::rte_hash_lookup_bulk(
                        hash,
                        pointers.as_mut_ptr(),
                        COUNT,
                        positions.as_mut_ptr(),
                    )
                };
            }
            Form::Single => {
                for (position, key) in positions.iter_mut().zip(keys) {
                    // SAFETY: the hash is alive and the key has 16 bytes.
                    *position = unsafe { dpdk::rte_hash_lookup(hash, address(key)) };
                }
            }
        }
        let mut found = Found::default();
        for position in positions {
            if let Ok(index) = usize::try_from(position) {
                found.add(self.structure.states.read(index));
            }
        }
        found
    }

    fn insert(&mut self, key: &Key, server: u32) {
        let index = loop {
            // SAFETY: the hash is alive and the key has 16 bytes, of which it keeps a copy.
            let position =
                unsafe { dpdk::rte_hash_add_key(self.structure.hash.as_ptr(), address(key)) };
            if let Ok(index) = usize::try_from(position) {
                break index;
            }
            assert_eq!(position, -NO_ROOM, "rte_hash takes a key");
            self.quiescent();
            std::thread::yield_now();
        };
        self.structure.states.write(index, server);
    }

    fn remove(&mut self, key: &Key) {
        // SAFETY: the hash is alive and the key has 16 bytes.
        let position =
            unsafe { dpdk::rte_hash_del_key(self.structure.hash.as_ptr(), address(key)) };
        assert!(position >= 0, "it is there: {position}");
    }

    fn quiescent(&mut self) {
        // SAFETY: this thread is online under its number.
        unsafe { dpdk::uvs_rcu_quiescent(self.structure.rcu.as_ptr(), self.thread) };
    }
}

impl Drop for RteHand<'_> {
    fn drop(&mut self) {
        // SAFETY: this thread is online under its number.
        unsafe { dpdk::uvs_rcu_offline(self.structure.rcu.as_ptr(), self.thread) };
        // SAFETY: `hand` registered this thread.
        unsafe { dpdk::rte_thread_unregister() };
    }
}

fn address(key: &Key) -> *const c_void {
    std::ptr::from_ref(key).cast()
}

fn error() -> std::io::Error {
    // SAFETY: it reads a variable of this thread.
    std::io::Error::from_raw_os_error(unsafe { dpdk::uvs_errno() })
}

/// Starts DPDK once, in a thread of its own: it pins the thread that starts it to a CPU.
fn initialise() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        std::thread::spawn(|| {
            let arguments = [
                "uvs",
                "--no-huge",
                "--no-shconf",
                "--no-pci",
                "--no-telemetry",
                "--iova-mode=va",
                "--log-level=error",
                "-l",
                "0",
                "-m",
                "256",
            ];
            let arguments = arguments.map(|text| CString::new(text).expect("no zero byte"));
            // DPDK keeps pointers to them.
            let mut pointers: Vec<*mut c_char> =
                arguments.into_iter().map(CString::into_raw).collect();
            let count = i32::try_from(pointers.len()).expect("a few");
            // SAFETY: so many strings, which are never freed, in an array that lasts for the call.
            let status = unsafe { dpdk::rte_eal_init(count, pointers.as_mut_ptr()) };
            assert!(status >= 0, "DPDK starts: {}", error());
        })
        .join()
        .expect("DPDK starts");
    });
}

/// The whole huge pages in it.
fn pages(memory: &mut [u8]) -> (NonNull<u8>, usize) {
    let skipped = memory.as_ptr().align_offset(HUGE_PAGE);
    let whole = &mut memory[skipped..];
    let len = whole.len() / HUGE_PAGE * HUGE_PAGE;
    (NonNull::from(&mut whole[0]), len)
}

/// Makes a heap of the memory, and returns the socket that DPDK has it under.
fn add_heap(name: &CString, memory: &mut [u8]) -> i32 {
    // SAFETY: the name ends with a zero byte.
    let status = unsafe { dpdk::rte_malloc_heap_create(name.as_ptr()) };
    assert_eq!(status, 0, "DPDK makes a heap: {}", error());
    let (start, len) = pages(memory);
    // SAFETY: the range is of whole pages, ours, and used by nobody else until it is removed.
    let status = unsafe {
        dpdk::rte_malloc_heap_memory_add(
            name.as_ptr(),
            start.as_ptr().cast(),
            len,
            std::ptr::null_mut(),
            0,
            HUGE_PAGE,
        )
    };
    assert_eq!(status, 0, "DPDK takes the memory: {}", error());
    // SAFETY: the heap exists.
    let socket = unsafe { dpdk::rte_malloc_heap_get_socket(name.as_ptr()) };
    assert!(socket >= 0, "the heap has a socket: {}", error());
    socket
}

fn create(name: &CString, room: usize, socket: i32) -> NonNull<dpdk::rte_hash> {
    let parameters = dpdk::rte_hash_parameters {
        name: name.as_ptr(),
        entries: u32::try_from(room).expect("fewer than 2^32"),
        reserved: 0,
        key_len: u32::try_from(size_of::<Key>()).expect("16"),
        // The default, CRC32 by the CPU's instruction.
        hash_func: None,
        hash_func_init_val: 0,
        socket_id: socket,
        extra_flag: u8::try_from(
            dpdk::RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF
                | dpdk::RTE_HASH_EXTRA_FLAGS_MULTI_WRITER_ADD,
        )
        .expect("flags of a byte"),
    };
    // SAFETY: the parameters and the name last for the call, which copies them.
    let hash = unsafe { dpdk::rte_hash_create(&raw const parameters) };
    NonNull::new(hash).unwrap_or_else(|| panic!("DPDK makes a hash: {}", error()))
}

/// An RCU variable for THREADS, by which the hash knows when keys taken out are read by nobody.
fn create_rcu(hash: NonNull<dpdk::rte_hash>, socket: i32) -> NonNull<dpdk::rte_rcu_qsbr> {
    let threads = u32::try_from(THREADS).expect("a few");
    // SAFETY: it computes a number.
    let len = unsafe { dpdk::rte_rcu_qsbr_get_memsize(threads) };
    // SAFETY: no type name, a line's alignment, and a socket of ours.
    let rcu = unsafe { dpdk::rte_zmalloc_socket(std::ptr::null(), len, 64, socket) };
    let rcu: NonNull<dpdk::rte_rcu_qsbr> = NonNull::new(rcu.cast()).expect("the heap has room");
    // SAFETY: the memory is as long as such a variable has to be.
    let status = unsafe { dpdk::rte_rcu_qsbr_init(rcu.as_ptr(), threads) };
    assert_eq!(status, 0, "DPDK makes an RCU variable: {}", error());
    for thread in 0..threads {
        // SAFETY: the variable is initialised. A registered thread that is not online is not waited for.
        let status = unsafe { dpdk::rte_rcu_qsbr_thread_register(rcu.as_ptr(), thread) };
        assert_eq!(status, 0, "DPDK registers a thread: {}", error());
    }
    let mut config = dpdk::rte_hash_rcu_config {
        v: rcu.as_ptr(),
        mode: dpdk::rte_hash_qsbr_mode_RTE_HASH_QSBR_MODE_DQ,
        dq_size: DEFERRED,
        trigger_reclaim_limit: RECLAIM_FROM,
        max_reclaim_size: RECLAIM_FROM,
        key_data_ptr: std::ptr::null_mut(),
        free_key_data_func: None,
    };
    // SAFETY: the hash is new and the variable outlives it.
    let status = unsafe { dpdk::rte_hash_rcu_qsbr_add(hash.as_ptr(), &raw mut config) };
    assert_eq!(status, 0, "rte_hash takes an RCU variable: {}", error());
    rcu
}
