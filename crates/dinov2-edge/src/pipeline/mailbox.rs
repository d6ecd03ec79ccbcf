//! The link between two threads of a pipeline: one slot per writer, no queue.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What `put` does when the slot is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// Replaces the older value: for live sources.
    Replace,
    /// Waits for the reader: no value is lost.
    Wait,
}

/// Passes values from several writers to one reader. Each writer has a slot for one value.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    when_full: WhenFull,
}

#[derive(Debug)]
struct State<T> {
    slots: Vec<Option<T>>,
    open: Vec<bool>,
    /// The reader has ended.
    refused: bool,
}

/// The result of a `put`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put<T> {
    /// The value is stored.
    Stored,
    /// The value is stored and replaced this one, which was not read.
    Replaced(T),
    /// The reader has ended; the value is returned.
    Refused(T),
}

impl<T> Mailbox<T> {
    pub(crate) fn new(slots: usize, when_full: WhenFull) -> Self {
        let slots: Vec<Option<T>> = std::iter::repeat_with(|| None).take(slots).collect();
        let open = vec![true; slots.len()];
        let state = Mutex::new(State { slots, open, refused: false });
        Self { state, changed: Condvar::new(), when_full }
    }

    pub(crate) fn put(&self, slot: usize, value: T) -> Put<T> {
        let mut state = self.lock();
        while self.when_full == WhenFull::Wait && state.slots[slot].is_some() && !state.refused {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.store(state, slot, value)
    }

    /// As [`Self::put`] with [`WhenFull::Replace`].
    pub(crate) fn replace(&self, slot: usize, value: T) -> Put<T> {
        self.store(self.lock(), slot, value)
    }

    fn store(&self, mut state: MutexGuard<'_, State<T>>, slot: usize, value: T) -> Put<T> {
        if state.refused {
            return Put::Refused(value);
        }
        let older = state.slots[slot].replace(value);
        drop(state);
        self.changed.notify_all();
        older.map_or(Put::Stored, Put::Replaced)
    }

    /// Waits for values and appends all of them, in the order of the slots. False when there are none and all writers have ended.
    pub(crate) fn take_all(&self, taken: &mut Vec<T>) -> bool {
        let mut state = self.lock();
        loop {
            let before = taken.len();
            taken.extend(state.slots.iter_mut().filter_map(Option::take));
            if taken.len() > before {
                drop(state);
                self.changed.notify_all();
                return true;
            }
            if state.refused || !state.open.contains(&true) {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Marks the writer of this slot as ended. Its last value can still be read.
    pub(crate) fn close(&self, slot: usize) {
        self.lock().open[slot] = false;
        self.changed.notify_all();
    }

    /// Marks all writers as ended.
    pub(crate) fn close_all(&self) {
        self.lock().open.fill(false);
        self.changed.notify_all();
    }

    /// Marks the reader as ended.
    pub(crate) fn refuse(&self) {
        self.lock().refused = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // The state is consistent after a panic, because every change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn the_newest_value_wins() {
        let mailbox = Mailbox::new(2, WhenFull::Replace);
        assert_eq!(mailbox.put(0, 'a'), Put::Stored);
        assert_eq!(mailbox.put(0, 'b'), Put::Replaced('a'));
        assert_eq!(mailbox.put(1, 'c'), Put::Stored);
        let mut taken = Vec::new();
        assert!(mailbox.take_all(&mut taken));
        assert_eq!(taken, ['b', 'c']);
        mailbox.close(0);
        mailbox.put(1, 'd');
        mailbox.close(1);
        assert!(mailbox.take_all(&mut taken), "what was left is read");
        assert!(!mailbox.take_all(&mut taken));
        assert_eq!(taken, ['b', 'c', 'd']);
    }

    #[test]
    fn a_patient_writer_loses_nothing() {
        let mailbox = Mailbox::new(1, WhenFull::Wait);
        thread::scope(|scope| {
            scope.spawn(|| {
                for value in 0..1_000 {
                    assert_eq!(mailbox.put(0, value), Put::Stored);
                }
                mailbox.close(0);
            });
            let mut taken = Vec::new();
            while mailbox.take_all(&mut taken) {}
            assert!(taken.into_iter().eq(0..1_000));
        });
    }

    #[test]
    fn nobody_waits_for_a_reader_that_has_gone() {
        let mailbox = Mailbox::new(1, WhenFull::Wait);
        mailbox.put(0, 1);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| mailbox.put(0, 2));
            mailbox.refuse();
            assert_eq!(waiting.join().unwrap(), Put::Refused(2));
        });
        assert_eq!(mailbox.replace(0, 3), Put::Refused(3));
    }

    #[test]
    fn replacing_does_not_wait() {
        let mailbox = Mailbox::new(1, WhenFull::Wait);
        mailbox.put(0, 1);
        assert_eq!(mailbox.replace(0, 2), Put::Replaced(1));
    }
}
