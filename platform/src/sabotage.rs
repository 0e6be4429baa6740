//! Promises that a build for the fault campaign (`--features sabotage`) breaks on purpose, one at a time, so that it is
//! seen that the campaign finds it. In every other build nothing of it is there.

/// A promise, by what breaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// `blind-flush`: commands of a flush do not see what those before them in it write.
    BlindFlush,
    /// `unconfirmed`: a refusal, and a "nothing to do", is answered without asking the store whether it is still so.
    Unconfirmed,
    /// `no-compare-and-set`: a checkpoint moves wherever it stood.
    NoCompareAndSet,
    /// `checkpoint-apart`: a checkpoint moves outside the transaction that writes the rows.
    CheckpointApart,
    /// `no-gap-filling`: an event is applied though the one before it was not.
    NoGapFilling,
    /// `no-tail-check`: what Kafka lost last is not looked for.
    NoTailCheck,
    /// `any-history`: a message of another history is taken for one of ours.
    AnyHistory,
    /// `token-from-memory`: what rows reflect is taken from what was heard, not read with them.
    TokenFromMemory,
    /// `notice-lost`: a break in the chain of change notices is passed over.
    NoticeLost,
    /// `old-load`: an answer whose rows were read before a change counts as read after it.
    OldLoad,
}

/// All of them, as `AGORA_SABOTAGE` names them.
pub const PROMISES: [(&str, Promise); 10] = [
    ("blind-flush", Promise::BlindFlush),
    ("unconfirmed", Promise::Unconfirmed),
    ("no-compare-and-set", Promise::NoCompareAndSet),
    ("checkpoint-apart", Promise::CheckpointApart),
    ("no-gap-filling", Promise::NoGapFilling),
    ("no-tail-check", Promise::NoTailCheck),
    ("any-history", Promise::AnyHistory),
    ("token-from-memory", Promise::TokenFromMemory),
    ("notice-lost", Promise::NoticeLost),
    ("old-load", Promise::OldLoad),
];

/// Whether this process is to break the promise: `AGORA_SABOTAGE` names it.
#[cfg(feature = "sabotage")]
pub fn breaks(promise: Promise) -> bool {
    static NAMED: std::sync::LazyLock<Option<Promise>> = std::sync::LazyLock::new(|| {
        let name = std::env::var("AGORA_SABOTAGE").ok()?;
        let known = PROMISES.into_iter().find(|(known, _)| *known == name).map(|(_, promise)| promise);
        if known.is_none() {
            eprintln!("AGORA_SABOTAGE={name}: no promise is broken by that here; it may be one of the store's");
        }
        known
    });
    *NAMED == Some(promise)
}

/// Whether this process is to break the promise: never.
#[cfg(not(feature = "sabotage"))]
pub const fn breaks(_: Promise) -> bool {
    false
}
