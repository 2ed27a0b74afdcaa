//! The bytes that are downloaded and uploaded.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A file of pseudo-random bytes that has no name, so that nothing of it is left whatever ends the process.
#[derive(Debug)]
pub struct Payload {
    file: File,
    /// How long it is, bytes.
    pub len: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Payload {
    /// 200 MB, made once per process.
    #[must_use]
    pub fn large() -> &'static Payload {
        static LARGE: OnceLock<Payload> = OnceLock::new();
        LARGE.get_or_init(|| Payload::new(200_000_000))
    }

    /// 20 MB, made once per process.
    #[must_use]
    pub fn medium() -> &'static Payload {
        static MEDIUM: OnceLock<Payload> = OnceLock::new();
        MEDIUM.get_or_init(|| Payload::new(20_000_000))
    }

    fn new(len: u64) -> Payload {
        let file = tempfile::tempfile().unwrap();
        let mut writer = BufWriter::with_capacity(1 << 20, &file);
        // Xorshift: nothing compresses or repeats within the file.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..len / 8 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            writer.write_all(&state.to_le_bytes()).unwrap();
        }
        writer.flush().unwrap();
        drop(writer);
        let mut payload = Payload {
            file,
            len,
            sha256: String::new(),
        };
        payload.sha256 = sha256(File::open(payload.path()).unwrap());
        payload
    }

    /// Where other processes find it as long as this one lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let fd = self.file.as_raw_fd();
        format!("/proc/{}/fd/{fd}", std::process::id()).into()
    }
}

/// The SHA-256 of what is read from `source`, in hexadecimal: sha256sum's.
///
/// # Panics
/// When there is no sha256sum.
#[must_use]
pub(crate) fn sha256(source: impl Into<Stdio>) -> String {
    let output = Command::new("sha256sum").stdin(source).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').next().unwrap().to_owned()
}
