//! Which commands may go together.

use std::collections::HashSet;

use events::Stream;
use platform::sabotage::{Promise, breaks};

use super::Append;

/// What the commands of a flush write so far.
#[derive(Default)]
pub(super) struct Written {
    streams: HashSet<Stream>,
    claims: HashSet<(&'static str, String)>,
    receipts: HashSet<(uuid::Uuid, String)>,
    private: HashSet<(uuid::Uuid, &'static str)>,
}

impl Written {
    /// Whether the command reads or writes any of it.
    pub(super) fn concerns(&self, append: &Append) -> bool {
        if breaks(Promise::BlindFlush) {
            return append.events.iter().any(|event| self.streams.contains(&event.stream));
        }
        append.checks.iter().any(|(stream, _)| self.streams.contains(stream))
            || append.claims.iter().any(|claim| self.claims.contains(&(claim.kind, claim.value.clone())))
            || append.receipt.iter().any(|it| self.receipts.contains(&(it.owner, it.key.clone())))
            || append.private.iter().any(|it| self.private.contains(&(it.owner, it.kind)))
    }

    pub(super) fn note(&mut self, append: &Append) {
        self.streams.extend(append.events.iter().map(|event| event.stream.clone()));
        self.claims.extend(append.claims.iter().map(|claim| (claim.kind, claim.value.clone())));
        self.receipts.extend(append.receipt.iter().map(|it| (it.owner, it.key.clone())));
        self.private.extend(append.private.iter().map(|it| (it.owner, it.kind)));
    }
}
