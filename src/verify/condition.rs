//! What a request must have to be a challenge, or to be looked at by a scheme.

use http::Method;
use regex::bytes::Regex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::request::{Found, Request, member};
use super::scheme::Rejection;
use super::text::{Lack, Layout, Selector, Text};

/// All of it holds.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    pub method: Option<Method>,
    pub all: Vec<Condition>,
}

#[derive(Clone, Debug)]
pub struct Condition {
    pub at: Selector,
    pub expected: Expected,
}

#[derive(Clone, Debug)]
pub enum Expected {
    Present,
    Absent,
    Equal(Text),
    /// The whole value matches; the expression is anchored.
    Match(Regex),
}

impl Conditions {
    pub(super) fn hold(&self, request: &Request<'_>) -> bool {
        self.check(request).is_ok()
    }

    pub(super) fn check(&self, request: &Request<'_>) -> Result<(), Rejection> {
        if self.method.as_ref().is_some_and(|method| *method != request.received.method) {
            return Err(Rejection::WrongValue);
        }
        self.all.iter().try_for_each(|condition| condition.check(request))
    }
}

impl Condition {
    fn check(&self, request: &Request<'_>) -> Result<(), Rejection> {
        match &self.expected {
            Expected::Present if self.is_there(request) => Ok(()),
            Expected::Present => Err(Rejection::MissingValue),
            Expected::Absent if self.is_there(request) => Err(Rejection::WrongValue),
            Expected::Absent => Ok(()),
            Expected::Match(pattern) => match request.find(&self.at) {
                Found::Once(found) if pattern.is_match(&found) => Ok(()),
                Found::Absent => Err(Rejection::MissingValue),
                Found::Once(_) | Found::Repeated => Err(Rejection::WrongValue),
            },
            Expected::Equal(text) => {
                let found = match request.find(&self.at) {
                    Found::Once(found) => found,
                    Found::Absent => return Err(Rejection::MissingValue),
                    Found::Repeated => return Err(Rejection::WrongValue),
                };
                let expected = Layout::of(request).whole(text).map_err(|lack| match lack {
                    Lack::Absent(_) => Rejection::MissingValue,
                    Lack::Unclear(_) | Lack::Time | Lack::Key => Rejection::WrongValue,
                })?;
                // It may be a secret of `config`.
                match bool::from(equal(&found, &expected)) {
                    true => Ok(()),
                    false => Err(Rejection::WrongValue),
                }
            }
        }
    }

    /// Of JSON: anything but null stands there.
    fn is_there(&self, request: &Request<'_>) -> bool {
        match &self.at {
            Selector::Json(path) => request
                .json()
                .and_then(|json| member(json, path))
                .is_some_and(|found| !found.is_null()),
            at => !request.find_all(at).is_empty(),
        }
    }
}

/// Compares digests, so that neither the place of the first difference nor the length shows in the time.
pub(super) fn equal(left: &[u8], right: &[u8]) -> subtle::Choice {
    Sha256::digest(left).as_slice().ct_eq(Sha256::digest(right).as_slice())
}
