//! What goes on beside the commits, on threads of its own: preparing segments ahead, and deriving the pages of full ones.

use std::io;

use super::{Inbox, JournalOptions, SPARES, Shared};
use crate::store::journal::segment;

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

    /// The thread that derives pages, away from the commits.
    pub(in crate::store::journal) fn seal_until_stopped(&self) {
        loop {
            let inbox = self.inbox();
            let inbox = self
                .filled
                .wait_while(inbox, |inbox| !inbox.stopped && inbox.full_segments.is_empty())
                .expect("no holder of this lock can panic");
            if inbox.stopped {
                return;
            }
            drop(inbox);
            self.seal_once();
        }
    }

    /// Derives the pages of one full segment, if there is one, and forgets what stands on them. Answers whether it did.
    pub(in crate::store::journal) fn seal_once(&self) -> bool {
        /// Rows that are shortened under one hold of the lock: commits go on between.
        const ROWS_AT_ONCE: usize = 512;
        let Some((segment, end)) = self.inbox().full_segments.pop_front() else { return false };
        match self.sealed.seal(segment, end) {
            Ok(events) => {
                for events in events.chunks(ROWS_AT_ONCE) {
                    self.state().shelve(segment, events);
                }
            }
            // What would stand on the pages stays in memory; the next start tries again.
            Err(error) => tracing::error!(%error, segment, "a full segment gets no pages"),
        }
        true
    }
}
