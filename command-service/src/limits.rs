//! Every limit of the command endpoints that is not the forum's language's ([`events::limits`]), in one place. Those of
//! the event store stand where they are used.

use std::time::Duration;

/// An idempotency key, in bytes: enough for every scheme of naming, and fit for an index.
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;
/// Failed log-ins to one account within [`LOG_IN_WINDOW`]: a person mistypes, a program guesses.
pub const LOG_IN_FAILURES: u32 = 10;
/// How long failed log-ins are remembered.
pub const LOG_IN_WINDOW: Duration = Duration::from_secs(60);
/// Accounts whose failed log-ins are remembered, in one process; about 100 bytes each.
pub const LOG_INS_REMEMBERED: u64 = 100_000;
/// What is shown to log in or to renew a session (a name, an address, a refresh token), in bytes; longer ones are none.
pub const CREDENTIAL_BYTES: usize = 1_024;
