//! A capture file as a port of a director: for as many workers as there are.

use super::{Capture, CaptureError, PcapPort};
use crate::port::handle::{Link, Opened, PortHandle, PortState};
use crate::port::{PortId, PortInfo};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to open a capture for a director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which port it will be.
    pub id: PortId,
    /// What it says of itself.
    pub info: PortInfo,
    /// How many workers will use it.
    pub workers: u16,
    /// What is received: by the first worker alone, so that it is received in the capture's order.
    pub file: PathBuf,
    /// After its last frame the first one comes again.
    pub infinite: bool,
    /// Where what is sent is written: by the first worker there, by worker N to a file of the same name with `.N` behind it.
    /// Without, it is forgotten.
    pub output: Option<PathBuf>,
}

/// Reads the capture and creates the files to be written.
///
/// # Errors
/// When it is no capture, or a file cannot be read or created.
pub fn open(config: Config) -> Result<Opened<PcapPort>, CaptureError> {
    let capture = Arc::new(Capture::open(&config.file)?);
    let nothing = Arc::new(Capture::empty());
    let mode = mode(&config, &capture);
    let queue = |worker: u16| {
        let capture = if worker == 0 { &capture } else { &nothing };
        let info = config.info.clone();
        let port = PcapPort::new(config.id, info, Arc::clone(capture), config.infinite);
        match &config.output {
            None => Ok(port),
            Some(output) => port.write_to(&output_of(output, worker)),
        }
    };
    let queues: Result<Vec<_>, _> = (0..config.workers).map(queue).collect();
    Ok(Opened {
        queues: queues?,
        handle: Arc::new(Handle {
            frames: capture.len() as u64,
            info: config.info,
            mode,
        }),
    })
}

/// What `uvs status` says of it.
fn mode(config: &Config, capture: &Capture) -> String {
    let how = match (config.infinite, capture.is_truncated()) {
        (false, false) => "",
        (true, false) => ", over and over",
        (false, true) => ", whose end is missing",
        (true, true) => ", whose end is missing, over and over",
    };
    format!("{} frames of {}{how}", capture.len(), config.file.display())
}

fn output_of(output: &Path, worker: u16) -> PathBuf {
    if worker == 0 {
        return output.to_owned();
    }
    let mut name = OsString::from(output);
    name.push(format!(".{worker}"));
    name.into()
}

/// Of a port that never changes.
struct Handle {
    info: PortInfo,
    mode: String,
    frames: u64,
}

impl PortHandle for Handle {
    fn state(&self) -> PortState {
        PortState {
            mac: self.info.mac,
            mtu: self.info.mtu,
            link: Link::Up,
            mode: self.mode.clone(),
        }
    }

    fn statistics(&self) -> Vec<(String, u64)> {
        vec![("frames_in_file".to_owned(), self.frames)]
    }
}
