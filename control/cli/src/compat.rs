//! `uvs compat`: unmodified programs that manage the kernel's IPVS manage uvs.
//!
//! ```text
//!   uvs compat ─ is uvsd there? is the program one that can be preloaded? ─▶ LD_PRELOAD, UVS_IPVS ─▶ exec
//! ```

use crate::connect;
use socket2::{Domain, SockAddr, Socket, Type};
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library as cargo names it, and as it is installed.
const NAMES: [&str; 2] = ["libuvs_ipvs.so", "libuvs-ipvs.so"];
/// Where a package puts it.
const INSTALLED: &str = "/usr/lib/uvs";
/// Interpreters of scripts that are looked through, at most: as in the kernel.
const SCRIPTS: u8 = 4;
/// Of an ELF file: the program header that names its dynamic loader.
const PT_INTERP: u32 = 3;
/// Program headers of an ELF file that are looked at, at most.
const PROGRAM_HEADERS: u16 = 256;

/// The arguments of `uvs compat`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// uvsd's socket for clients of the kernel's IPVS (`director.netlink`); by default that of UVS_SOCKET with .nl behind it, or
    /// /run/uvs/uvs.sock.nl.
    #[arg(long, value_name = "PATH")]
    pub netlink: Option<PathBuf>,
    /// The library that is preloaded; by default it is looked for beside uvs, then in /usr/lib/uvs.
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,
    /// The program and its arguments, such as `ipvsadm -Ln`.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// Why the program is not started.
#[derive(Debug, thiserror::Error)]
pub enum CompatError {
    /// Nobody answers.
    #[error("{}: {error}; accepted: the socket of a running uvsd (director.netlink), by --netlink", path.display())]
    NoDirector {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is nowhere.
    #[error("{} is not found; accepted: the library libuvs-ipvs.so, by --library", .0.display())]
    NoLibrary(PathBuf),
    /// It is nowhere.
    #[error("{}: command not found", .0.display())]
    NoProgram(PathBuf),
    /// It cannot be looked at.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The program.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Nothing can be preloaded into it.
    #[error(
        "{}: {why}, so nothing can be preloaded into it, and it would ask the kernel; accepted: a program that is linked \
         dynamically, such as Debian's ipvsadm, keepalived, ldirectord", path.display()
    )]
    NotPreloadable {
        /// The program.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// The system does not start it.
    #[error("{}: {error}", path.display())]
    NotStarted {
        /// The program.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// Becomes the program. It comes back with an error alone.
#[must_use]
pub fn run(options: &Options) -> CompatError {
    let prepared = prepare(options);
    match prepared {
        Err(error) => error,
        Ok((path, mut command)) => CompatError::NotStarted {
            path,
            error: command.exec(),
        },
    }
}

fn prepare(options: &Options) -> Result<(PathBuf, Command), CompatError> {
    let (program, arguments) = options
        .command
        .split_first()
        .expect("clap wants one at least");
    let library = library(options.library.as_deref())?;
    let program = find(Path::new(program))?;
    preloadable(&program, SCRIPTS)?;
    let netlink = socket(options.netlink.as_deref(), env::var_os("UVS_SOCKET"));
    reach(&netlink)?;
    let mut preload = library.into_os_string();
    if let Some(before) = env::var_os("LD_PRELOAD").filter(|before| !before.is_empty()) {
        preload.push(":");
        preload.push(before);
    }
    let netlink = std::path::absolute(&netlink).map_err(|error| CompatError::NoDirector {
        path: netlink,
        error,
    })?;
    let mut command = Command::new(&program);
    command.args(arguments).env("LD_PRELOAD", preload);
    command.env("UVS_IPVS", netlink);
    Ok((program, command))
}

/// The socket that was named, or the one beside the control socket.
fn socket(named: Option<&Path>, control: Option<OsString>) -> PathBuf {
    if let Some(named) = named {
        return named.to_owned();
    }
    let mut path = control.filter(|path| !path.is_empty());
    let path = path.get_or_insert_with(|| connect::SOCKET.into());
    path.push(".nl");
    PathBuf::from(&*path)
}

/// Whether uvsd lets us in.
fn reach(path: &Path) -> Result<(), CompatError> {
    let reached = SockAddr::unix(path)
        .and_then(|address| Socket::new(Domain::UNIX, Type::SEQPACKET, None)?.connect(&address));
    reached.map_err(|error| CompatError::NoDirector {
        path: path.to_owned(),
        error,
    })
}

fn library(named: Option<&Path>) -> Result<PathBuf, CompatError> {
    if let Some(named) = named {
        // The loader takes what has a slash for a path.
        let found = fs::canonicalize(named);
        return found.map_err(|_| CompatError::NoLibrary(named.to_owned()));
    }
    let beside = env::current_exe().ok();
    let beside = beside.as_deref().and_then(Path::parent);
    let folders = beside.into_iter().chain([Path::new(INSTALLED)]);
    let mut places = folders.flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let found = places.find(|place| place.is_file());
    found.ok_or_else(|| CompatError::NoLibrary(Path::new(INSTALLED).join(NAMES[1])))
}

/// The program that a shell would start.
fn find(program: &Path) -> Result<PathBuf, CompatError> {
    let missing = || CompatError::NoProgram(program.to_owned());
    if program.as_os_str().as_bytes().contains(&b'/') {
        return program
            .exists()
            .then(|| program.to_owned())
            .ok_or_else(missing);
    }
    let folders = env::var_os("PATH").ok_or_else(missing)?;
    let mut places = env::split_paths(&folders).map(|folder| folder.join(program));
    let is_program = |place: &PathBuf| {
        let metadata = fs::metadata(place);
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
    };
    places.find(is_program).ok_or_else(missing)
}

/// Whether a program, or the interpreter of a script, loads what LD_PRELOAD names.
fn preloadable(path: &Path, scripts: u8) -> Result<(), CompatError> {
    let unreadable = |error| CompatError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let not = |why| {
        Err(CompatError::NotPreloadable {
            path: path.to_owned(),
            why,
        })
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    if mode & 0o6000 != 0 {
        return not("it runs with another user's rights (setuid)");
    }
    let mut start = Vec::new();
    let read = file.by_ref().take(256).read_to_end(&mut start);
    read.map_err(unreadable)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        let mut words = line.split_whitespace();
        let Some(interpreter) = words.next().filter(|_| scripts > 0) else {
            return not("it is a script without an interpreter");
        };
        return preloadable(Path::new(interpreter), scripts - 1);
    }
    match has_loader(&mut file, &start).map_err(unreadable)? {
        Some(true) => Ok(()),
        Some(false) => not("it is linked statically"),
        None => not("it is no 64-bit ELF program of this machine's byte order"),
    }
}

/// Whether an ELF file names a dynamic loader; `None`: it is no such file.
///
/// Source: System V ABI, chapter 5 (ELF header, program header), 64-bit.
fn has_loader(file: &mut File, start: &[u8]) -> io::Result<Option<bool>> {
    const ORDER: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };
    let (Some(header), true) = (
        start.first_chunk::<64>(),
        start.starts_with(&[0x7f, b'E', b'L', b'F', 2, ORDER]),
    ) else {
        return Ok(None);
    };
    let u16_at = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let offset = u64::from_ne_bytes(*header[32..].first_chunk().expect("64 bytes are there"));
    let (size, count) = (u16_at(54), u16_at(56).min(PROGRAM_HEADERS));
    for index in 0..count {
        let at = u64::from(index) * u64::from(size);
        file.seek(SeekFrom::Start(offset.saturating_add(at)))?;
        let mut kind = [0; 4];
        file.read_exact(&mut kind)?;
        if u32::from_ne_bytes(kind) == PT_INTERP {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn refused(path: &Path) -> String {
        preloadable(path, SCRIPTS).unwrap_err().to_string()
    }

    #[test]
    fn programs_that_nothing_can_be_preloaded_into_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let myself = env::current_exe().unwrap();
        preloadable(&myself, SCRIPTS).unwrap();
        // The same without its loader.
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64] = 1;
        fs::write(&path, &bytes).unwrap();
        assert!(refused(&path).contains("linked statically"));
        bytes[64] = 3;
        fs::write(&path, &bytes).unwrap();
        preloadable(&path, SCRIPTS).unwrap();
        // Headers beyond the end.
        bytes[39] = 0xff;
        fs::write(&path, &bytes).unwrap();
        preloadable(&path, SCRIPTS).unwrap_err();
        fs::write(&path, "nothing").unwrap();
        assert!(refused(&path).contains("no 64-bit ELF"));
        fs::write(&path, format!("#! {} -x\n", myself.display())).unwrap();
        preloadable(&path, SCRIPTS).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(refused(&path).contains("setuid"));
        // A script that is its own interpreter has an end.
        let own = folder.path().join("own");
        fs::write(&own, format!("#!{}\n", own.display())).unwrap();
        assert!(refused(&own).contains("without an interpreter"));
    }

    #[test]
    fn the_socket_is_the_one_beside_the_control_socket() {
        let path = |named: Option<&str>, control: Option<&str>| {
            socket(named.map(Path::new), control.map(Into::into))
        };
        assert_eq!(path(None, None), Path::new("/run/uvs/uvs.sock.nl"));
        assert_eq!(path(None, Some("")), Path::new("/run/uvs/uvs.sock.nl"));
        assert_eq!(path(None, Some("/run/b.sock")), Path::new("/run/b.sock.nl"));
        assert_eq!(path(Some("/n"), Some("/run/b.sock")), Path::new("/n"));
    }

    #[test]
    fn what_is_missing_is_told() {
        let options = |command: &str, library: Option<PathBuf>| Options {
            netlink: Some(PathBuf::from("/nowhere/uvs.sock.nl")),
            library,
            command: vec![command.into()],
        };
        let library = Some(env::current_exe().unwrap());
        let told = |options| prepare(&options).unwrap_err().to_string();
        assert_eq!(
            told(options("no-such-program", library.clone())),
            "no-such-program: command not found"
        );
        assert_eq!(
            told(options("sh", library)),
            "/nowhere/uvs.sock.nl: No such file or directory (os error 2); accepted: the socket of a running uvsd \
             (director.netlink), by --netlink"
        );
        assert_eq!(
            told(options("sh", Some("/nowhere/l.so".into()))),
            "/nowhere/l.so is not found; accepted: the library libuvs-ipvs.so, by --library"
        );
    }
}
