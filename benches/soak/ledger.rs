//! What the child said, and whether it may be so. Records enter in the order in which the child wrote them; violations of
//! what the store promises are gathered. It knows nothing of processes and clocks.

use router::delivery::state::Status;

/// Steps of a delivery; not every delivery has the second.
pub(crate) const STEPS: [&str; 2] = ["ship", "mail"];

/// One line between parent and child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    /// A set of steps that are done, or the one step that it is about.
    pub(crate) steps: u8,
    pub(crate) status: u8,
    pub(crate) flag: bool,
    pub(crate) version: u32,
    pub(crate) number: u64,
    pub(crate) uid: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Parent to child: this number is not finished. Without a uid it was never acknowledged: offer it again.
    Unsettled = 1,
    /// Parent to child: look it up.
    Check,
    /// Parent to child: offer it again; it should be a duplicate.
    Probe,
    /// The store is open. `flag`: retention is set. `version`: milliseconds.
    Opened,
    /// An offer was answered; `status` is an [`Answer`].
    Answered,
    /// `steps`: those that the store says are done.
    Claimed,
    /// The step's request arrived downstream.
    Effect,
    /// An outcome of step `steps` is durable. `flag`: it succeeded.
    Recorded,
    /// An operator's replay is durable.
    Replayed,
    /// What a look-up saw. `flag`: it is there.
    Found,
    /// The store said something that it never should; `version` says what.
    Odd,
    /// The store is closed, and all was done.
    Done,
}

const KINDS: [Kind; 12] = [
    Kind::Unsettled,
    Kind::Check,
    Kind::Probe,
    Kind::Opened,
    Kind::Answered,
    Kind::Claimed,
    Kind::Effect,
    Kind::Recorded,
    Kind::Replayed,
    Kind::Found,
    Kind::Odd,
    Kind::Done,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Answer {
    Accepted,
    Duplicate,
    Conflict,
}

pub(crate) const RECORD_BYTES: usize = 32;

impl Record {
    pub(crate) fn new(kind: Kind, number: u64) -> Self {
        Self { kind, steps: 0, status: 0, flag: false, version: 0, number, uid: 0 }
    }

    pub(crate) fn encode(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&[
            self.kind as u8,
            self.steps,
            self.status,
            u8::from(self.flag),
        ]);
        bytes[4..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..].copy_from_slice(&self.uid.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let kind = KINDS.into_iter().find(|kind| *kind as u8 == bytes[0])?;
        let (version, rest) = bytes[4..].split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (uid, _) = rest.split_first_chunk()?;
        Some(Self {
            kind,
            steps: bytes[1],
            status: bytes[2],
            flag: bytes[3] != 0,
            version: u32::from_le_bytes(*version),
            number: u64::from_le_bytes(*number),
            uid: u128::from_le_bytes(*uid),
        })
    }
}

pub(crate) fn status_code(status: Status) -> u8 {
    match status {
        Status::Queued => 0,
        Status::Processing => 1,
        Status::Succeeded => SUCCEEDED,
        Status::Failed => FAILED,
        Status::Ignored => 4,
    }
}

pub(crate) const SUCCEEDED: u8 = 2;
pub(crate) const FAILED: u8 = 3;

/// What is known of one number. A million of them are held.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    uid: u128,
    /// Of the parent's clock, when the answer was read.
    accepted_at_ms: u64,
    /// Newest version that is known to be durable.
    version: u32,
    acknowledged: bool,
    succeeded: bool,
    /// Steps whose success is known to be durable.
    done: u8,
    /// Per step, the child in which it ran last without a durable outcome; 0: none.
    ran_in: [u16; 2],
}

impl Entry {
    /// A request went out and its outcome is not known: the outcome may be durable, its acknowledgement died with a process.
    fn may_have_succeeded(&self) -> bool {
        self.succeeded || self.ran_in != [0; 2]
    }
}

/// How long the store keeps things. `None`: for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) retention_ms: Option<u64>,
    pub(crate) dedupe_ms: Option<u64>,
    /// Time between a moment in the child and the parent's reading of it: within it nothing is judged.
    pub(crate) margin_ms: u64,
}

impl Terms {
    fn kept(self, entry: &Entry, now_ms: u64) -> bool {
        !entry.may_have_succeeded() || within(self.retention_ms, self.margin_ms, entry, now_ms)
    }
}

fn within(limit_ms: Option<u64>, margin_ms: u64, entry: &Entry, now_ms: u64) -> bool {
    limit_ms.is_none_or(|limit_ms| now_ms + margin_ms < entry.accepted_at_ms + limit_ms)
}

/// Numbers for the report.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Tally {
    pub(crate) acknowledged: u64,
    pub(crate) succeeded: u64,
    /// Of these: expired before anybody heard of it.
    pub(crate) success_presumed: u64,
    pub(crate) duplicates_judged: u64,
    pub(crate) duplicates_beyond_dedupe: u64,
    pub(crate) lookups_judged: u64,
    pub(crate) lookups_expired: u64,
    pub(crate) claims: u64,
    pub(crate) effects: u64,
    /// A request went out twice because the process was killed before the first outcome was durable: allowed, with the
    /// same key.
    pub(crate) effects_repeated_after_kill: u64,
    pub(crate) retries: u64,
    pub(crate) failures: u64,
    pub(crate) replays: u64,
    pub(crate) violations: u64,
}

const VIOLATIONS_KEPT_MAX: usize = 100;

pub(crate) struct Ledger {
    entries: Vec<Entry>,
    pub(crate) terms: Terms,
    life: u16,
    pub(crate) tally: Tally,
    /// The first of them, for a person.
    pub(crate) violations: Vec<String>,
    pub(crate) done: bool,
}

impl Ledger {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            entries: Vec::new(),
            terms,
            life: 0,
            tally: Tally::default(),
            violations: Vec::new(),
            done: false,
        }
    }

    /// The next child begins.
    pub(crate) fn begin_life(&mut self) {
        self.life += 1;
    }

    pub(crate) fn life(&self) -> u16 {
        self.life
    }

    /// From here on no number is known to have been offered.
    pub(crate) fn next(&self) -> u64 {
        self.entries.len() as u64
    }

    /// What the next child must go on with: offered and not known to have succeeded.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = Record> {
        self.numbered().filter(|(_, entry)| !entry.succeeded).map(|(number, entry)| {
            // A uid that was only seen at a claim was never answered: that number is offered again.
            let uid = if entry.acknowledged { entry.uid } else { 0 };
            Record { uid, ..Record::new(Kind::Unsettled, number) }
        })
    }

    /// What must be there now, newest first.
    pub(crate) fn kept(&self, now_ms: u64) -> impl Iterator<Item = Record> {
        self.numbered()
            .rev()
            .filter(move |(_, entry)| entry.acknowledged && self.terms.kept(entry, now_ms))
            .map(|(number, entry)| Record { uid: entry.uid, ..Record::new(Kind::Check, number) })
    }

    fn numbered(&self) -> impl DoubleEndedIterator<Item = (u64, &Entry)> {
        self.entries.iter().enumerate().map(|(number, entry)| (number as u64, entry))
    }

    pub(crate) fn violate(&mut self, what: String) {
        self.tally.violations += 1;
        if self.violations.len() < VIOLATIONS_KEPT_MAX {
            self.violations.push(what);
        }
    }

    fn entry(&mut self, number: u64) -> &mut Entry {
        let index = number as usize;
        if self.entries.len() <= index {
            self.entries.resize(index + 1, Entry::default());
        }
        &mut self.entries[index]
    }

    pub(crate) fn apply(&mut self, record: Record, now_ms: u64) {
        match record.kind {
            Kind::Answered => self.answered(record, now_ms),
            Kind::Claimed => self.claimed(record),
            Kind::Effect => self.effect(record),
            Kind::Recorded => self.recorded(record),
            Kind::Replayed => {
                self.tally.replays += 1;
                self.advance(record);
            }
            Kind::Found => self.found(record, now_ms),
            Kind::Odd => self.violate(format!(
                "event {}: the store {} (life {})",
                record.number,
                ODD.get(record.version as usize).unwrap_or(&"did something odd"),
                self.life
            )),
            Kind::Done => self.done = true,
            Kind::Opened | Kind::Unsettled | Kind::Check | Kind::Probe => {}
        }
    }

    fn answered(&mut self, record: Record, now_ms: u64) {
        let (terms, life) = (self.terms, self.life);
        let number = record.number;
        let entry = self.entry(number);
        let before = *entry;
        if record.status == Answer::Conflict as u8 {
            return self
                .violate(format!("event {number}: the same body was answered as a conflict"));
        }
        if !before.acknowledged {
            // Also as a duplicate: the answer to the first offer may have died with its process.
            entry.acknowledged = true;
            entry.uid = record.uid;
            // Nobody knows for how long a duplicate has been there: where things expire, 0 is too old to be judged.
            entry.accepted_at_ms = if record.status == Answer::Accepted as u8 { now_ms } else { 0 };
            self.tally.acknowledged += 1;
            if before.uid != 0 && before.uid != record.uid {
                self.violate(format!(
                    "event {number}: claimed under another uid before (life {life})"
                ));
            }
            return;
        }
        let new = record.status == Answer::Accepted as u8;
        if !within(terms.dedupe_ms, terms.margin_ms, &before, now_ms) {
            self.tally.duplicates_beyond_dedupe += 1;
            if new {
                *self.entry(number) = Entry {
                    uid: record.uid,
                    accepted_at_ms: now_ms,
                    acknowledged: true,
                    ..Entry::default()
                };
            }
            return;
        }
        self.tally.duplicates_judged += 1;
        if new {
            self.violate(format!(
                "event {number}: acknowledged before, and accepted anew (life {life})"
            ));
        } else if record.uid != before.uid {
            self.violate(format!("event {number}: a duplicate of another event (life {life})"));
        }
    }

    /// Whether a record is about the event that is known under its number.
    fn is_current(&mut self, record: Record) -> bool {
        let entry = self.entry(record.number);
        if entry.uid == 0 {
            // Claimed before its answer was read: it was durable when its process died, or answer and claim crossed.
            entry.uid = record.uid;
        }
        let known = entry.uid;
        if known != record.uid {
            self.violate(format!(
                "event {}: {:?} of another uid than the one acknowledged",
                record.number, record.kind
            ));
        }
        known == record.uid
    }

    fn claimed(&mut self, record: Record) {
        self.tally.claims += 1;
        if !self.is_current(record) {
            return;
        }
        let (number, life) = (record.number, self.life);
        let entry = *self.entry(number);
        if entry.succeeded {
            self.violate(format!("event {number}: claimed after its success (life {life})"));
        }
        if record.version < entry.version {
            self.violate(format!(
                "event {number}: claimed at version {}, {} was acknowledged (life {life})",
                record.version, entry.version
            ));
        }
        if entry.done & !record.steps != 0 {
            self.violate(format!("event {number}: a finished step is open again (life {life})"));
        }
        let known = self.entry(number);
        known.done |= record.steps;
        known.version = known.version.max(record.version);
    }

    fn effect(&mut self, record: Record) {
        self.tally.effects += 1;
        if !self.is_current(record) {
            return;
        }
        let (number, step, life) = (record.number, record.steps as usize, self.life);
        let entry = self.entry(number);
        let (finished, ran_in) = (entry.done & 1 << step != 0, entry.ran_in[step]);
        entry.ran_in[step] = life;
        if finished {
            self.violate(format!(
                "event {number}: step {} ran again after its success",
                STEPS[step]
            ));
        } else if ran_in == life {
            self.violate(format!("event {number}: step {} ran twice in one life", STEPS[step]));
        } else if ran_in != 0 {
            self.tally.effects_repeated_after_kill += 1;
        }
    }

    fn recorded(&mut self, record: Record) {
        if !self.advance(record) {
            return;
        }
        let step = record.steps as usize;
        let entry = self.entry(record.number);
        entry.ran_in[step] = 0;
        if record.flag {
            entry.done |= 1 << step;
        } else if record.status == FAILED {
            self.tally.failures += 1;
        } else {
            self.tally.retries += 1;
        }
    }

    /// A change is durable.
    fn advance(&mut self, record: Record) -> bool {
        if !self.is_current(record) {
            return false;
        }
        let entry = self.entry(record.number);
        let (before, succeeded) = (entry.version, record.status == SUCCEEDED);
        entry.version = before.max(record.version);
        let first = succeeded && !entry.succeeded;
        entry.succeeded |= succeeded;
        self.tally.succeeded += u64::from(first);
        if record.version <= before {
            self.violate(format!(
                "event {}: version {} recorded after {before}",
                record.number, record.version
            ));
        }
        true
    }

    fn found(&mut self, record: Record, now_ms: u64) {
        let (terms, number, life) = (self.terms, record.number, self.life);
        let entry = *self.entry(number);
        // Asked for before it expired and answered afterwards proves nothing.
        if !terms.kept(&entry, now_ms) {
            self.tally.lookups_expired += 1;
            if entry.succeeded {
                return;
            }
            if !record.flag {
                // Only what is finished expires: so it had succeeded, and its acknowledgement died with a process.
                self.entry(number).succeeded = true;
                self.tally.succeeded += 1;
                self.tally.success_presumed += 1;
            } else if record.status == SUCCEEDED {
                // It may be gone by now, and is still there.
                self.entry(number).succeeded = true;
                self.tally.succeeded += 1;
            }
            return;
        }
        self.tally.lookups_judged += 1;
        if !record.flag {
            return self.violate(format!("event {number}: acknowledged and lost (life {life})"));
        }
        if record.version < entry.version || (entry.succeeded && record.status != SUCCEEDED) {
            return self.violate(format!(
                "event {number}: at version {} with status {}, {} was acknowledged{} (life {life})",
                record.version,
                record.status,
                entry.version,
                if entry.succeeded { " as succeeded" } else { "" }
            ));
        }
        if entry.done & !record.steps != 0 {
            self.violate(format!("event {number}: a finished step is open again (life {life})"));
        }
        let known = self.entry(number);
        known.version = record.version;
        known.done |= record.steps;
        if record.status == SUCCEEDED && !known.succeeded {
            // Its acknowledgement died with a process.
            known.succeeded = true;
            self.tally.succeeded += 1;
        }
    }
}

/// What [`Kind::Odd`] can say.
pub(crate) const ODD: [&str; 3] = [
    "fenced a worker off that alone held it",
    "answered a replay with `Stale`",
    "answered `NotFound`",
];

/// A judge that sees nothing is worth nothing: each sequence here must be found fault with, and the first must not.
pub(crate) fn judge_the_judge() -> Result<(), String> {
    let answered = |status: Answer, uid| Record {
        status: status as u8,
        uid,
        ..Record::new(Kind::Answered, 0)
    };
    let accepted = answered(Answer::Accepted, 7);
    let claim = |version, steps| Record { version, steps, uid: 7, ..Record::new(Kind::Claimed, 0) };
    let effect = Record { uid: 7, ..Record::new(Kind::Effect, 0) };
    let success = Record {
        status: SUCCEEDED,
        flag: true,
        version: 2,
        uid: 7,
        ..Record::new(Kind::Recorded, 0)
    };
    let found = |flag, version, status, steps| Record {
        flag,
        version,
        status,
        steps,
        uid: 7,
        ..Record::new(Kind::Found, 0)
    };
    let good = vec![
        accepted,
        claim(0, 0),
        effect,
        success,
        answered(Answer::Duplicate, 7),
        found(true, 2, SUCCEEDED, 1),
    ];
    let with = |more: &[Record]| good.iter().chain(more).copied().collect::<Vec<_>>();
    let bad = [
        ("lost", with(&[found(false, 0, 0, 0)])),
        ("turned back", with(&[found(true, 1, SUCCEEDED, 1)])),
        ("unfinished again", with(&[found(true, 2, 0, 1)])),
        ("step open again", with(&[found(true, 2, SUCCEEDED, 0)])),
        ("accepted anew", with(&[answered(Answer::Accepted, 8)])),
        ("duplicate of another", with(&[answered(Answer::Duplicate, 8)])),
        ("conflict", with(&[answered(Answer::Conflict, 7)])),
        ("claimed again", with(&[claim(2, 1)])),
        ("ran again", with(&[effect])),
        ("ran twice", vec![accepted, claim(0, 0), effect, effect]),
        ("lost before its success", vec![accepted, found(false, 0, 0, 0)]),
        ("version twice", with(&[success])),
    ];
    // What expired is not missed, unless it was unfinished.
    let expired = |records: &[Record]| {
        let mut ledger =
            Ledger::new(Terms { retention_ms: Some(10), dedupe_ms: Some(10), margin_ms: 1 });
        ledger.begin_life();
        records.iter().for_each(|record| ledger.apply(*record, 0));
        ledger.apply(found(false, 0, 0, 0), 20);
        ledger.tally.violations
    };
    if expired(&good) != 0 || expired(&good[..3]) != 0 || expired(&good[..2]) == 0 {
        return Err("the judge does not know what may expire".to_owned());
    }
    let violations = |records: &[Record]| {
        let mut ledger = Ledger::new(Terms::default());
        ledger.begin_life();
        records.iter().for_each(|record| ledger.apply(*record, 0));
        ledger.tally.violations
    };
    if violations(&good) != 0 {
        return Err("the judge finds fault with a faultless run".to_owned());
    }
    match bad.iter().find(|(_, records)| violations(records) == 0) {
        Some((name, _)) => Err(format!("the judge does not see: {name}")),
        None => Ok(()),
    }
}
