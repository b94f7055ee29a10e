//! Reads a store's contents out, page by page, in the order in which they stand: events and what is remembered of expired
//! ones, then what operators did to those. What moves on meanwhile is met again where it stands then; an import knows it.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::decide::retention;
use super::fact::{Fact, Position, ReadFacts};
use super::page::About;
use super::portable::{Content, ExportCursor, ExportPage, Header, Stage, line_of};
use super::state::State;
use super::state::rows::{EventKey, RowKind};
use super::view::{Outline, Peek, RowFilter, about_matches};
use super::{Query, StoreError};
use crate::name::RevisionHash;

/// Rows that one page looks at.
const EXAMINED_MAX: usize = 20_000;
/// Rows that are looked at under one hold of the lock.
const ROWS_AT_ONCE: usize = 64;

/// A page of about `bytes_max`, and of one record at least where there is one. It blocks while it reads.
pub(crate) fn page(
    query: &Query,
    cursor: Option<ExportCursor>,
    bytes_max: usize,
    now: Timestamp,
    facts: &dyn ReadFacts,
    state: &impl Peek,
) -> Result<ExportPage, StoreError> {
    let mut page =
        Pages { query, bytes_max, lines: Vec::new(), bytes: 0, revisions: BTreeSet::new() };
    let stage = match cursor {
        Some(ExportCursor(stage)) => stage,
        None => {
            page.push(&Content::Header(state.peek(|state| header(state, now))));
            Stage::Rows(0)
        }
    };
    let next = match stage {
        Stage::Rows(after) => match page.rows(after, facts, state)? {
            Some(stopped) => Some(Stage::Rows(stopped)),
            None => page.acts(Stage::Acts { segment: 0, count: 0 }, facts, state)?,
        },
        acts @ Stage::Acts { .. } => page.acts(acts, facts, state)?,
    };
    if next.is_none() {
        page.push(&Content::End);
    }
    Ok(ExportPage { lines: page.lines, next: next.map(ExportCursor) })
}

fn header(state: &State, now: Timestamp) -> Header {
    let hashings = state.hashings().map(|hashing| hashing.secret()).collect();
    Header { journal: state.hashing.journal(), at: now, hashings }
}

struct Pages<'a> {
    query: &'a Query,
    bytes_max: usize,
    lines: Vec<String>,
    bytes: usize,
    /// Those that stand on this page already.
    revisions: BTreeSet<RevisionHash>,
}

/// A row as it was under the state's lock.
enum Seen {
    Event(Outline),
    Remembered,
}

impl Pages<'_> {
    fn push(&mut self, content: &Content) {
        let line = line_of(content);
        self.bytes += line.len() + 1;
        self.lines.push(line);
    }

    /// Rows after this one. Answers where it stopped, if that is not the end.
    fn rows(
        &mut self,
        after: u64,
        facts: &dyn ReadFacts,
        state: &impl Peek,
    ) -> Result<Option<u64>, StoreError> {
        let mut after = EventKey::from_sequence(after);
        let mut examined = 0;
        loop {
            let seen =
                state.peek(|state| seen_after(state, self.query, self.rest_goes_along(), after));
            if seen.is_empty() {
                return Ok(None);
            }
            for (key, at, seen) in seen {
                examined += 1;
                after = key;
                let read = match &seen {
                    None => Ok(()),
                    Some(Seen::Event(outline)) => self.event(outline, facts, state),
                    Some(Seen::Remembered) => self.remembered(at, facts),
                };
                let moved = || {
                    state.peek(|state| {
                        let row = state.row(key).filter(|row| row.kind != RowKind::Gone);
                        row.is_none() || state.position(key) != at
                    })
                };
                match read {
                    // It stands elsewhere by now and is met there, or it expired.
                    Err(StoreError::Corrupt(_)) if moved() => {}
                    read => read?,
                }
                if self.bytes >= self.bytes_max || examined >= EXAMINED_MAX {
                    return Ok(Some(after.sequence()));
                }
            }
        }
    }

    fn event(
        &mut self,
        outline: &Outline,
        facts: &dyn ReadFacts,
        state: &impl Peek,
    ) -> Result<(), StoreError> {
        let view = outline.read(facts)?;
        if !about_matches(&About::of(&view.envelope), self.query) {
            return Ok(());
        }
        let snapshot = retention::snapshot(outline, view, facts)?;
        // Before the first event that needs it.
        for delivery in &snapshot.deliveries {
            let hash = &delivery.state.revision;
            if self.revisions.insert(hash.clone())
                && let Some(text) = state.peek(|state| state.revision(hash).cloned())
            {
                self.push(&Content::Revision { hash: hash.clone(), text });
            }
        }
        self.push(&Content::Event(Box::new(snapshot)));
        Ok(())
    }

    fn remembered(&mut self, at: Position, facts: &dyn ReadFacts) -> Result<(), StoreError> {
        let Fact::Remembered(remembered) = &*facts.read(at)? else {
            return Err(StoreError::Corrupt(format!("nothing is remembered at {at}")));
        };
        if self.query.source.as_ref().is_none_or(|source| *source == remembered.source) {
            self.push(&Content::Remembered(remembered.clone()));
        }
        Ok(())
    }

    /// What is left of expired events has neither routes nor a status to be chosen by.
    fn rest_goes_along(&self) -> bool {
        let Query { route, status, since, until, .. } = self.query;
        route.is_none() && status.is_none() && since.is_none() && until.is_none()
    }

    /// What operators did to events that expired. Answers where it stopped, if that is not the end.
    fn acts(
        &mut self,
        after: Stage,
        facts: &dyn ReadFacts,
        state: &impl Peek,
    ) -> Result<Option<Stage>, StoreError> {
        let Stage::Acts { segment: from, count: mut done } = after else { return Ok(None) };
        // Which source they were about is not known any more.
        if !self.rest_goes_along() || self.query.source.is_some() {
            return Ok(None);
        }
        let segments: Vec<u32> = state
            .peek(|state| state.shelves().range(from..).map(|(segment, _)| *segment).collect());
        for segment in segments {
            if segment != from {
                done = 0;
            }
            loop {
                let row = state.peek(|state| {
                    state.shelf(segment).and_then(|shelf| shelf.audits.get(done as usize).copied())
                });
                let Some(row) = row else { break };
                done += 1;
                let (offset, index) = (row.offset, u32::from(row.index));
                let at = Position { segment: u64::from(segment), offset, index };
                let gone = || state.peek(|state| state.shelf(segment).is_none());
                match facts.read(at) {
                    Ok(fact) => {
                        if let Fact::Audited(audited) = &*fact {
                            self.push(&Content::Audited(audited.clone()));
                        }
                    }
                    Err(StoreError::Corrupt(_)) if gone() => break,
                    Err(error) => return Err(error),
                }
                if self.bytes >= self.bytes_max {
                    return Ok(Some(Stage::Acts { segment, count: done }));
                }
            }
        }
        Ok(None)
    }
}

/// The next rows, with what is to be read of them. `None`: it is not asked for.
fn seen_after(
    state: &State,
    query: &Query,
    rest: bool,
    after: EventKey,
) -> Vec<(EventKey, Position, Option<Seen>)> {
    let filter = RowFilter::new(query, state);
    let mut seen = Vec::new();
    for (&segment, shelf) in state.shelves().range(after.segment..) {
        let start = if segment == after.segment { after.index as usize + 1 } else { 0 };
        for index in start..shelf.events.len() {
            let key = EventKey { segment, index: index as u32 };
            let Some(row) = state.row(key) else { continue };
            let wanted = match row.kind {
                RowKind::Event | RowKind::Malformed => filter
                    .matches(row, state.deliveries(key))
                    .then(|| Seen::Event(Outline::of_key(state, key, row.uid))),
                RowKind::Remembered => rest.then_some(Seen::Remembered),
                RowKind::Gone => None,
            };
            seen.push((key, state.position(key), wanted));
            if seen.len() == ROWS_AT_ONCE {
                return seen;
            }
        }
    }
    seen
}
