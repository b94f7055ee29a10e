//! What a repair of the journal left: facts that do not prove themselves any more were replaced by a fact that says so.
//! Later facts may then be about what nobody knows, or leave versions out. They are borne exactly where the fact that they
//! follow stood in a segment that has lost something, and does not stand there now; anywhere else they stop the start.

use std::collections::{BTreeMap, BTreeSet};

use super::State;
use super::rows::Slot;
use crate::delivery::state::{DeliveryState, Entry, Reason, Status};
use crate::name::DeliveryId;
use crate::store::fact::{Changed, Fact, Position, ReadFacts};
use crate::store::view;

/// What a delivery in review says whose facts were lost. Operators choose by it.
pub(crate) const CAUSE: &str = "damaged";

#[derive(Default)]
pub(crate) struct Damage {
    segments: BTreeSet<u64>,
    /// Deliveries that were begun in what was lost, and went on after it.
    lost: BTreeSet<DeliveryId>,
    gaps: BTreeMap<Slot, Gap>,
}

/// A delivery that lost facts, as far as it is known. It stands so until it is carried forward whole.
#[derive(Clone)]
pub(crate) struct Gap {
    pub(crate) state: DeliveryState,
    /// Its timeline, as far as it is known, oldest first.
    pub(crate) entries: Vec<Entry>,
    pub(crate) terms: Vec<u64>,
    /// All that its state is made of is known; only its timeline is not.
    complete: bool,
    /// Where its lost facts stood.
    segment: u64,
}

impl Damage {
    /// Facts of this segment are lost.
    pub(super) fn note(&mut self, segment: u64) {
        self.segments.insert(segment);
    }

    pub(crate) fn segments(&self) -> &BTreeSet<u64> {
        &self.segments
    }

    pub(crate) fn lost(&self) -> &BTreeSet<DeliveryId> {
        &self.lost
    }

    pub(crate) fn gaps(&self) -> impl Iterator<Item = (Slot, &Gap)> {
        self.gaps.iter().map(|(slot, gap)| (*slot, gap))
    }

    pub(super) fn has_lost(&self, id: &DeliveryId) -> bool {
        self.lost.contains(id)
    }

    pub(super) fn lose(&mut self, id: DeliveryId) {
        self.lost.insert(id);
    }

    pub(crate) fn gap(&self, slot: Slot) -> Option<&Gap> {
        self.gaps.get(&slot)
    }

    /// It stands elsewhere now, whole.
    pub(super) fn close(&mut self, slot: Slot) {
        self.gaps.remove(&slot);
    }

    /// Takes in a change of a delivery that lost some. Where its end is not known, a person decides.
    pub(super) fn go_on(&mut self, slot: Slot, state: &mut DeliveryState, changed: &Changed) {
        let Some(gap) = self.gaps.get_mut(&slot) else { return };
        gap.entries.push(changed.change.entry.clone());
        gap.terms.extend(&changed.terms);
        if !gap.complete && !state.status.is_finished() {
            state.status = Status::Failed;
            state.due_at = None;
            state.reason = Some(reason(gap.segment));
        }
        gap.state = state.clone();
    }

    /// It starts over: what it was does not matter any more.
    pub(super) fn begin_anew(&mut self, slot: Slot, state: &DeliveryState, entry: &Entry) {
        if let Some(gap) = self.gaps.get_mut(&slot) {
            gap.complete = true;
            gap.entries.push(entry.clone());
            gap.state = state.clone();
        }
    }
}

/// Why a person must look at a delivery whose facts were lost with this segment.
pub(crate) fn reason(segment: u64) -> Reason {
    Reason {
        cause: CAUSE.to_owned(),
        subject: None,
        message: format!(
            "facts about this delivery were lost with segment {segment} of the journal: steps that are shown as waiting or running may have been carried out. Look at the other side, then replay it"
        ),
    }
}

impl State {
    /// What stood there is gone with a damaged segment.
    pub(super) fn is_lost(&self, at: Position, facts: &dyn ReadFacts) -> bool {
        self.damage.segments.contains(&at.segment)
            && facts.read(at).map_or(true, |fact| matches!(*fact, Fact::Lost { .. }))
    }

    /// The fact that follows `previous` does not follow what is known of the delivery, because that is lost.
    pub(super) fn is_cut_off(&self, slot: Slot, previous: Position, facts: &dyn ReadFacts) -> bool {
        previous != self.delivery(slot).last() && self.is_lost(previous, facts)
    }

    /// A fact that makes `version` of a delivery is about to be applied, and what it follows is lost.
    pub(super) fn open_gap(
        &mut self,
        slot: Slot,
        version: u64,
        previous: Position,
        facts: &dyn ReadFacts,
    ) {
        let (uid, row) = (self.row_of(slot.0).uid, self.delivery(slot));
        let (complete, last) = (row.version() + 1 == version, row.last());
        let (state, entries) = match (self.damage.gap(slot), self.live(slot)) {
            (Some(gap), _) => (gap.state.clone(), gap.entries.clone()),
            (None, live) => {
                let read = view::read_chain(uid, &self.route_name(row.route), last, facts);
                match (read, live) {
                    (Ok((state, entries)), None) => (state, entries),
                    (Ok((_, entries)), Some(live)) => (live.state.clone(), entries),
                    (Err(_), Some(live)) => (live.state.clone(), Vec::new()),
                    // What the row says of it was read a moment ago: it is damage that comes while this runs.
                    (Err(_), None) => return,
                }
            }
        };
        let complete = complete && self.damage.gap(slot).is_none_or(|gap| gap.complete);
        let terms = match self.damage.gap(slot) {
            Some(gap) => gap.terms.clone(),
            None => {
                view::terms_of(uid, &self.route_name(row.route), last, facts).unwrap_or_default()
            }
        };
        let gap = Gap { state, entries, terms, complete, segment: previous.segment };
        self.damage.gaps.insert(slot, gap);
    }
}
