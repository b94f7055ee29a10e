//! The portable form of a store's contents, one JSON line a record: what an export writes and an import reads, whatever the
//! journal on disk looks like. The shapes here are a format: they change only together with [`VERSION`]. Documented in
//! `docs/operations.md`.

mod delivery;
mod event;
mod text;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::event::{AuditedShape, EventShape, RememberedShape};
use super::StoreError;
use super::fact::{Audited, Remembered, Snapshot};
use crate::name::RevisionHash;

pub const FORMAT: &str = "router-export";
pub const VERSION: u32 = 1;
/// Keys that one file may bring: each is tried at every look-up of an identity from then on.
pub(crate) const HASHINGS_MAX: usize = 64;

/// One line of an export, read and checked.
#[derive(Debug)]
pub struct Record {
    pub(crate) content: Content,
    /// Length of its line: what it weighs while it waits.
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) enum Content {
    Header(Header),
    Revision {
        hash: RevisionHash,
        text: Arc<str>,
    },
    Event(Box<Snapshot>),
    Remembered(Box<Remembered>),
    Audited(Box<Audited>),
    /// The export was whole.
    End,
}

/// The first line: what all others mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Names the journal that it came from.
    pub(crate) journal: u64,
    pub(crate) at: Timestamp,
    /// What the hashes in the other lines were made with.
    pub(crate) hashings: Vec<[u8; 16]>,
}

impl Record {
    /// Reads one line. The error says what is wrong with it, for a person.
    pub fn parse(line: &str) -> Result<Self, String> {
        let content = match serde_json::from_str::<Line>(line) {
            Ok(line) => line.back()?,
            Err(error) => match serde_json::from_str::<Header_>(line) {
                Ok(header) => Content::Header(header.back()?),
                Err(of_header) if line.contains("\"format\"") => return Err(of_header.to_string()),
                Err(_) => return Err(error.to_string()),
            },
        };
        Ok(Self { content, bytes: line.len() })
    }

    pub fn is_header(&self) -> bool {
        matches!(self.content, Content::Header(_))
    }

    /// The last line of an export that was written to its end.
    pub fn is_end(&self) -> bool {
        matches!(self.content, Content::End)
    }
}

/// Lines of an export that stand together, as far as they can be read.
#[derive(Debug)]
pub struct Lines {
    /// Up to the first line that is none.
    pub records: Vec<Record>,
    pub wrong: Option<WrongLine>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct WrongLine {
    /// Counts from 1.
    pub line: usize,
    pub why: String,
}

/// Reads lines of which the first is a header: without one nobody can tell what the others mean.
pub fn parse_lines(text: &str) -> Lines {
    let mut records = Vec::new();
    let lines = text.lines().zip(1..).filter(|(text, _)| !text.trim().is_empty());
    for (text, line) in lines {
        let wrong = |why| Some(WrongLine { line, why });
        match Record::parse(text) {
            Ok(record) if records.is_empty() && !record.is_header() => {
                let why = format!(
                    "it is not the header of an export; the first line begins with {{\"format\":\"{FORMAT}\""
                );
                return Lines { records, wrong: wrong(why) };
            }
            Ok(record) => records.push(record),
            Err(why) => return Lines { records, wrong: wrong(why) },
        }
    }
    Lines { records, wrong: None }
}

/// The line of a record, without its line break.
pub(crate) fn line_of(content: &Content) -> String {
    let line = match content {
        Content::Header(header) => return text_of(&Header_::of(header)),
        Content::Revision { hash, text } => {
            Line::Revision(RevisionShape { hash: hash.clone(), text: text.clone() })
        }
        Content::Event(snapshot) => Line::Event(Box::new(EventShape::of(snapshot))),
        Content::Remembered(remembered) => Line::Remembered(RememberedShape::of(remembered)),
        Content::Audited(audited) => Line::Audited(AuditedShape::of(audited)),
        Content::End => Line::End(EndShape {}),
    };
    text_of(&line)
}

fn text_of<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("all keys are text, and no shape here refuses")
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Header_ {
    format: String,
    version: u32,
    #[serde(with = "text::hex")]
    journal: [u8; 8],
    #[serde(with = "text::time")]
    at: Timestamp,
    hashings: Vec<text::Hex<16>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    Revision(RevisionShape),
    Event(Box<EventShape>),
    Remembered(RememberedShape),
    Audited(AuditedShape),
    End(EndShape),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevisionShape {
    hash: RevisionHash,
    text: Arc<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndShape {}

impl Header_ {
    fn of(header: &Header) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            journal: header.journal.to_be_bytes(),
            at: header.at,
            hashings: header.hashings.iter().map(|secret| text::Hex(*secret)).collect(),
        }
    }

    fn back(self) -> Result<Header, String> {
        if self.format != FORMAT {
            return Err(format!("its format is `{}`, not `{FORMAT}`", self.format));
        }
        if self.version != VERSION {
            return Err(format!(
                "version {} of the format was written by a newer router; this one reads version {VERSION}",
                self.version
            ));
        }
        if self.hashings.len() > HASHINGS_MAX {
            return Err(format!("more than {HASHINGS_MAX} `hashings`"));
        }
        Ok(Header {
            journal: u64::from_be_bytes(self.journal),
            at: self.at,
            hashings: self.hashings.into_iter().map(|secret| secret.0).collect(),
        })
    }
}

impl Line {
    fn back(self) -> Result<Content, String> {
        Ok(match self {
            Line::Revision(RevisionShape { hash, text }) => Content::Revision { hash, text },
            Line::Event(event) => Content::Event(Box::new(event.back()?)),
            Line::Remembered(remembered) => Content::Remembered(Box::new(remembered.back())),
            Line::Audited(audited) => Content::Audited(Box::new(audited.back())),
            Line::End(EndShape {}) => Content::End,
        })
    }
}

/// Where an export goes on. To be given back as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportCursor(pub(crate) Stage);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// After the row with this sequence.
    Rows(u64),
    /// After so many acts of operators in this segment.
    Acts { segment: u32, count: u32 },
}

impl fmt::Display for ExportCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Stage::Rows(sequence) => write!(f, "rows-{sequence}"),
            Stage::Acts { segment, count } => write!(f, "acts-{segment}-{count}"),
        }
    }
}

impl FromStr for ExportCursor {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let stage = match text.split_once('-') {
            Some(("rows", sequence)) => sequence.parse().ok().map(Stage::Rows),
            Some(("acts", place)) => place.split_once('-').and_then(|(segment, count)| {
                Some(Stage::Acts { segment: segment.parse().ok()?, count: count.parse().ok()? })
            }),
            Some(_) | None => None,
        };
        stage.map(Self).ok_or_else(|| {
            StoreError::Refusing(format!(
                "`{text}` is no cursor of an export; give back the last one"
            ))
        })
    }
}

/// A part of an export.
#[derive(Clone, Debug)]
pub struct ExportPage {
    /// Each a record; see [`Record`].
    pub lines: Vec<String>,
    /// `None` at the end.
    pub next: Option<ExportCursor>,
}

/// What an import came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Events that were taken in.
    pub events: u64,
    /// Events that were here already, by their uid or by an identity.
    pub known: u64,
    /// Texts of routes, ids of expired events and acts of operators that were taken in.
    pub others: u64,
    /// Records that this is the result of, from the first on.
    pub records: u64,
}

/// What one record came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Event,
    Known,
    Other,
    /// There was nothing to take.
    Nothing,
}

impl Imported {
    pub(crate) fn count(&mut self, taken: Taken) {
        self.records += 1;
        match taken {
            Taken::Event => self.events += 1,
            Taken::Known => self.known += 1,
            Taken::Other => self.others += 1,
            Taken::Nothing => {}
        }
    }
}

/// An import that could not go on. What was taken before stays.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct ImportStopped {
    pub so_far: Imported,
    pub error: StoreError,
}

#[cfg(test)]
mod tests;
