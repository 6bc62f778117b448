//! A GET in HTTP/1.0, read up to the end of the status line.

use crate::limits::HTTP_HEAD_MAX_BYTES;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Asks for `path`; a status of 200 to 399 is a yes.
///
/// # Errors
/// No connection, no HTTP, or another status.
pub async fn get(host: &str, port: u16, path: &str) -> io::Result<()> {
    let mut stream = super::connect(host, port).await?;
    let name = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: {name}:{port}\r\nUser-Agent: parapet-ft-monitor\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; HTTP_HEAD_MAX_BYTES];
    let mut filled = 0;
    while filled < head.len() {
        let count = stream.read(&mut head[filled..]).await?;
        filled += count;
        if let Some(end) = head[..filled].iter().position(|byte| *byte == b'\n') {
            return judge(&head[..end]);
        }
        if count == 0 {
            return Err(io::Error::other(
                "the answer ended before its status line did",
            ));
        }
    }
    Err(io::Error::other("the answer is no HTTP: no status line"))
}

fn judge(line: &[u8]) -> io::Result<()> {
    match status(line) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(io::Error::other(format!("HTTP status {code}"))),
        None => Err(io::Error::other("the answer is no HTTP")),
    }
}

/// The code of `HTTP/1.x NNN ...`.
fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let mut words = line.strip_prefix("HTTP/1.")?.split(' ');
    let (_minor, code) = (words.next()?, words.next()?);
    (code.len() == 3).then(|| code.parse().ok())?
}
