//! Positions in the event store, and the token by which a client names one.

use std::{fmt, str::FromStr};

use crate::{HistoryId, Shard};

/// An event's place in the whole event store, from 1, rising in commit order. 0 is before the first.
pub type Position = i64;

/// What a command answers and a read can wait for: `<history>.<shard>.<position>`, opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PositionToken {
    /// The line of positions it belongs to.
    pub history: HistoryId,
    /// The shard whose events it covers.
    pub shard: Shard,
    /// Everything of the shard up to here.
    pub position: Position,
}

/// A token that no Agora ever gave out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no position token: send back what `Agora-Position` said, several comma-separated")]
pub struct BadToken(pub String);

impl PositionToken {
    /// Reads the value of an `Agora-Position` header: one token or several, comma-separated.
    ///
    /// # Errors
    /// [`BadToken`] names the first part that is none.
    pub fn parse_list(header: &str) -> Result<Vec<Self>, BadToken> {
        header.split(',').map(|token| token.trim().parse()).collect()
    }
}

impl fmt::Display for PositionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.history, self.shard, self.position)
    }
}

impl FromStr for PositionToken {
    type Err = BadToken;

    fn from_str(token: &str) -> Result<Self, BadToken> {
        let parse = || {
            let mut parts = token.split('.');
            let history = parts.next()?.parse().ok()?;
            let shard = Shard::try_from(parts.next()?.parse::<i16>().ok()?).ok()?;
            let position = parts.next()?.parse().ok().filter(|position| *position >= 0)?;
            parts.next().is_none().then_some(Self { history, shard, position })
        };
        parse().ok_or_else(|| BadToken(token.chars().take(100).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tokens_comes_back_as_it_was_given() {
        let token = |shard: i16, position| PositionToken {
            history: HistoryId::new(),
            shard: Shard::try_from(shard).expect("a shard"),
            position,
        };
        let tokens = vec![token(0, 1), token(63, i64::MAX)];
        let header = format!("{}, {}", tokens[0], tokens[1]);
        assert_eq!(PositionToken::parse_list(&header), Ok(tokens));
    }

    #[test]
    fn what_is_no_token_is_named() {
        let history = HistoryId::new();
        for bad in [
            String::new(),
            "1.2.3".into(),
            format!("{history}.64.1"),
            format!("{history}.1.-1"),
            format!("{history}.1.1.1"),
        ] {
            assert_eq!(bad.parse::<PositionToken>(), Err(BadToken(bad)));
        }
    }
}
