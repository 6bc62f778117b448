//! The answers to one write, while they come in.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
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
}

impl Batch {
    pub fn new(requests: usize) -> Arc<Self> {
        let answers = std::iter::repeat_with(|| Answer::Missing)
            .take(requests)
            .collect();
        Arc::new(Self {
            state: Mutex::new(State {
                answers,
                missing: requests,
            }),
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
        if state.missing == 0 {
            drop(state);
            self.complete.notify_all();
            self.notify.notify_one();
        }
    }

    /// Waits until nothing is missing or `deadline` has come, then gives what there is.
    pub fn wait_until(&self, deadline: Instant) -> Vec<Answer> {
        let mut state = self.lock();
        while state.missing > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.complete.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut state.answers)
    }

    /// As [`Batch::wait_until`], inside of a tokio runtime.
    pub async fn wait_until_async(&self, deadline: Instant) -> Vec<Answer> {
        let complete = async {
            while self.lock().missing > 0 {
                self.notify.notified().await;
            }
        };
        let _ = tokio::time::timeout_at(deadline.into(), complete).await;
        std::mem::take(&mut self.lock().answers)
    }
}
