//! Watch events on their way from the connection to whoever asked.
//!
//! A queue coalesces: a path that is already waiting is not added again, so a guest that rewrites its own node in a loop costs one
//! entry. The reader of the connection therefore never blocks on a slow consumer. A queue that reaches [`MAX_PENDING`] different paths
//! collapses to the watched path itself, which tells the consumer to look at everything below it again.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Different paths one watch may hold before it collapses to its root.
pub const MAX_PENDING: usize = 1024;

#[derive(Debug, Default)]
struct State {
    paths: VecDeque<String>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    ready: Condvar,
    notify: tokio::sync::Notify,
}

/// The producing end.
#[derive(Debug, Clone, Default)]
pub struct WatchSender {
    root: String,
    inner: Arc<Inner>,
}

/// A registered watch. Dropping it unregisters.
pub struct Watch {
    inner: Arc<Inner>,
    /// Runs when the watch is dropped (sends UNWATCH).
    unregister: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// A watch's two ends. `unregister` runs when the consumer goes away.
pub fn channel(root: &str, unregister: Box<dyn FnOnce() + Send + Sync>) -> (WatchSender, Watch) {
    let inner = Arc::new(Inner::default());
    let sender = WatchSender {
        root: root.to_owned(),
        inner: Arc::clone(&inner),
    };
    (
        sender,
        Watch {
            inner,
            unregister: Some(unregister),
        },
    )
}

impl WatchSender {
    /// Queues an event for `path`, unless the same path is waiting already.
    pub fn send(&self, path: &str) {
        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if state.paths.iter().any(|waiting| waiting == path) {
            return;
        }
        if state.paths.len() >= MAX_PENDING {
            state.paths.clear();
            state.paths.push_back(self.root.clone());
        } else {
            state.paths.push_back(path.to_owned());
        }
        drop(state);
        self.inner.ready.notify_all();
        self.inner.notify.notify_one();
    }

    /// The connection is gone for good; consumers see the end after what is queued.
    pub fn close(&self) {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closed = true;
        self.inner.ready.notify_all();
        self.inner.notify.notify_one();
    }
}

impl Watch {
    /// The next path that changed, if one waits.
    #[must_use]
    pub fn try_next(&self) -> Option<String> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .paths
            .pop_front()
    }

    /// Waits for the next path; `None` on timeout or when the watch ended.
    #[must_use]
    pub fn next_timeout(&self, timeout: Duration) -> Option<String> {
        let deadline = Instant::now() + timeout;
        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(path) = state.paths.pop_front() {
                return Some(path);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return None;
            }
            state = self
                .inner
                .ready
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for the next path; `None` when the watch ended. Cancel safe.
    pub async fn next(&self) -> Option<String> {
        loop {
            let notified = self.inner.notify.notified();
            {
                let mut state = self
                    .inner
                    .state
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if let Some(path) = state.paths.pop_front() {
                    return Some(path);
                }
                if state.closed {
                    return None;
                }
            }
            notified.await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(unregister) = self.unregister.take() {
            unregister();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_waits_once_however_often_it_fires() {
        let (sender, watch) = channel("/a", Box::new(|| ()));
        for _ in 0..10 {
            sender.send("/a/state");
        }
        sender.send("/a/other");
        assert_eq!(watch.try_next().as_deref(), Some("/a/state"));
        assert_eq!(watch.try_next().as_deref(), Some("/a/other"));
        assert_eq!(watch.try_next(), None);
    }

    #[test]
    fn a_flood_of_paths_collapses_to_the_root() {
        let (sender, watch) = channel("/root", Box::new(|| ()));
        for i in 0..=MAX_PENDING {
            sender.send(&format!("/root/{i}"));
        }
        assert_eq!(watch.try_next().as_deref(), Some("/root"));
        assert_eq!(watch.try_next(), None);
    }

    #[test]
    fn a_closed_watch_ends_after_what_was_queued() {
        let (sender, watch) = channel("/a", Box::new(|| ()));
        sender.send("/a");
        sender.close();
        assert_eq!(
            watch.next_timeout(Duration::from_secs(5)).as_deref(),
            Some("/a")
        );
        assert_eq!(watch.next_timeout(Duration::from_secs(5)), None);
    }
}
