//! The sender's end: a line to a host that is trusted, for one request.
//!
//! ```text
//!   TCP ─▶ TLS, its certificate is the pinned one ─▶ greetings ─▶ request ─▶ accepted: a line
//! ```

use crate::error::LinkError;
use crate::frame::{self, FrameError, Kind};
use crate::greeting::{self, Greeting, HEAD_BYTES};
use crate::identity::Identity;
use crate::limits::{
    CONNECT_PATIENCE, GREETING_PATIENCE, HANDSHAKE_PATIENCE, KEEPALIVE_AFTER, KEEPALIVE_COUNT,
    KEEPALIVE_PAUSE, LINGER, MAX_FRAME_BYTES, STALL, TEST_ROUND_TRIPS,
};
use crate::request::Request;
use crate::token::Token;
use crate::{book::Host, pump, tls};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A line whose request was accepted.
#[derive(Debug)]
pub struct Line {
    stream: TlsStream<TcpStream>,
    name: String,
    /// The other side's release.
    pub release: String,
}

/// Makes a line to `host`, whose listener is at `address`.
///
/// # Errors
/// Nobody or somebody else is there, it does not trust us, does not answer, or refuses.
pub async fn dial(
    identity: &Identity,
    host: &Host,
    address: SocketAddr,
    request: Request,
) -> Result<Line, LinkError> {
    let name = host.name.clone();
    let silent = |step, patience: Duration| LinkError::Silent {
        name: host.name.clone(),
        seconds: patience.as_secs(),
        step,
    };
    let stream = timeout(CONNECT_PATIENCE, TcpStream::connect(address))
        .await
        .map_err(|_| silent("connection", CONNECT_PATIENCE))?
        .and_then(|stream| tune(&stream).map(|()| stream))
        .map_err(|error| unreachable(host, address, error))?;
    let connector = TlsConnector::from(tls::client(identity, host.fingerprint)?);
    let stream = timeout(
        HANDSHAKE_PATIENCE,
        connector.connect(tls::nominal_name(), stream),
    )
    .await
    .map_err(|_| silent("TLS", HANDSHAKE_PATIENCE))?
    .map_err(|error| explained(identity, host, error))?;
    let mut line = Line {
        stream,
        name,
        release: String::new(),
    };
    timeout(GREETING_PATIENCE, line.open(identity, host, request))
        .await
        .map_err(|_| silent("greeting", GREETING_PATIENCE))??;
    Ok(line)
}

/// A host that is gone is noticed, also while nothing is sent, and small words go at once.
///
/// # Errors
/// The socket has no such switch.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::TcpKeepIdle, &seconds(KEEPALIVE_AFTER))?;
    setsockopt(stream, sockopt::TcpKeepInterval, &seconds(KEEPALIVE_PAUSE))?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_COUNT)?;
    let stall = u32::try_from(STALL.as_millis()).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::TcpUserTimeout, &stall)?;
    Ok(())
}

fn unreachable(host: &Host, address: SocketAddr, error: io::Error) -> LinkError {
    let (name, address) = (host.name.clone(), address.to_string());
    match error.kind() {
        ErrorKind::ConnectionRefused => LinkError::NothingListens { name, address },
        _ => LinkError::Unreachable {
            name,
            address,
            error,
        },
    }
}

/// What a failure of TLS means.
fn explained(identity: &Identity, host: &Host, error: io::Error) -> LinkError {
    let name = host.name.clone();
    if let Some(got) = tls::stranger(&error) {
        let expected = host.fingerprint;
        return LinkError::WrongCertificate {
            name,
            expected,
            got,
        };
    }
    if tls::is_turned_away(&error) {
        let own = Token {
            fingerprint: identity.fingerprint(),
            address: None,
        };
        return LinkError::NotTrusted { name, own };
    }
    LinkError::Tls { name, error }
}

/// Reads a greeting, and agrees on a version.
pub(crate) async fn hear(
    name: &str,
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Greeting, HearError> {
    let wrong = |error| {
        HearError::Link(LinkError::Greeting {
            name: name.to_owned(),
            error,
        })
    };
    let mut bytes = [0; HEAD_BYTES];
    from.read_exact(&mut bytes).await?;
    let head = greeting::head(&bytes).map_err(wrong)?;
    let mut fields = vec![0; head.length];
    from.read_exact(&mut fields).await?;
    let theirs = Greeting::parse(head, &fields).map_err(wrong)?;
    theirs.agree().map_err(wrong)?;
    Ok(theirs)
}

/// Why no greeting was heard.
#[derive(Debug)]
pub(crate) enum HearError {
    /// Transport or TLS.
    Io(io::Error),
    /// The greeting.
    Link(LinkError),
}

impl From<io::Error> for HearError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Line {
    async fn open(
        &mut self,
        identity: &Identity,
        host: &Host,
        request: Request,
    ) -> Result<(), LinkError> {
        let broken = |error: io::Error| explained(identity, host, error);
        let mut words = Greeting::own().encode();
        let request = request.encode();
        let head = frame::head(Kind::Request, request.len()).map_err(|error| self.broken(error))?;
        words.extend(head);
        words.extend(request);
        // That we are not trusted is said after our half of the handshake: a failure here is told by what can be read.
        let _ = self.stream.write_all(&words).await;
        let _ = self.stream.flush().await;
        let theirs = hear(&host.name, &mut self.stream).await;
        self.release = theirs
            .map_err(|error| match error {
                HearError::Io(error) => broken(error),
                HearError::Link(error) => error,
            })?
            .release;
        let mut contents = Vec::new();
        let answer = frame::read(&mut self.stream, &mut contents).await;
        match answer.map_err(|error| self.broken(error))? {
            Kind::Accepted => Ok(()),
            Kind::Refused => Err(LinkError::Refused {
                name: self.name.clone(),
                why: pump::said(&String::from_utf8_lossy(&contents)),
            }),
            other => Err(self.broken(FrameError::Unexpected(other))),
        }
    }

    fn broken(&self, error: FrameError) -> LinkError {
        LinkError::Broken {
            name: self.name.clone(),
            error,
        }
    }

    /// Carries `input` there and what comes back to `output`, until the other side has ended; answers its exit code. `tell` is given the lines that it
    /// would print.
    ///
    /// # Errors
    /// The line broke.
    pub async fn carry(
        self,
        mut input: impl AsyncRead + Unpin,
        mut output: impl AsyncWrite + Unpin,
        tell: &mut (dyn FnMut(&str) + Send),
    ) -> Result<u8, LinkError> {
        let Self { stream, name, .. } = self;
        let (mut from, mut to) = tokio::io::split(stream);
        // Nobody speaks at this end.
        let (_, mut silence) = mpsc::channel(1);
        let ended = {
            let forth = async {
                pump::outbound(&mut input, &mut silence, &mut to).await?;
                frame::write(&mut to, Kind::End, &[]).await
            };
            let back = pump::inbound(&mut from, &mut output, tell);
            tokio::pin!(forth, back);
            tokio::select! {
                ended = &mut back => ended,
                // The other side's last word counts, also when it is not listening any more.
                _ = &mut forth => back.await,
            }
        };
        let _ = timeout(LINGER, to.shutdown()).await;
        ended.map_err(|error| LinkError::Broken { name, error })
    }

    /// Measures the line of a [`Request::Test`] with `bytes` bytes.
    ///
    /// # Errors
    /// The line broke, or the other side had enough.
    pub async fn test(mut self, bytes: u64) -> Result<Measured, LinkError> {
        let mut remarks = Vec::new();
        let mut round_trip = Duration::MAX;
        for _ in 0..TEST_ROUND_TRIPS {
            let began = Instant::now();
            let sent = frame::write(&mut self.stream, Kind::Data, &[0]).await;
            sent.map_err(|error| self.broken(error))?;
            let answer = answered(&mut self.stream, &mut remarks).await;
            answer.map_err(|error| self.broken(error))?;
            round_trip = round_trip.min(began.elapsed());
        }
        let Self { stream, name, .. } = self;
        let (mut from, mut to) = tokio::io::split(stream);
        let began = Instant::now();
        let forth = async {
            let block = vec![0x5a; MAX_FRAME_BYTES];
            let mut left = bytes;
            while left > 0 {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
                frame::write(&mut to, Kind::Data, &block[..count]).await?;
                left -= count as u64;
            }
            Ok::<(), FrameError>(())
        };
        let back = async {
            let mut there = 0;
            while there < bytes {
                there += u64::from(answered(&mut from, &mut remarks).await?);
            }
            Ok(())
        };
        let done = tokio::try_join!(forth, back);
        done.map_err(|error| LinkError::Broken { name, error })?;
        let time = began.elapsed();
        // It has told everything.
        let _ = frame::write(&mut to, Kind::End, &[]).await;
        Ok(Measured {
            round_trip,
            bytes,
            time,
            remarks,
        })
    }
}

/// How long a frame was that has arrived there.
async fn answered(
    from: &mut (impl AsyncRead + Unpin),
    remarks: &mut Vec<String>,
) -> Result<u32, FrameError> {
    let mut contents = Vec::new();
    loop {
        match frame::read(from, &mut contents).await? {
            Kind::Data => {
                let length: Result<[u8; 4], _> = contents.as_slice().try_into();
                return length
                    .map(u32::from_le_bytes)
                    .map_err(|_| FrameError::Unexpected(Kind::Data));
            }
            Kind::Said if remarks.is_empty() => {
                remarks.push(pump::said(&String::from_utf8_lossy(&contents)));
            }
            other => return Err(FrameError::Unexpected(other)),
        }
    }
}

/// How good a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The shortest round trip of one byte, through both programs.
    pub round_trip: Duration,
    /// Bytes that were sent.
    pub bytes: u64,
    /// Until the last of them was acknowledged.
    pub time: Duration,
    /// What the other side has to say, one line at most: that its agent does not answer.
    pub remarks: Vec<String>,
}
