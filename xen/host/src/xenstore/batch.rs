//! The answers to one write, while they come in.
//!
//! Waiting is bounded by silence, not by size: as long as answers keep coming a large batch may take its time, and once xenstored has said nothing for
//! the whole deadline the rest counts as missing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use xen_abi::xs_wire::Message;

/// How one request of a batch ended.
#[derive(Debug)]
pub(super) enum Answer {
    /// xenstored answered.
    Came(Message),
    /// The connection ended first.
    Lost,
    /// Not (yet) answered.
    Missing,
}

/// Answers by position, and whoever waits for them.
#[derive(Debug)]
pub(super) struct Batch {
    state: Mutex<State>,
    complete: Condvar,
    notify: tokio::sync::Notify,
}

#[derive(Debug)]
struct State {
    answers: Vec<Answer>,
    missing: usize,
    /// When it was sent, or last answered.
    moved: Instant,
}

impl Batch {
    pub fn new(requests: usize) -> Arc<Self> {
        let answers = std::iter::repeat_with(|| Answer::Missing)
            .take(requests)
            .collect();
        let state = State {
            answers,
            missing: requests,
            moved: Instant::now(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            complete: Condvar::new(),
            notify: tokio::sync::Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an answer; the first one for a position counts.
    pub fn put(&self, position: usize, answer: Answer) {
        let mut state = self.lock();
        let Some(slot @ Answer::Missing) = state.answers.get_mut(position) else {
            return;
        };
        *slot = answer;
        state.missing = state.missing.saturating_sub(1);
        state.moved = Instant::now();
        if state.missing == 0 {
            drop(state);
            self.complete.notify_all();
            self.notify.notify_one();
        }
    }

    /// Waits until nothing is missing or nothing has come for `silence`, then gives what there is.
    pub fn wait(&self, silence: Duration) -> Vec<Answer> {
        let mut state = self.lock();
        while let Some(left) = state.left(silence) {
            let waited = self.complete.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut state.answers)
    }

    /// As [`Batch::wait`], inside of a tokio runtime.
    pub async fn wait_async(&self, silence: Duration) -> Vec<Answer> {
        loop {
            // A permit left by an answer that came between look and wait ends the wait at once.
            let Some(left) = self.lock().left(silence) else {
                break;
            };
            let _ = tokio::time::timeout(left, self.notify.notified()).await;
        }
        std::mem::take(&mut self.lock().answers)
    }
}

impl State {
    /// How long to wait for more; `None` once there is nothing to wait for.
    fn left(&self, silence: Duration) -> Option<Duration> {
        let left = silence.saturating_sub(self.moved.elapsed());
        (self.missing > 0 && !left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_extends_the_wait_and_silence_ends_it() {
        let silence = Duration::from_millis(500);
        let batch = Batch::new(2);
        let quiet_since = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        batch.lock().moved = quiet_since;
        assert_eq!(batch.lock().left(silence), None);
        batch.put(0, Answer::Lost);
        assert!(batch.lock().left(silence).is_some());
        batch.lock().moved = quiet_since;
        let answers = batch.wait(silence);
        assert!(matches!(answers[..], [Answer::Lost, Answer::Missing]));
    }
}
