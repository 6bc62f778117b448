//! Every bound of the link, with its unit and its reason.

use std::time::Duration;

/// TCP port of the listener, unless an address names another.
pub const PORT: u16 = 8402;
/// Hosts that can be linked with this one.
pub const MAX_HOSTS: usize = 256;
/// Bytes of one host's file, and of this host's key with its certificate.
pub const MAX_FILE_BYTES: u64 = 16 << 10;

/// Connections that have not shown a pinned certificate yet, over all addresses; more are closed at once.
pub const MAX_STRANGERS: usize = 64;
/// The same, of one address: one host that opens connections does not keep the others out.
pub const MAX_STRANGERS_OF_ONE: usize = 4;
/// Lines of trusted hosts at the same time. Each keeps a thread, and its guest's memory is set aside by the agent.
pub const MAX_LINES: usize = 16;

/// Longest time for the TCP connection to the other host.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Longest time for the TLS handshake, at either end.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Longest time for greeting, request and answer after it.
pub const GREETING_PATIENCE: Duration = Duration::from_secs(10);
/// How long a side that is done listens on, so that the other one reads what was said last: a socket that is closed with unread bytes takes them away.
pub const LINGER: Duration = Duration::from_secs(5);
/// Bytes that are read, and not looked at, meanwhile.
pub const LINGER_BYTES: usize = 1 << 20;
/// A host that is gone without a word: first question after this long without traffic, then one each [`KEEPALIVE_PAUSE`], given up after
/// [`KEEPALIVE_COUNT`].
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// See [`KEEPALIVE_AFTER`].
pub const KEEPALIVE_PAUSE: Duration = Duration::from_secs(5);
/// See [`KEEPALIVE_AFTER`].
pub const KEEPALIVE_COUNT: u32 = 4;
/// Longest time in which the other host may take nothing of what was sent. Above the agent's own (30 s), which has the better words.
pub const STALL: Duration = Duration::from_secs(60);

/// Bytes of a greeting behind its head.
pub const MAX_GREETING_BYTES: usize = 1024;
/// Bytes of a request.
pub const MAX_REQUEST_BYTES: usize = 64;
/// Bytes of one frame: what one end of a line keeps in memory for each direction, beside TLS' own records.
pub const MAX_FRAME_BYTES: usize = 64 << 10;
/// Bytes of one line that the other side says; longer ones are cut.
pub const MAX_SAID_BYTES: usize = 4096;
/// Lines that the other side may say over one connection; the rest is not shown.
pub const MAX_SAID_LINES: usize = 1000;
/// Lines that wait to be said; whoever says more waits.
pub const SAID_BACKLOG: usize = 16;

/// Bytes that `parapet link test` sends to measure the rate.
pub const TEST_BYTES: u64 = 64 << 20;
/// Bytes that a listener takes for one test.
pub const MAX_TEST_BYTES: u64 = 1 << 30;
/// Round trips of a test; the shortest one is told.
pub const TEST_ROUND_TRIPS: u32 = 8;
