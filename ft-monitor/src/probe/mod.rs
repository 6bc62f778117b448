//! Putting a question to a guest from outside, with one deadline over everything: name, connection, answer.
//!
//! A probe sends nothing but the question and reads no more than it needs to tell yes from no; what a guest answers is bounded and never kept. The
//! error is one line for `parapet status`.

mod http;
pub(crate) mod name;
mod ping;

use crate::evidence::probe::Target;
use name::resolve;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// Asks, and waits at most `timeout`.
///
/// # Errors
/// Why the answer is no, in one line.
pub async fn ask(target: &Target, timeout: Duration) -> Result<(), String> {
    let asked = async {
        match target {
            Target::Tcp { host, port } => connect(host, *port).await.map(drop),
            Target::Http { host, port, path } => http::get(host, *port, path).await,
            Target::Ping { host } => ping::echo(resolve(host, 0).await?).await,
        }
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    TcpStream::connect(resolve(host, port).await?).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const SOON: Duration = Duration::from_secs(5);

    /// A server that answers one connection with these bytes and closes, or stays silent.
    async fn serving(answer: Option<&'static [u8]>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let count = client.read(&mut request).await.unwrap();
            match answer {
                Some(answer) => {
                    if count > 0 {
                        assert!(request.starts_with(b"GET /health HTTP/1.0\r\n"));
                    }
                    let _ = client.write_all(answer).await;
                }
                None => std::future::pending().await,
            }
        });
        port
    }

    async fn http(answer: Option<&'static [u8]>, timeout: Duration) -> Result<(), String> {
        let port = serving(answer).await;
        ask(
            &format!("http://127.0.0.1:{port}/health").parse().unwrap(),
            timeout,
        )
        .await
    }

    #[tokio::test]
    async fn a_listening_port_answers_and_a_closed_one_does_not() {
        let port = serving(Some(b"")).await;
        ask(&format!("tcp:127.0.0.1:{port}").parse().unwrap(), SOON)
            .await
            .unwrap();
        let error = ask(&"tcp:127.0.0.1:1".parse().unwrap(), SOON)
            .await
            .unwrap_err();
        assert!(error.contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn only_2xx_and_3xx_are_a_yes() {
        for good in [
            &b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello"[..],
            b"HTTP/1.0 302 Found\r\n\r\n",
            b"HTTP/1.1 204\r\n",
        ] {
            http(Some(good), SOON).await.unwrap();
        }
        for (bad, part) in [
            (&b"HTTP/1.1 503 Busy\r\n\r\n"[..], "503"),
            (b"HTTP/1.1 100 Continue\r\n", "100"),
            (b"SSH-2.0-OpenSSH_9\r\n", "no HTTP"),
            (b"HTTP/1.1 2000 OK\r\n", "no HTTP"),
            (b"HTTP/1.1 200", "ended"),
            (b"", "ended"),
        ] {
            let error = http(Some(bad), SOON).await.unwrap_err();
            assert!(error.contains(part), "{bad:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_flood_without_a_status_line_is_bounded() {
        static FLOOD: [u8; 100_000] = [b'a'; 100_000];
        let error = http(Some(&FLOOD), SOON).await.unwrap_err();
        assert!(error.contains("no HTTP"), "{error}");
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let error = http(None, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error, "no answer within 20 ms");
    }

    #[tokio::test]
    async fn an_echo_of_our_own_is_answered() {
        for target in ["ping:127.0.0.1", "ping:::1"] {
            match ask(&target.parse().unwrap(), SOON).await {
                Ok(()) => {}
                // A build machine may forbid both kinds of socket, or have no IPv6; the message must then say so.
                Err(error) => assert!(
                    error.contains("ping_group_range") || error.contains("address"),
                    "{target}: {error}"
                ),
            }
        }
    }
}
