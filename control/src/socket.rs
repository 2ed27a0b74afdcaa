//! The control socket: one uvsd for each path, whatever an earlier one left there.

use rustix::fs::{FlockOperation, flock};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Who may connect: the owner and the group.
const MODE: u32 = 0o660;
/// Clients that may wait to be let in.
const BACKLOG: i32 = 128;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another uvsd has it.
    #[error("control socket {}: another uvsd listens there; accepted: stop it, or another path in director.control", .0.display())]
    Taken(PathBuf),
    /// Something that is not a socket is there.
    #[error("control socket {}: a file that is no socket is there; accepted: remove it, or another path in director.control", .0.display())]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("control socket {}: {error}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
}

/// A listening socket. It is removed when this is dropped, if it is still there.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    inode: u64,
    /// Locked as long as the socket is ours. The file stays: removing it would let two processes lock different ones.
    _lock: File,
}

impl ControlSocket {
    /// Listens at `path`. Its folder is made if need be; a socket that nobody listens at is replaced.
    ///
    /// # Errors
    /// When somebody listens there, or the system refuses.
    pub fn bind(path: &Path) -> Result<(ControlSocket, UnixListener), SocketError> {
        ControlSocket::bind_as(path, SocketType::STREAM)
    }

    /// As [`bind`](Self::bind), for whole datagrams (`SOCK_SEQPACKET`) instead of a stream, although the standard library's type has the name of one.
    ///
    /// # Errors
    /// As `bind`.
    pub fn bind_datagrams(path: &Path) -> Result<(ControlSocket, UnixListener), SocketError> {
        ControlSocket::bind_as(path, SocketType::SEQPACKET)
    }

    fn bind_as(path: &Path, of: SocketType) -> Result<(ControlSocket, UnixListener), SocketError> {
        let io = |error| SocketError::Io {
            path: path.to_owned(),
            error,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io)?;
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE)
            .open(beside(path, ".lock"));
        let lock = lock.map_err(io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(SocketError::Taken(path.to_owned())),
            Err(error) => return Err(io(error.into())),
        }
        vacant(path)?;
        let listener = place(path, of).map_err(io)?;
        let inode = fs::symlink_metadata(path).map_err(io)?.ino();
        Ok((
            ControlSocket {
                path: path.to_owned(),
                inode,
                _lock: lock,
            },
            listener,
        ))
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            // If it cannot be removed, the next uvsd replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether nobody listens at `path`, not even a program that knows nothing of the lock.
fn vacant(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(SocketError::Io {
                path: path.to_owned(),
                error,
            });
        }
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        _ => Err(SocketError::Taken(path.to_owned())),
    }
}

/// Makes the socket under another name first, so that it never stands there with other permissions.
fn place(path: &Path, of: SocketType) -> io::Result<UnixListener> {
    let new = beside(path, ".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = socket_with(AddressFamily::UNIX, of, SocketFlags::CLOEXEC, None)?;
    bind(&listener, &SocketAddrUnix::new(&new)?)?;
    listen(&listener, BACKLOG)?;
    fs::set_permissions(&new, Permissions::from_mode(MODE))?;
    fs::rename(&new, path)?;
    Ok(listener.into())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_listener_is_told_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/uvs.sock");
        let (socket, _listener) = ControlSocket::bind(&path).unwrap();
        assert!(matches!(
            ControlSocket::bind(&path),
            Err(SocketError::Taken(_))
        ));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            MODE
        );
        drop(socket);
        assert!(!path.exists());
        ControlSocket::bind(&path).unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uvs.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_socket, _listener) = ControlSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_listener_that_knows_no_lock_is_respected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uvs.sock");
        let _other = UnixListener::bind(&path).unwrap();
        assert!(matches!(
            ControlSocket::bind(&path),
            Err(SocketError::Taken(_))
        ));
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uvs.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            ControlSocket::bind(&path),
            Err(SocketError::NotASocket(_))
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_socket_that_another_took_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uvs.sock");
        let (socket, _listener) = ControlSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(socket);
        assert!(path.exists());
    }
}
