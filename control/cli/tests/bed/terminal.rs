//! A terminal as a program sees one: what it draws, and how it leaves it.

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long something may take to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module's text.
pub(crate) struct Terminal {
    /// The side of the person.
    person: OwnedFd,
    /// The side of the program.
    program: OwnedFd,
    columns: usize,
    rows: usize,
    cells: Vec<Vec<char>>,
    cursor: (usize, usize),
    /// Bytes of a sequence that has not ended yet.
    pending: Vec<u8>,
    /// Whether the other screen is shown.
    is_other: bool,
    /// Whether it ever was.
    pub(crate) was_other: bool,
    is_cursor_shown: bool,
}

impl Terminal {
    pub(crate) fn new(columns: u16, rows: u16) -> Terminal {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let person = person.unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let program = ioctl_tiocgptpeer(&person, flags).unwrap();
        rustix::io::ioctl_fionbio(&person, true).unwrap();
        let mut terminal = Terminal {
            person,
            program,
            columns: 0,
            rows: 0,
            cells: Vec::new(),
            cursor: (0, 0),
            pending: Vec::new(),
            is_other: false,
            was_other: false,
            is_cursor_shown: true,
        };
        terminal.resize(columns, rows);
        terminal
    }

    /// Another size. Programs hear of it by SIGWINCH, which the caller sends: this is nobody's controlling terminal.
    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.program, size).unwrap();
        (self.columns, self.rows) = (columns.into(), rows.into());
        self.cells = vec![vec![' '; self.columns]; self.rows];
    }

    /// Starts a program here.
    pub(crate) fn spawn(&self, command: &mut Command) -> Child {
        let end = || self.program.try_clone().unwrap();
        command.env("TERM", "xterm");
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        // It would keep this side of the terminal open.
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        child
    }

    pub(crate) fn press(&self, keys: &str) {
        rustix::io::write(&self.person, keys.as_bytes()).unwrap();
    }

    /// Waits until a line of the screen has this text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let since = Instant::now();
        while !self.screen().contains(text) {
            let screen = self.screen();
            assert!(since.elapsed() < PATIENCE, "no {text:?} in\n{screen}");
            std::thread::sleep(Duration::from_millis(10));
            self.read();
        }
    }

    pub(crate) fn screen(&self) -> String {
        let lines = self
            .cells
            .iter()
            .map(|line| line.iter().collect::<String>());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Waits for a program's end.
    pub(crate) fn wait(&mut self, child: &mut Child) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                self.read();
                return status;
            }
            if since.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("it does not end:\n{}", self.screen());
            }
            std::thread::sleep(Duration::from_millis(10));
            self.read();
        }
    }

    /// That a program has it as its own: its own screen, each key at once.
    pub(crate) fn assert_taken(&self) {
        assert!(self.is_other && !self.is_cooked(), "{}", self.screen());
    }

    /// That it is as a shell wants it.
    pub(crate) fn assert_as_before(&self) {
        assert!(!self.is_other, "the other screen is still shown");
        assert!(self.is_cursor_shown, "there is no cursor");
        assert!(self.is_cooked(), "lines are not edited, or not echoed");
    }

    fn is_cooked(&self) -> bool {
        let modes = tcgetattr(self.program.as_fd()).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// The person's side goes, as when a line breaks.
    pub(crate) fn close(self) {}

    /// Takes in what the program wrote.
    fn read(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = rustix::io::read(&self.person, &mut bytes) {
            self.pending.extend_from_slice(&bytes[..count]);
            while let Some(used) = self.take() {
                self.pending.drain(..used);
            }
        }
    }

    /// Does what the first sequence or letter says, and tells its length; `None`: it has not come whole.
    fn take(&mut self) -> Option<usize> {
        let first = *self.pending.first()?;
        if first == 0x1b {
            let mut rest = self.pending.iter().skip(2);
            let end = rest.position(|byte| (0x40..0x7f).contains(byte))? + 3;
            let words = String::from_utf8_lossy(&self.pending[2..end]).into_owned();
            self.obey(&words);
            return Some(end);
        }
        let len = match first {
            0..0x80 => 1,
            0x80..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        };
        let letter = std::str::from_utf8(self.pending.get(..len)?).unwrap_or("?");
        let letter = letter.chars().next().unwrap_or('?');
        match letter {
            '\r' => self.cursor.1 = 0,
            '\n' => self.cursor.0 += 1,
            _ => {
                let (row, column) = self.cursor;
                if let Some(cell) = self.cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                    *cell = letter;
                }
                self.cursor.1 += 1;
            }
        }
        Some(len)
    }

    /// The sequences that matter. Source: XTerm Control Sequences.
    fn obey(&mut self, words: &str) {
        match words {
            "?1049h" => (self.is_other, self.was_other) = (true, true),
            "?1049l" => self.is_other = false,
            "?25h" => self.is_cursor_shown = true,
            "?25l" => self.is_cursor_shown = false,
            "2J" => self.cells = vec![vec![' '; self.columns]; self.rows],
            _ => {
                if let Some(place) = words.strip_suffix('H') {
                    let (row, column) = place.split_once(';').unwrap_or(("1", "1"));
                    let number = |text: &str| text.parse::<usize>().unwrap_or(1).max(1) - 1;
                    self.cursor = (number(row), number(column));
                }
            }
        }
    }
}
