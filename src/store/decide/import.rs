//! What a record of an export makes of the state. What is known already stays as it is here: an import adds, and takes
//! nothing back.

use bytes::Bytes;

use super::{Decision, Pending, check_backlog_total, holder};
use crate::envelope::Envelope;
use crate::store::StoreError;
use crate::store::fact::{Audited, Fact, Position, ReadFacts, Snapshot};
use crate::store::hashing::Hashing;
use crate::store::portable::{Content, HASHINGS_MAX, Header, Taken};
use crate::store::state::rows::seconds;
use crate::store::state::{FOREIGN, State};

pub(crate) fn import(
    state: &State,
    facts: &dyn ReadFacts,
    content: Content,
    backlog_max: u64,
) -> Result<Decision<Taken>, StoreError> {
    let nothing = |taken, after| Decision { facts: Vec::new(), answer: taken, after };
    Ok(match content {
        Content::Header(header) => Decision::of(foreign(state, &header)?, Taken::Nothing),
        Content::End => nothing(Taken::Nothing, 0),
        Content::Revision { hash, text } => {
            let decision = super::revision(state, hash, text);
            let taken = if decision.facts.is_empty() { Taken::Nothing } else { Taken::Other };
            Decision { facts: decision.facts, answer: taken, after: decision.after }
        }
        Content::Event(event) => match known_since(state, facts, &event)? {
            Some(after) => nothing(Taken::Known, after),
            None => {
                let live =
                    event.deliveries.iter().any(|delivery| !delivery.state.status.is_finished());
                if live {
                    check_backlog_total(state, backlog_max)?;
                }
                Decision::of(vec![Fact::Snapshot(event)], Taken::Event)
            }
        },
        Content::Remembered(remembered) => match state.event_key(remembered.uid) {
            Some(key) => nothing(Taken::Nothing, state.durable_after(key)),
            None => Decision::of(vec![Fact::Remembered(remembered)], Taken::Other),
        },
        Content::Audited(audited) => match is_audited(state, facts, &audited)? {
            true => nothing(Taken::Nothing, state.next),
            false => Decision::of(vec![Fact::Audited(audited)], Taken::Other),
        },
    })
}

/// Keys of other journals that are new here.
fn foreign(state: &State, header: &Header) -> Result<Vec<Fact>, StoreError> {
    let is_new = |secret: &&[u8; 16]| state.hashings().all(|known| known.secret() != **secret);
    let new: Vec<_> = header.hashings.iter().filter(is_new).collect();
    if !new.is_empty() && new.len() + state.hashings().count() > HASHINGS_MAX {
        return Err(StoreError::Refusing(format!(
            "exports of more than {HASHINGS_MAX} stores were imported here; begin with a store of its own"
        )));
    }
    let cell = |secret: &[u8; 16]| Fact::Cell {
        name: format!("{FOREIGN}{:016x}", Hashing::new(*secret).journal()),
        version: 1,
        value: Bytes::copy_from_slice(secret),
    };
    Ok(new.into_iter().map(cell).collect())
}

/// The event is here, or another with one of its identities: that is durable once the facts before this number are.
fn known_since(
    state: &State,
    facts: &dyn ReadFacts,
    event: &Snapshot,
) -> Result<Option<u64>, StoreError> {
    let envelope: &Envelope = &event.envelope;
    if let Some(key) = state.event_key(envelope.uid) {
        return Ok(Some(state.durable_after(key)));
    }
    for identity in &event.identities {
        let offered = (envelope, &event.body_digest);
        let Some(found) = holder(state, facts, &Pending::default(), offered, identity)? else {
            continue;
        };
        // A second body that came after the first had expired stands beside what is remembered of that one.
        if found.expired_since.is_some() && envelope.malformed.is_some() {
            continue;
        }
        return Ok(Some(found.original.after));
    }
    Ok(None)
}

fn is_audited(state: &State, facts: &dyn ReadFacts, audited: &Audited) -> Result<bool, StoreError> {
    let at_s = seconds(audited.entry.at);
    for (segment, shelf) in state.shelves() {
        for row in shelf.audits.iter().filter(|row| row.at_s == at_s) {
            let (offset, index) = (row.offset, u32::from(row.index));
            let at = Position { segment: u64::from(*segment), offset, index };
            if matches!(&*facts.read(at)?, Fact::Audited(known) if **known == *audited) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
