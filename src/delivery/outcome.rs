//! What came back from one attempt, told apart by what is known.

use serde::{Deserialize, Serialize};

use crate::world::transport::{NotSentKind, WireResponse};

/// The result of carrying one intended request out.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Nothing left, or the connection never stood.
    NotSent {
        why: String,
        kind: NotSentKind,
    },
    /// Something may have left; no whole answer came.
    SentNoAnswer {
        why: String,
        timed_out: bool,
    },
    Answered(WireResponse),
    /// The process ended between the intent and the outcome; found at the next claim.
    Interrupted,
}

impl Outcome {
    pub fn class(&self) -> OutcomeClass {
        match self {
            Outcome::NotSent { .. } => OutcomeClass::NotSent,
            Outcome::SentNoAnswer { .. } | Outcome::Interrupted => OutcomeClass::SentNoAnswer,
            Outcome::Answered(_) => OutcomeClass::Answered,
        }
    }
}

/// The outcome classes, in the words of the journal and the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeClass {
    NotSent,
    SentNoAnswer,
    Answered,
}
