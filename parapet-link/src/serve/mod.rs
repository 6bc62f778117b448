//! The listener's end: lets in whoever has a pinned certificate, and does one thing for it.
//!
//! ```text
//!   accept ─▶ gate ─▶ TLS: pinned? ─▶ greetings ─▶ request ─▶ session
//!      └ too many strangers: closed    └ no: told by TLS, logged within bounds
//! ```
//!
//! It runs with a user of its own and no rights, and starts no program. What comes in goes to the agent's socket, where its user may ask for one thing more
//! than everybody: to take a guest.

mod gate;
mod reach;
mod session;
mod splice;

use crate::book::{Book, Host};
use crate::dial::tune;
use crate::error::LinkError;
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use crate::limits::{HANDSHAKE_PATIENCE, LINGER, LINGER_BYTES, MAX_LINES};
use crate::tls;
use dom0_agent::agent::chatter::Chatter;
use gate::{Gate, Pass};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Pause after a connection that could not be accepted: as a rule there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener works with.
#[derive(Debug)]
pub struct Listener {
    identity: Identity,
    book: Book,
    agent: PathBuf,
    gate: Arc<Gate>,
    lines: Arc<Semaphore>,
    /// What strangers make it write into the system's log.
    chatter: Mutex<Chatter>,
}

/// Why somebody was not let in.
#[derive(Debug, thiserror::Error)]
enum Unmet {
    #[error(
        "the host with the certificate {0} is not trusted here; if it should be: `parapet link trust NAME {0}`"
    )]
    Stranger(Fingerprint),
    #[error("no TLS between links: {0}")]
    Tls(io::Error),
    #[error("no handshake within {} s", HANDSHAKE_PATIENCE.as_secs())]
    Silent,
    #[error("{0}")]
    Ours(#[from] LinkError),
}

impl Listener {
    /// A listener that shows `identity`, lets in the hosts of `book`, and knows the agent's socket.
    #[must_use]
    pub fn new(identity: Identity, book: Book, agent: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            identity,
            book,
            agent,
            gate: Arc::default(),
            lines: Arc::new(Semaphore::new(MAX_LINES)),
            chatter: Mutex::default(),
        })
    }

    /// Serves for ever.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    // An IPv4 address that came in by a socket for both is the same host as by one of its own.
                    let from = from.ip().to_canonical();
                    let Some(pass) = self.gate.admit(from) else {
                        self.complain(from, &"too many connections wait for their handshake");
                        continue;
                    };
                    tokio::spawn(Arc::clone(&self).meet(stream, from, pass));
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// One connection, from its first byte to its end.
    async fn meet(self: Arc<Self>, stream: TcpStream, from: IpAddr, pass: Pass) {
        let met = self.shake_hands(stream).await;
        drop(pass);
        match met {
            Ok((stream, host)) => {
                if let Err(error) = self.session(stream, &host).await {
                    tracing::warn!(host = host.name, %from, %error, "a line ended early");
                }
            }
            Err(error) => self.complain(from, &error),
        }
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Host), Unmet> {
        tune(&stream).map_err(Unmet::Tls)?;
        // Anew for each connection: a host that was forgotten is a stranger.
        let hosts = self.book.hosts()?;
        let trusted = hosts.iter().map(|host| host.fingerprint).collect();
        let acceptor = TlsAcceptor::from(tls::server(&self.identity, trusted)?);
        let accept = acceptor.accept(stream).into_fallible();
        let shaken = timeout(HANDSHAKE_PATIENCE, accept).await;
        let stream = match shaken.map_err(|_| Unmet::Silent)? {
            Ok(stream) => stream,
            Err((error, mut stream)) => {
                // It was told why; it should be able to read that.
                linger(&mut stream).await;
                return Err(match tls::stranger(&error) {
                    Some(got) => Unmet::Stranger(got),
                    None => Unmet::Tls(error),
                });
            }
        };
        let peer = tls::peer(stream.get_ref().1);
        let host = hosts
            .into_iter()
            .find(|host| Some(host.fingerprint) == peer);
        match host {
            Some(host) => Ok((stream, host)),
            // The handshake does not end well without a pinned certificate.
            None => Err(Unmet::Silent),
        }
    }

    /// A line for the log, as long as there are not too many.
    fn complain(&self, from: IpAddr, why: &dyn std::fmt::Display) {
        let mut chatter = self.chatter.lock().unwrap_or_else(PoisonError::into_inner);
        match chatter.speak(Instant::now()) {
            Some(0) => tracing::warn!(%from, "a connection was refused: {why}"),
            Some(left_out) => {
                tracing::warn!(%from, left_out, "a connection was refused: {why}");
            }
            None => {}
        }
    }
}

/// Reads and throws away for a moment, until the other side has closed.
async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let _ = timeout(LINGER, async {
        let _ = stream.shutdown().await;
        let mut bytes = [0; 4096];
        let mut left = LINGER_BYTES;
        while let Ok(count) = stream.read(&mut bytes).await {
            left = left.saturating_sub(count);
            if count == 0 || left == 0 {
                break;
            }
        }
    })
    .await;
}
