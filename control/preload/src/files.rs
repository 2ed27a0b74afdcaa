//! Files: those of the kernel's IPVS below `/proc/net` are uvsd's.
#![allow(
    unsafe_code,
    reason = "functions of the C library are replaced, and called"
)]

use crate::next;
use crate::server::file;
use libc::{FILE, c_char, c_int, mode_t};
use std::ffi::CStr;
use std::os::fd::IntoRawFd;

/// Where the kernel's files are.
const FOLDER: &[u8] = b"/proc/net/";
/// Those of IPVS begin so.
const PREFIX: &str = "ip_vs";

/// The name of a file of the kernel's IPVS; `None` of any other path.
///
/// # Safety
/// `path` is null or a C string, as long as the result is used.
unsafe fn name<'p>(path: *const c_char) -> Option<&'p str> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller says so.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let name = std::str::from_utf8(path.strip_prefix(FOLDER)?).ok()?;
    name.starts_with(PREFIX).then_some(name)
}

fn opened(name: &str) -> c_int {
    file(name).map_or(-1, IntoRawFd::into_raw_fd)
}

fn opened_as_stream(name: &str) -> *mut FILE {
    let fd = opened(name);
    if fd < 0 {
        return std::ptr::null_mut();
    }
    // SAFETY: the file is open, and the stream has it from now on.
    let stream = unsafe { libc::fdopen(fd, c"r".as_ptr()) };
    if stream.is_null() {
        // SAFETY: the file is ours.
        unsafe { libc::close(fd) };
    }
    stream
}

/// Stands before functions that open a stream.
macro_rules! stream {
    ($name:ident) => {
        /// # Safety
        /// As of the C library's function of this name.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(path: *const c_char, mode: *const c_char) -> *mut FILE {
            // SAFETY: the caller gives a path.
            match unsafe { name(path) } {
                Some(name) => opened_as_stream(name),
                // SAFETY: the caller keeps the contract.
                None => unsafe { next::$name(path, mode) },
            }
        }
    };
}

/// Stands before functions that open a file. In C the mode is there only where a file may be made; where numbers are handed over
/// in registers, as on all machines that uvs is built for, one that is not there is not read.
macro_rules! descriptor {
    ($name:ident($($folder:ident: $of:ty)?)) => {
        /// # Safety
        /// As of the C library's function of this name.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($folder: $of,)? path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
            // SAFETY: the caller gives a path.
            match unsafe { name(path) } {
                Some(name) => opened(name),
                // SAFETY: the caller keeps the contract.
                None => unsafe { next::$name($($folder,)? path, flags, mode) },
            }
        }
    };
}

stream!(fopen);
stream!(fopen64);
descriptor!(open());
descriptor!(open64());
descriptor!(openat(folder: c_int));
descriptor!(openat64(folder: c_int));
