//! Every limit of the chassis that is not configured, in one place. The configurable ones stand in the configuration of
//! their part: [`crate::http::HttpConfig`], [`crate::db::DatabaseConfig`], [`crate::identity::IdentityConfig`].

use std::{ops::RangeInclusive, time::Duration};

/// An answer below this many bytes is sent as it is: compressing it would cost more than it saves.
pub const COMPRESS_FROM_BYTES: u64 = 1024;
/// What is read and thrown away of a body over its limit, in bytes: many clients read no answer before they have sent
/// all, and would see no more than a broken connection.
pub const BODY_DISCARDED_BYTES: usize = 16 * 1024 * 1024;
/// How long a browser may remember what CORS allows.
pub const CORS_MAX_AGE: Duration = Duration::from_secs(3600);
/// Requests at once on one HTTP/2 connection.
pub const HTTP2_STREAMS: u32 = 100;
/// A client's own `X-Request-Id`, in bytes: it stands in every log line of the request. A longer one is replaced.
pub const REQUEST_ID_BYTES: usize = 64;
/// An access token, in bytes; ours have about 500.
pub const ACCESS_TOKEN_BYTES: usize = 4096;
/// A password's length, in characters (NIST SP 800-63B, section 5.1.1.2, asks for 8 to at least 64).
pub const PASSWORD_CHARS: RangeInclusive<usize> = 8..=256;
/// Passwords that wait to be hashed, in one process: some seconds of work. The next one is told to come back.
pub const PASSWORD_QUEUE: usize = 128;
/// How often one refresh token may be used while its answers may be getting lost; more is no accident.
pub const REFRESH_TOKEN_USES: i16 = 100;
/// Expired rows deleted in one statement: each holds its locks for milliseconds only.
pub const PURGE_BATCH: i64 = 1_000;
