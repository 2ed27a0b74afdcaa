//! The standard output: what commands tell, and what becomes of it.

use std::io::{self, Write};

/// What was to be told cannot be written, such as to a full disk.
#[derive(Debug, thiserror::Error)]
#[error("standard output: {0}; accepted: a terminal, a pipe, or a file that can be written")]
pub struct OutputError(#[from] io::Error);

/// Writes a text, and lets whoever reads it have it at once. False where nobody reads any more: he has seen enough, and the exit
/// status still tells the outcome.
///
/// # Errors
/// When it cannot be written for another reason.
pub fn tell(out: &mut (impl Write + ?Sized), text: &str) -> Result<bool, OutputError> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(OutputError(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing.
    struct Shut(io::ErrorKind);

    impl Write for Shut {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        assert!(matches!(tell(&mut Vec::new(), "x"), Ok(true)));
        assert!(matches!(
            tell(&mut Shut(io::ErrorKind::BrokenPipe), "x"),
            Ok(false)
        ));
        let error = tell(&mut Shut(io::ErrorKind::StorageFull), "x").unwrap_err();
        assert!(error.to_string().contains("; accepted: "), "{error}");
    }
}
