//! `-R`: rules from the standard input, line by line as ipvsadm 1.31 does it, or all at once.
//!
//! Lines that follow each other are made one change, as long as they come without waiting. Where that is refused, its halves
//! are tried, so that in the end each line has done or said what it would have alone.

use super::run::{Done, Session};
use super::{Command, Mistake, carry, parse};
use crate::remote::{Terms, Wish};
use carry::Rules;
use control::grpc::messages::state_of;
use std::io::{BufRead, BufReader, Read};
use tonic::Code;

/// Bytes read at once, at most.
pub(super) const READ_AHEAD: usize = 1 << 16;
/// Lines made one change, at most: a director takes 10,000 edits at once.
const LINES_AT_ONCE: usize = 2000;
/// Bytes of a line, at most.
const LINE_LEN: u64 = 1 << 16;
/// How often all lines are worked out anew because somebody else's change came between.
const ATTEMPTS: usize = 5;

/// In which way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// All lines or none.
    pub(super) atomic: bool,
    /// As `ipvsadm-restore`: what was there goes, and lines that begin with `#` are none.
    pub(super) anew: bool,
}

/// The words of a line; none of a line that says nothing.
pub(crate) fn words_of(line: &str) -> Vec<String> {
    let words = line.split_whitespace();
    let words = words.skip_while(|word| *word == "ipvsadm");
    words.map(str::to_owned).collect()
}

/// Reads and does; the exit status.
pub(super) fn run<R: Read>(
    session: &mut Session<'_>,
    input: &mut BufReader<R>,
    manner: Manner,
) -> u8 {
    if let Err(refusal) = session.remote() {
        return session.refused(&refusal).status;
    }
    if manner.atomic {
        return all_or_none(session, input, manner.anew);
    }
    let mut waiting = Vec::new();
    let mut status = 0;
    if manner.anew {
        status = session.done(Ok(Command::Clear)).status;
    }
    while let Some(line) = next_line(session, input) {
        let Ok(line) = line else { return 255 };
        let words = words_of(&line);
        if words.is_empty() || manner.anew && line.starts_with('#') {
            continue;
        }
        match understood(&words) {
            Ok(command) if can_wait(&command) => {
                waiting.push(command);
                if waiting.len() < LINES_AT_ONCE && !input.buffer().is_empty() {
                    continue;
                }
                status = flush(session, &mut waiting).unwrap_or(status);
            }
            other => {
                flush(session, &mut waiting);
                let done = session.done(other);
                status = done.status;
                if done.is_last {
                    return status;
                }
            }
        }
    }
    flush(session, &mut waiting).unwrap_or(status)
}

/// A line of `-R` is a command, but no other `-R`.
fn understood(words: &[String]) -> Result<Command, Mistake> {
    match parse(words)? {
        Command::Restore { .. } => Err(Mistake::NoCommand),
        command => Ok(command),
    }
}

/// Whether a command can be made one change with others: it does not depend on what is there.
fn can_wait(command: &Command) -> bool {
    let is_change = matches!(
        command,
        Command::AddService(_)
            | Command::AddServer(..)
            | Command::EditServer { .. }
            | Command::DeleteServer(..)
    );
    is_change && !carry::needs_rules(command)
}

/// Does the commands that wait; the status of the last one, if there is one.
fn flush(session: &mut Session<'_>, waiting: &mut Vec<Command>) -> Option<u8> {
    let commands = std::mem::take(waiting);
    (!commands.is_empty()).then(|| do_all(session, &commands).status)
}

fn do_all(session: &mut Session<'_>, commands: &[Command]) -> Done {
    match session.change(commands) {
        Ok(()) => Done {
            status: 0,
            is_last: false,
        },
        Err(refusal) if commands.len() == 1 => session.refused(&refusal),
        Err(_) => {
            let (first, second) = commands.split_at(commands.len() / 2);
            do_all(session, first);
            do_all(session, second)
        }
    }
}

/// The next line, or that it cannot be read, which is told.
fn next_line<R: Read>(
    session: &mut Session<'_>,
    input: &mut BufReader<R>,
) -> Option<Result<String, ()>> {
    let mut line = Vec::new();
    let read = input.by_ref().take(LINE_LEN).read_until(b'\n', &mut line);
    match read {
        Ok(0) => None,
        Ok(len) if len as u64 == LINE_LEN => {
            session.complain(&"a line is too long; accepted: 65535 bytes");
            Some(Err(()))
        }
        Ok(_) => Some(Ok(String::from_utf8_lossy(&line).into_owned())),
        Err(error) => {
            session.complain(&format_args!("standard input: {error}"));
            Some(Err(()))
        }
    }
}

/// `--atomic`: the first line that cannot be done is told with its number, and nothing changes.
fn all_or_none<R: Read>(session: &mut Session<'_>, input: &mut BufReader<R>, anew: bool) -> u8 {
    let mut commands = Vec::new();
    if anew {
        commands.push((0, Command::Clear));
    }
    for number in 1.. {
        let line = match next_line(session, input) {
            None => break,
            Some(Ok(line)) => line,
            Some(Err(())) => return 255,
        };
        let words = words_of(&line);
        if words.is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match understood(&words) {
            Ok(command) => commands.push((number, command)),
            Err(mistake) => {
                session.complain(&format_args!("line {number}: {mistake}"));
                return mistake.exit_status();
            }
        }
    }
    for attempt in 1.. {
        let (mut rules, revision) = match session.rules() {
            Ok(known) => known,
            Err(refusal) => return session.refused(&refusal).status,
        };
        if let Err((number, refusal)) = change_all(&mut rules, &commands) {
            session.complain(&format_args!("line {number}: {refusal}"));
            return refusal.exit_status();
        }
        let terms = Terms {
            expected_revision: revision,
            ..Terms::default()
        };
        let wish = Wish::State(state_of(rules.configuration()));
        let changed = session
            .remote()
            .map(|remote| remote.change(wish, terms).map(drop));
        match changed {
            Ok(Ok(())) => return 0,
            Ok(Err(status)) if status.code() == Code::Aborted && attempt < ATTEMPTS => {}
            Ok(Err(status)) => {
                session.complain(&super::refusal::told(&status));
                return 255;
            }
            Err(refusal) => return session.refused(&refusal).status,
        }
    }
    unreachable!("the last attempt returns")
}

fn change_all(
    rules: &mut Rules,
    commands: &[(usize, Command)],
) -> Result<(), (usize, super::Refusal)> {
    for (number, command) in commands {
        rules
            .change(command)
            .map_err(|refusal| (*number, refusal))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_begin_with_the_programs_name() {
        assert_eq!(
            words_of("  ipvsadm -A\t-t 10.0.0.1:80 \n"),
            ["-A", "-t", "10.0.0.1:80"]
        );
        assert!(words_of("ipvsadm\n").is_empty());
        assert_eq!(words_of("/sbin/ipvsadm -C"), ["/sbin/ipvsadm", "-C"]);
    }
}
