use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What becomes of a value whose place is still taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// It replaces the older one: live sources.
    Replace,
    /// Its writer waits: nothing is lost.
    Wait,
}

/// Hands values from one thread to the next: a place for one value per writer, so nothing ever queues up.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    when_full: WhenFull,
}

#[derive(Debug)]
struct State<T> {
    places: Vec<Option<T>>,
    open: Vec<bool>,
    /// The reader has gone.
    refused: bool,
}

/// What became of a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put<T> {
    /// It has its place.
    Stored,
    /// It has the place of this one, which nobody will read.
    Replaced(T),
    /// There is no reader any more.
    Refused(T),
}

impl<T> Mailbox<T> {
    pub(crate) fn new(places: usize, when_full: WhenFull) -> Self {
        let places: Vec<Option<T>> = std::iter::repeat_with(|| None).take(places).collect();
        let open = vec![true; places.len()];
        let state = Mutex::new(State { places, open, refused: false });
        Self { state, changed: Condvar::new(), when_full }
    }

    pub(crate) fn put(&self, place: usize, value: T) -> Put<T> {
        let mut state = self.lock();
        while self.when_full == WhenFull::Wait && state.places[place].is_some() && !state.refused {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.store(state, place, value)
    }

    /// As [`Self::put`], but an older value is replaced whatever the mailbox was made for.
    pub(crate) fn replace(&self, place: usize, value: T) -> Put<T> {
        self.store(self.lock(), place, value)
    }

    fn store(&self, mut state: MutexGuard<'_, State<T>>, place: usize, value: T) -> Put<T> {
        if state.refused {
            return Put::Refused(value);
        }
        let older = state.places[place].replace(value);
        drop(state);
        self.changed.notify_all();
        older.map_or(Put::Stored, Put::Replaced)
    }

    /// Waits for values and appends all that are there, by place. False when there are none and every writer has gone.
    pub(crate) fn take_all(&self, taken: &mut Vec<T>) -> bool {
        let mut state = self.lock();
        loop {
            let before = taken.len();
            taken.extend(state.places.iter_mut().filter_map(Option::take));
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

    /// The writer of this place has gone. What it left can still be read.
    pub(crate) fn close(&self, place: usize) {
        self.lock().open[place] = false;
        self.changed.notify_all();
    }

    /// All writers have gone.
    pub(crate) fn close_all(&self) {
        self.lock().open.fill(false);
        self.changed.notify_all();
    }

    /// The reader has gone.
    pub(crate) fn refuse(&self) {
        self.lock().refused = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Every change is a single step, so a thread that panicked left nothing half done.
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
