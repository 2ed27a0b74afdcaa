//! The C library's own functions, which those here stand before.
#![allow(
    unsafe_code,
    reason = "functions of the C library are replaced, and called"
)]

use libc::{c_char, c_int, c_void, mode_t, msghdr, size_t, sockaddr, socklen_t, ssize_t};
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// A function that is looked up when it is first called.
pub(crate) struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Next {
        Next {
            name,
            found: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    fn find(&self) -> *mut c_void {
        let found = self.found.load(Relaxed);
        if !found.is_null() {
            return found;
        }
        // SAFETY: the name is a C string; looking a symbol up has no other precondition.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        // A program that calls the function was linked with a library that has it.
        assert!(!found.is_null(), "{:?} is in no library", self.name);
        // Whoever else looked it up found the same.
        self.found.store(found, Relaxed);
        found
    }
}

/// Declares the next function of a name.
macro_rules! next {
    ($name:ident($($argument:ident: $of:ty),*) -> $result:ty) => {
        /// # Safety
        /// As of the C library's function of this name.
        pub(crate) unsafe fn $name($($argument: $of),*) -> $result {
            static NEXT: Next = {
                // The name is written once, above.
                const NAME: &[u8] = concat!(stringify!($name), "\0").as_bytes();
                match CStr::from_bytes_with_nul(NAME) {
                    Ok(name) => Next::new(name),
                    Err(_) => unreachable!(),
                }
            };
            // SAFETY: the C library's function of this name has this signature.
            let next: unsafe extern "C" fn($($of),*) -> $result = unsafe { std::mem::transmute(NEXT.find()) };
            // SAFETY: the caller keeps the function's contract.
            unsafe { next($($argument),*) }
        }
    };
}

next!(send(fd: c_int, data: *const c_void, len: size_t, flags: c_int) -> ssize_t);
next!(sendto(fd: c_int, data: *const c_void, len: size_t, flags: c_int, to: *const sockaddr, to_len: socklen_t) -> ssize_t);
next!(sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t);
next!(recvfrom(fd: c_int, data: *mut c_void, len: size_t, flags: c_int, from: *mut sockaddr, from_len: *mut socklen_t) -> ssize_t);
next!(recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t);
next!(getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int);
next!(setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int);
next!(fopen(path: *const c_char, mode: *const c_char) -> *mut libc::FILE);
next!(fopen64(path: *const c_char, mode: *const c_char) -> *mut libc::FILE);
next!(open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int);
next!(open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int);
next!(openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int);
next!(openat64(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int);
