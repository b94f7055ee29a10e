//! What goes on beside the commits, on threads of its own: preparing segments ahead, deriving the pages of full ones, writing
//! checkpoints, mending the index.

use std::io;
use std::time::Duration;

use super::{Full, Inbox, JournalOptions, SPARES, Shared};
use crate::store::journal::segment;

/// The index and the age of the active segment are looked at as often.
const KEEP_EVERY: Duration = Duration::from_secs(1);

impl Shared {
    /// The preparer's thread.
    pub(in crate::store::journal) fn prepare_until_stopped(&self) {
        loop {
            if self.prepare_once() {
                continue;
            }
            let inbox = self.inbox();
            if inbox.stopped {
                return;
            }
            let enough = |inbox: &mut Inbox| !inbox.stopped && inbox.spares.len() >= SPARES;
            if inbox.full.is_some() {
                let waited = self.wanted.wait_timeout(inbox, self.options.space_retry);
                drop(waited.expect("no holder of this lock can panic"));
            } else {
                let waited = self.wanted.wait_while(inbox, enough);
                drop(waited.expect("no holder of this lock can panic"));
            }
        }
    }

    /// Prepares one spare segment, if one is wanted and there is room. Answers whether it did.
    pub(in crate::store::journal) fn prepare_once(&self) -> bool {
        let segment = {
            let inbox = self.inbox();
            if inbox.stopped || inbox.spares.len() >= SPARES {
                return false;
            }
            inbox.next_spare
        };
        let prepared = self.prepare(segment);
        let mut inbox = self.inbox();
        let was_full = inbox.full.is_some();
        match prepared {
            Ok(()) => {
                inbox.spares.push(segment);
                inbox.next_spare += 1;
                inbox.full = None;
                if was_full {
                    tracing::info!("there is room for the journal again");
                }
            }
            Err(why) => {
                if !was_full {
                    tracing::warn!(reason = %why, "no further segment of the journal can be prepared");
                }
                inbox.full = Some(why);
            }
        }
        inbox.poked = true;
        let done = inbox.full.is_none();
        drop(inbox);
        self.arrived.notify_one();
        done
    }

    fn prepare(&self, segment: u64) -> Result<(), String> {
        let JournalOptions { segment_bytes, min_free_disk, .. } = self.options;
        let failed = |error: io::Error| {
            format!(
                "a segment of {segment_bytes} bytes cannot be prepared in {}: {error}",
                self.place()
            )
        };
        let free = self.disk.free_bytes().map_err(failed)?;
        if free < segment_bytes.saturating_add(min_free_disk) {
            return Err(format!(
                "the disk of {} is full: {free} bytes are free, a further segment of {segment_bytes} bytes must leave {min_free_disk} (`limits.min_free_disk`)",
                self.place()
            ));
        }
        let name = segment::name(segment);
        match self.disk.prepare(&name, segment_bytes) {
            // Left from an attempt whose folder could not be synced.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
        .and_then(|()| self.disk.sync_folder())
        .map_err(failed)
    }

    /// The keeper's thread: pages, checkpoints, and the index.
    pub(in crate::store::journal) fn keep_until_stopped(&self) {
        loop {
            let inbox = self.inbox();
            let idle = |inbox: &mut Inbox| !inbox.stopped && inbox.full_segments.is_empty();
            let waited = self.filled.wait_timeout_while(inbox, KEEP_EVERY, idle);
            let (inbox, _) = waited.expect("no holder of this lock can panic");
            if inbox.stopped {
                return;
            }
            drop(inbox);
            while self.seal_once() {}
            self.heal_once();
            self.end_old_segment();
        }
    }

    /// Derives the pages of one full segment, if there is one, forgets what stands on them, and writes a checkpoint. Answers
    /// whether it did.
    pub(in crate::store::journal) fn seal_once(&self) -> bool {
        let _sealing = self.sealing.lock().expect("no holder of this lock can panic");
        let Some(Full { mark, frozen }) = self.inbox().full_segments.pop_front() else {
            return false;
        };
        let segment = mark.segment;
        match self.sealed.seal(segment, mark.end) {
            Ok(()) => {
                self.give_back(segment, mark.end);
                if let Some(frozen) = frozen
                    && self.sealed.broken().is_none()
                    && let Err(error) = self.sealed.write_checkpoint(&frozen, mark)
                {
                    tracing::debug!(%error, "no checkpoint was written; the next one tries again");
                }
                // Its rows are not shared any more: they need not be copied to be shortened. What is freed is much, and
                // freed after the state is let go.
                let forgotten = self.state().shelve(segment as u32);
                drop(forgotten);
            }
            // What would stand on the pages stays in memory; the next start tries again.
            Err(error) => tracing::error!(%error, segment, "a full segment gets no pages"),
        }
        true
    }

    /// What a segment that was ended before its time had left.
    fn give_back(&self, segment: u64, end: u64) {
        let shortened = self.segments.file(segment).and_then(|file| match file.size()? > end {
            true => file.truncate(end),
            false => Ok(()),
        });
        if let Err(error) = shortened {
            tracing::warn!(%error, segment, "a segment keeps room that it does not need");
        }
    }

    /// Makes an index anew that failed. Answers whether it did.
    pub(in crate::store::journal) fn heal_once(&self) -> bool {
        if self.sealed.broken().is_none() {
            return false;
        }
        let _sealing = self.sealing.lock().expect("no holder of this lock can panic");
        match self.sealed.heal() {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "the index cannot be made anew yet");
                false
            }
        }
    }

    /// A segment is ended after some time even if little comes: what is in it can then expire.
    pub(in crate::store::journal) fn end_old_segment(&self) {
        let begun = *self.rolled_at.lock().expect("no holder of this lock can panic");
        let age = self.world.clock.monotonic().saturating_sub(begun);
        if age >= self.options.segment_age_max {
            let mut inbox = self.inbox();
            inbox.roll = true;
            inbox.poked = true;
            drop(inbox);
            self.arrived.notify_one();
        }
    }
}
