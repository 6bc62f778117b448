//! The rig's end of a delegate port: one conversation, one command or one file.
//!
//! A host has several ports. A conversation takes the first that nobody holds (a lock file beside the socket says so), which is how several
//! people and processes use one host at once without a broker.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use lab_delegate::{
    CHUNK, Frame, GREETING_LEN, Kind, Opening, PORTS, Request, greeting, read_opening, write_frame,
};

use super::lock::{self, Held};

/// How often a delegate that does not answer is greeted again.
const GREET_AGAIN: Duration = Duration::from_millis(500);

/// What a command said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Connects to a unix socket whose path may be longer than a socket address holds.
///
/// # Errors
/// Those of the system.
pub fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let handle = File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
}

/// An open conversation with the delegate of one host.
#[derive(Debug)]
pub struct Conversation {
    stream: UnixStream,
    _port: Held,
}

impl Conversation {
    /// Takes a free port of the host that runs in `dir` and waits until its delegate answers.
    ///
    /// # Errors
    /// When every port is taken, the host is gone, or the delegate does not answer within `limit`.
    pub fn open(dir: &Path, limit: Duration) -> Result<Self> {
        let (port, number) = free_port(dir)?;
        let stream = connect(dir, &format!("lab{number}.sock"))
            .with_context(|| format!("the host in {} is not running", dir.display()))?;
        let mut conversation = Self {
            stream,
            _port: port,
        };
        conversation.greet(limit)?;
        Ok(conversation)
    }

    fn greet(&mut self, limit: Duration) -> Result<()> {
        let give_up = Instant::now() + limit;
        let nonce = fresh_nonce()?;
        let mut seen: Vec<u8> = Vec::new();
        self.stream.set_read_timeout(Some(GREET_AGAIN))?;
        while Instant::now() < give_up {
            self.stream
                .write_all(&greeting(nonce))
                .context("the host is gone")?;
            let mut chunk = [0; 4096];
            loop {
                match self.stream.read(&mut chunk) {
                    Ok(0) => bail!("the host is gone"),
                    Ok(count) => seen.extend_from_slice(&chunk[..count]),
                    Err(error) if is_timeout(&error) => break,
                    Err(error) => return Err(error).context("the host is gone"),
                }
                // An echo split between two reads is found when its rest arrives.
                if seen
                    .windows(GREETING_LEN)
                    .any(|bytes| bytes == greeting(nonce))
                {
                    return Ok(());
                }
            }
        }
        bail!("the delegate in dom0 does not answer (waited {limit:?}); see the serial log")
    }

    /// The next frame; late echoes of repeated greetings are passed over.
    fn next(&mut self) -> Result<Frame> {
        loop {
            if let Opening::Frame(frame) =
                read_opening(&mut self.stream).map_err(|error| explain(&error))?
            {
                return Ok(frame);
            }
        }
    }

    fn ask(&mut self, request: &Request, silence: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(silence))?;
        self.say(Kind::Request, &serde_json::to_vec(request)?)
    }

    fn say(&mut self, kind: Kind, body: &[u8]) -> Result<()> {
        write_frame(&mut self.stream, kind, body).context("the host is gone")
    }

    /// Runs a command to its end; `silence` is the longest wait for its next word.
    ///
    /// # Errors
    /// When the host or the delegate fails; a command that fails is an [`Output`] with its code.
    pub fn exec(mut self, argv: &[&str], input: &[u8], silence: Duration) -> Result<Output> {
        let argv = argv.iter().map(ToString::to_string).collect();
        self.ask(
            &Request::Exec {
                argv,
                env: Vec::new(),
                tty: false,
            },
            silence,
        )?;
        for chunk in input.chunks(CHUNK) {
            self.say(Kind::Data, chunk)?;
        }
        self.say(Kind::Eof, &[])?;
        let mut output = Output {
            code: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        let code = self.listen(&mut output.stdout, &mut output.stderr)?;
        Ok(Output { code, ..output })
    }

    /// Hands a command's streams to `stdout` and `stderr` as they come, until it ends.
    fn listen(&mut self, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<i32> {
        loop {
            let Frame { kind, body } = self.next()?;
            match kind {
                Kind::Stdout => stdout.write_all(&body).and_then(|()| stdout.flush())?,
                Kind::Stderr => stderr.write_all(&body).and_then(|()| stderr.flush())?,
                Kind::Exit => {
                    drop(self.say(Kind::Bye, &[]));
                    return Ok(i32::from_le_bytes(
                        body.try_into()
                            .map_err(|_| anyhow!("malformed exit code"))?,
                    ));
                }
                Kind::Failed => bail!("{}", String::from_utf8_lossy(&body)),
                other => bail!("{other:?} where a command's words were expected"),
            }
        }
    }

    /// Runs a command with this process's own standard streams, on a terminal if `tty`.
    ///
    /// # Errors
    /// As [`exec`](Self::exec).
    pub fn attach(mut self, argv: &[String], tty: bool) -> Result<i32> {
        let env = if tty {
            vec![(
                "TERM".into(),
                std::env::var("TERM").unwrap_or_else(|_| "vt100".into()),
            )]
        } else {
            Vec::new()
        };
        self.stream.set_read_timeout(None)?;
        self.say(
            Kind::Request,
            &serde_json::to_vec(&Request::Exec {
                argv: argv.to_vec(),
                env,
                tty,
            })?,
        )?;
        let mut to_host = self.stream.try_clone()?;
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            let mut stdin = io::stdin().lock();
            while let Ok(count @ 1..) = stdin.read(&mut chunk) {
                if write_frame(&mut to_host, Kind::Data, &chunk[..count]).is_err() {
                    return;
                }
            }
            drop(write_frame(&mut to_host, Kind::Eof, &[]));
        });
        self.listen(&mut io::stdout(), &mut io::stderr())
    }

    /// Writes a file in dom0.
    ///
    /// # Errors
    /// When it cannot be written; the delegate's own words.
    pub fn put(
        mut self,
        content: &mut dyn Read,
        path: &str,
        mode: u32,
        silence: Duration,
    ) -> Result<()> {
        self.ask(
            &Request::Put {
                path: path.into(),
                mode,
            },
            silence,
        )?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match content.read(&mut chunk)? {
                0 => break,
                count => self.say(Kind::Data, &chunk[..count])?,
            }
        }
        self.say(Kind::Eof, &[])?;
        match self.next()? {
            Frame {
                kind: Kind::Eof, ..
            } => self.say(Kind::Bye, &[]),
            Frame { body, .. } => bail!(
                "cannot write {path} in dom0: {}",
                String::from_utf8_lossy(&body)
            ),
        }
    }

    /// Reads a file in dom0.
    ///
    /// # Errors
    /// When it cannot be read; the delegate's own words.
    pub fn get(mut self, path: &str, silence: Duration) -> Result<Vec<u8>> {
        self.ask(&Request::Get { path: path.into() }, silence)?;
        let mut content = Vec::new();
        loop {
            let Frame { kind, body } = self.next()?;
            match kind {
                Kind::Data => content.extend_from_slice(&body),
                Kind::Eof => break,
                _ => bail!(
                    "cannot read {path} in dom0: {}",
                    String::from_utf8_lossy(&body)
                ),
            }
        }
        drop(self.say(Kind::Bye, &[]));
        Ok(content)
    }
}

fn free_port(dir: &Path) -> Result<(Held, usize)> {
    for number in 0..PORTS {
        if let Some(held) = lock::try_lock(&dir.join(format!("lab{number}.lock")))? {
            return Ok((held, number));
        }
    }
    bail!(
        "all {PORTS} ports of the host in {} are busy",
        dir.display()
    )
}

fn fresh_nonce() -> Result<[u8; 8]> {
    let mut nonce = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut nonce)?;
    Ok(nonce)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn explain(error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            anyhow!("the host died in the middle of a command; see its qemu.log and serial.log")
        }
        _ if is_timeout(error) => anyhow!("the command said nothing for longer than its deadline"),
        _ => anyhow!("lost the host: {error}"),
    }
}
