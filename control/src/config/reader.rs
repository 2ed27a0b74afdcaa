//! Walks the tables of a TOML text: hands out values that are what their key takes, and notes every one that is not.

use super::keys::{Accepts, Key, Table};
use super::mistake::{Finding, KeyPath, Problem, Step};
use std::cell::RefCell;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest text of a value that a message repeats, characters.
const VALUE_TOLD: usize = 60;
/// A key longer than this resembles none.
const LONGEST_KEY: usize = 40;

/// The text being read and what was found wrong with it.
pub(super) struct Reader<'t> {
    text: &'t str,
    findings: RefCell<Vec<Finding>>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Reader<'t> {
        Reader {
            text,
            findings: RefCell::default(),
        }
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings.into_inner()
    }

    pub(super) fn note(&self, path: KeyPath, problem: Problem) {
        self.findings.borrow_mut().push(Finding { path, problem });
    }

    /// A value as it is written, cut where it is long.
    fn written(&self, value: &Spanned<DeValue<'_>>) -> String {
        match value.get_ref() {
            DeValue::Table(_) => return "a table".to_owned(),
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                return "a list of tables".to_owned();
            }
            _ => {}
        }
        let text = self.text.get(value.span()).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let mut told: String = line.chars().take(VALUE_TOLD).collect();
        if told.len() < text.len() {
            told.push_str("...");
        }
        told
    }
}

/// One table of the text.
pub(super) struct Section<'r, 't> {
    reader: &'r Reader<'t>,
    schema: &'static Table,
    /// Where it stands.
    pub(super) path: KeyPath,
    table: &'r DeTable<'t>,
}

/// A value of a section's key, or an element of a list.
pub(super) struct Value<'r, 't> {
    reader: &'r Reader<'t>,
    key: &'static Key,
    /// What it should be, with the article.
    what: &'static str,
    path: KeyPath,
    value: &'r Spanned<DeValue<'t>>,
}

impl<'r, 't> Section<'r, 't> {
    /// Notes the keys of `table` that `schema` does not know.
    pub(super) fn new(
        reader: &'r Reader<'t>,
        schema: &'static Table,
        path: KeyPath,
        table: &'r DeTable<'t>,
    ) -> Self {
        for (key, _) in table {
            let key = key.get_ref();
            if !schema.keys.iter().any(|known| known.name == key) {
                let known = schema.keys.iter().map(|known| known.name).collect();
                reader.note(
                    path.key(key),
                    Problem::UnknownKey {
                        nearest: nearest(schema, key),
                        known,
                    },
                );
            }
        }
        Section {
            reader,
            schema,
            path,
            table,
        }
    }

    /// The value of a key, if it is there. A required one that is missing is noted.
    pub(super) fn get(&self, name: &str) -> Option<Value<'r, 't>> {
        let key = self.schema.key(name);
        let Some(value) = self.table.get(name) else {
            if key.default.is_none() {
                self.note(
                    name,
                    Problem::Missing {
                        what: key.what,
                        accepted: key.accepts.describe(),
                    },
                );
            }
            return None;
        };
        Some(Value {
            reader: self.reader,
            key,
            what: key.what,
            path: self.path.key(name),
            value,
        })
    }

    /// Whether the key is not there at all.
    pub(super) fn is_absent(&self, name: &str) -> bool {
        !self.table.contains_key(name)
    }

    /// A number within the key's bounds.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.number()
    }

    /// The position of a word among those the key takes.
    pub(super) fn word(&self, name: &str) -> Option<&'static str> {
        let value = self.get(name)?;
        let words = value.key.accepts.words();
        value.parse(|text| words.iter().copied().find(|word| *word == text))
    }

    /// A string that `parse` understands.
    pub(super) fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.get(name)?.parse(parse)
    }

    /// The section of a table below this one, empty where it is not there.
    pub(super) fn table(&self, name: &str, schema: &'static Table) -> Option<Section<'r, 't>> {
        self.get(name)?.section(schema)
    }

    /// The sections of a list of tables (`[[name]]`), at most `limit` of them.
    pub(super) fn tables(
        &self,
        name: &str,
        schema: &'static Table,
        limit: usize,
    ) -> Vec<Section<'r, 't>> {
        let Some(value) = self.get(name) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.value.get_ref() else {
            value.refuse_as(
                "a list of tables",
                format!("[[{}]] above each", schema.name),
            );
            return Vec::new();
        };
        if items.len() > limit {
            value.note(Problem::TooMany {
                count: items.len(),
                what: "entries",
                limit,
            });
            return Vec::new();
        }
        let elements = items.iter().enumerate();
        elements
            .filter_map(|(index, item)| value.element(index, item).section(schema))
            .collect()
    }

    /// The tables below this one by names of the user's choice.
    pub(super) fn named(
        &self,
        name: &str,
        schema: &'static Table,
    ) -> Vec<(&'r str, Section<'r, 't>)> {
        let Some(value) = self.get(name) else {
            return Vec::new();
        };
        let DeValue::Table(table) = value.value.get_ref() else {
            value.refuse_as(
                "a table of tables",
                format!("[{}.NAME] above each", schema.name),
            );
            return Vec::new();
        };
        let entries = table.iter().filter_map(|(key, item)| {
            let name: &'r str = key.get_ref();
            let path = value.path.key(name);
            Some((name, value.at(path, item).section(schema)?))
        });
        entries.collect()
    }

    pub(super) fn note(&self, name: &str, problem: Problem) {
        self.reader.note(self.path.key(name), problem);
    }

    /// A name of the user's choice in this section's own path does not do.
    pub(super) fn refuse_name(&self, name: &str, what: &'static str, accepted: &str) {
        let value = name.chars().take(VALUE_TOLD).collect();
        self.reader.note(
            self.path.clone(),
            Problem::NotA {
                value,
                what,
                accepted: accepted.to_owned(),
            },
        );
    }
}

impl<'r, 't> Value<'r, 't> {
    pub(super) fn number(&self) -> Option<u64> {
        let Accepts::Number(low, high) = self.key.accepts else {
            unreachable!("{} is declared to take a number", self.key.name)
        };
        let number = self
            .integer()
            .filter(|number| (low..=high).contains(number));
        if number.is_none() {
            self.refuse();
        }
        number
    }

    /// The value as a number of no bounds, without complaint.
    pub(super) fn integer(&self) -> Option<u64> {
        let integer = self.value.get_ref().as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// The value as a boolean, without complaint.
    pub(super) fn boolean(&self) -> Option<bool> {
        self.value.get_ref().as_bool()
    }

    /// A string that `parse` understands; anything else is noted.
    pub(super) fn parse<T>(&self, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let parsed = self.value.get_ref().as_str().and_then(parse);
        if parsed.is_none() {
            self.refuse();
        }
        parsed
    }

    /// The elements of a list, at most `limit`; anything else is noted.
    pub(super) fn list(&self, limit: usize) -> Vec<Value<'r, 't>> {
        let DeValue::Array(items) = self.value.get_ref() else {
            self.refuse();
            return Vec::new();
        };
        if items.len() > limit {
            self.note(Problem::TooMany {
                count: items.len(),
                what: "entries",
                limit,
            });
            return Vec::new();
        }
        items
            .iter()
            .enumerate()
            .map(|(index, item)| self.element(index, item))
            .collect()
    }

    /// Whether the value is `[]`.
    pub(super) fn is_empty_list(&self) -> bool {
        self.value
            .get_ref()
            .as_array()
            .is_some_and(|items| items.is_empty())
    }

    /// Notes that the value is not what the key takes.
    pub(super) fn refuse(&self) {
        self.refuse_as(self.what, self.key.accepts.describe());
    }

    pub(super) fn note(&self, problem: Problem) {
        self.reader.note(self.path.clone(), problem);
    }

    fn refuse_as(&self, what: &'static str, accepted: String) {
        self.note(Problem::NotA {
            value: self.reader.written(self.value),
            what,
            accepted,
        });
    }

    fn element(&self, index: usize, item: &'r Spanned<DeValue<'t>>) -> Value<'r, 't> {
        self.at(self.path.index(index), item)
    }

    fn at(&self, path: KeyPath, value: &'r Spanned<DeValue<'t>>) -> Value<'r, 't> {
        Value {
            reader: self.reader,
            key: self.key,
            what: self.key.each,
            path,
            value,
        }
    }

    fn section(&self, schema: &'static Table) -> Option<Section<'r, 't>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            self.refuse_as("a table", format!("[{}] above its keys", schema.name));
            return None;
        };
        Some(Section::new(self.reader, schema, self.path.clone(), table))
    }
}

/// The known key that `key` most resembles, if it does.
fn nearest(schema: &Table, key: &str) -> Option<&'static str> {
    if key.len() > LONGEST_KEY {
        return None;
    }
    let distances = schema
        .keys
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known.name, key), known.name));
    distances
        .min()
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .map(|(_, name)| name)
}

/// Where in the text the value at `path` stands, or the innermost table on the way to it.
pub(super) fn locate(root: &Spanned<DeTable<'_>>, path: &KeyPath) -> Range<usize> {
    let mut table = Some(root.get_ref());
    let mut span = 0..0;
    let mut list = None;
    for step in &path.0 {
        let value = match step {
            Step::Key(key) => table.and_then(|table| {
                let (key, value) = table.get_key_value(key.as_str())?;
                // A header such as [[service]] is told by its key, not by the many lines below it.
                Some((key.span(), value))
            }),
            Step::Index(index) => list
                .and_then(|items: &toml::de::DeArray<'_>| items.get(*index))
                .map(|item| (item.span(), item)),
        };
        let Some((place, value)) = value else { break };
        span = if value.get_ref().is_table() || value.get_ref().is_array() {
            place
        } else {
            value.span()
        };
        table = value.get_ref().as_table();
        list = value.get_ref().as_array();
    }
    span
}
