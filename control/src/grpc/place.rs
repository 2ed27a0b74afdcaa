//! Where in a message something is wrong: noted as the configuration's own findings are, in the words of its keys.

use crate::config::keys::{Accepts, Key, Table};
use crate::config::{Finding, KeyPath, Problem};
use std::cell::RefCell;
use std::fmt::Display;

/// A place in a message. Its path is put together only when something is wrong there.
pub(super) struct Place<'p> {
    step: Step<'p>,
    parent: Option<&'p Place<'p>>,
    found: &'p RefCell<Vec<Finding>>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Top,
    Key(&'p str),
    Index(usize),
}

impl<'p> Place<'p> {
    /// A message as such; what is wrong in it goes to `found`.
    pub(super) fn top(found: &'p RefCell<Vec<Finding>>) -> Place<'p> {
        Place {
            step: Step::Top,
            parent: None,
            found,
        }
    }

    /// A field of the message here.
    pub(super) fn key<'s>(&'s self, name: &'s str) -> Place<'s>
    where
        'p: 's,
    {
        self.below(Step::Key(name))
    }

    /// An element of the list here.
    pub(super) fn index<'s>(&'s self, index: usize) -> Place<'s>
    where
        'p: 's,
    {
        self.below(Step::Index(index))
    }

    fn below<'s>(&'s self, step: Step<'s>) -> Place<'s>
    where
        'p: 's,
    {
        Place {
            step,
            parent: Some(self),
            found: self.found,
        }
    }

    fn path(&self) -> KeyPath {
        let above = self.parent.map(Place::path).unwrap_or_default();
        match self.step {
            Step::Top => above,
            Step::Key(name) => above.key(name),
            Step::Index(index) => above.index(index),
        }
    }

    pub(super) fn note(&self, problem: Problem) {
        let finding = Finding {
            path: self.path(),
            problem,
        };
        self.found.borrow_mut().push(finding);
    }

    /// Notes that a value is not what a key takes.
    pub(super) fn refuse(&self, value: impl Display, key: &Key) {
        self.note(Problem::NotA {
            value: value.to_string(),
            what: key.each,
            accepted: key.accepts.describe(),
        });
    }

    /// Notes that something must be here.
    pub(super) fn missing(&self, what: &'static str, accepted: impl Into<String>) {
        self.note(Problem::Missing {
            what,
            accepted: accepted.into(),
        });
    }

    /// A number within the bounds of a key; anything else is noted.
    pub(super) fn number<T: TryFrom<u64>>(&self, value: u32, of: &Table, key: &str) -> Option<T> {
        let key = of.key(key);
        let Accepts::Number(low, high) = key.accepts else {
            unreachable!("{} is declared to take a number", key.name)
        };
        let value = u64::from(value);
        let number = T::try_from(value)
            .ok()
            .filter(|_| (low..=high).contains(&value));
        if number.is_none() {
            self.refuse(value, key);
        }
        number
    }

    /// One of the words of a key; anything else is noted.
    pub(super) fn word(&self, value: &str, of: &Table, key: &str) -> Option<&'static str> {
        let key = of.key(key);
        let words = key.accepts.words();
        let word = words.into_iter().find(|word| *word == value);
        if word.is_none() {
            self.refuse(format_args!("{value:?}"), key);
        }
        word
    }

    /// What `parse` understands; anything else is noted.
    pub(super) fn parsed<T>(
        &self,
        value: &str,
        of: &Table,
        key: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(value);
        if parsed.is_none() {
            self.refuse(format_args!("{value:?}"), of.key(key));
        }
        parsed
    }

    /// The elements of a list of at most `limit`; a longer one is noted, and none of it is read.
    pub(super) fn list<'v, T>(&self, values: &'v [T], what: &'static str, limit: usize) -> &'v [T] {
        if values.len() > limit {
            self.note(Problem::TooMany {
                count: values.len(),
                what,
                limit,
            });
            return &[];
        }
        values
    }
}
