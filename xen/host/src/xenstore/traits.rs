//! Our clients behind the traits of `xenstore-rs`, so that code written for those takes either.
//!
//! [`Client`] implements the blocking, the asynchronous and the watching trait, [`QuickStore`] the blocking one. Their transaction traits
//! are left alone: nothing in them can be committed. The errors keep xenstored's errno as the raw OS error.

use super::client::Client;
use super::error::StoreError;
use super::quick::QuickStore;
use super::store::{StoreExt, StoreOp, StoreReply, TxId};
use super::watch::Watch;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use xenstore_rs::{AsyncWatch, AsyncXs, Xs};

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Refused { errno, .. } => Self::from_raw_os_error(*errno as i32),
            StoreError::Unreachable { .. } => Self::new(io::ErrorKind::NotConnected, error),
            StoreError::Lost { .. } => Self::new(io::ErrorKind::BrokenPipe, error),
            StoreError::Deadline { .. } => Self::new(io::ErrorKind::TimedOut, error),
            StoreError::Malformed { .. } => Self::new(io::ErrorKind::InvalidData, error),
            StoreError::Conflict { .. } => Self::new(io::ErrorKind::WouldBlock, error),
        }
    }
}

fn text(bytes: Vec<u8>) -> io::Result<Box<str>> {
    let text =
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
    text.map(String::into_boxed_str)
}

fn value(reply: StoreReply) -> io::Result<Box<str>> {
    match reply {
        StoreReply::Value(bytes) => text(bytes),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn children(reply: StoreReply) -> io::Result<Vec<Box<str>>> {
    match reply {
        StoreReply::Children(names) => Ok(names.into_iter().map(String::into_boxed_str).collect()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The blocking trait over any store of ours.
macro_rules! blocking {
    ($store:ty) => {
        impl Xs for $store {
            fn directory(&self, path: &str) -> io::Result<Vec<Box<str>>> {
                children(self.one(TxId::NONE, StoreOp::List(path.to_owned()))?)
            }

            fn read(&self, path: &str) -> io::Result<Box<str>> {
                value(self.one(TxId::NONE, StoreOp::Read(path.to_owned()))?)
            }

            fn write(&self, path: &str, data: &str) -> io::Result<()> {
                Ok(self.write_text(TxId::NONE, path, data)?)
            }

            fn rm(&self, path: &str) -> io::Result<()> {
                Ok(StoreExt::remove(self, TxId::NONE, path)?)
            }
        }
    };
}

blocking!(Client);
blocking!(QuickStore);

impl AsyncXs for Client {
    async fn directory(&self, path: &str) -> io::Result<Vec<Box<str>>> {
        children(self.one_async(StoreOp::List(path.to_owned())).await?)
    }

    async fn read(&self, path: &str) -> io::Result<Box<str>> {
        value(self.one_async(StoreOp::Read(path.to_owned())).await?)
    }

    async fn write(&self, path: &str, data: &str) -> io::Result<()> {
        let op = StoreOp::Write(path.to_owned(), data.as_bytes().to_vec());
        Ok(self.one_async(op).await.map(drop)?)
    }

    async fn rm(&self, path: &str) -> io::Result<()> {
        Ok(self
            .one_async(StoreOp::Remove(path.to_owned()))
            .await
            .map(drop)?)
    }
}

impl AsyncWatch for Client {
    async fn watch(
        &self,
        path: &str,
    ) -> io::Result<impl futures_util::Stream<Item = Box<str>> + Unpin + 'static> {
        Ok(WatchStream::new(self.watch_async(path).await?))
    }
}

type NextPath = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// A watch as a stream of paths; ends with the client.
pub struct WatchStream {
    watch: Arc<Watch>,
    waiting: Option<NextPath>,
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchStream")
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

impl WatchStream {
    fn new(watch: Watch) -> Self {
        Self {
            watch: Arc::new(watch),
            waiting: None,
        }
    }
}

impl futures_util::Stream for WatchStream {
    type Item = Box<str>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Box<str>>> {
        let watch = Arc::clone(&self.watch);
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(async move { watch.next().await }));
        let next = waiting.as_mut().poll(context);
        next.map(|path| {
            self.waiting = None;
            path.map(String::into_boxed_str)
        })
    }
}
