//! Decoded text → where each of its bytes stands in the file.

use std::ops::Range;

use crate::diag::{FileId, Span};

use super::Text;

pub(super) fn span(text: &Text, file: FileId, range: Range<usize>) -> Span {
    let length = text.text.len();
    let start = range.start.min(length);
    let end = range.end.clamp(start, length);
    let first = offset(text, start);
    let last = if end == start { first } else { offset_after(text, end - 1) };
    Span::new(file, first..last.max(first))
}

/// The run that holds byte `at`.
fn run(text: &Text, at: usize) -> usize {
    text.places.partition_point(|(decoded, _)| *decoded <= at).saturating_sub(1)
}

fn offset(text: &Text, at: usize) -> usize {
    let index = run(text, at);
    let Some(&(decoded, raw)) = text.places.get(index) else { return 0 };
    let limit = text.places.get(index + 1).map_or(usize::MAX, |next| next.1);
    (raw + (at - decoded)).min(limit)
}

/// Where the file goes on after byte `at`: never past the run's end, which an escape may shorten.
fn offset_after(text: &Text, at: usize) -> usize {
    let index = run(text, at);
    let Some(&(decoded, raw)) = text.places.get(index) else { return 0 };
    let limit = text.places.get(index + 1).map_or(usize::MAX, |next| next.1);
    (raw + (at - decoded) + 1).min(limit)
}
