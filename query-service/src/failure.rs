//! Why something asked for many readers at once could not be answered.

use std::sync::Arc;

use platform::problem::Problem;

/// A problem that several readers are answered with, each with its cause: the log finds it by any of their requests.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Arc<Problem>);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Arc::new(problem))
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Problem::from(error).into()
    }
}

impl From<Failure> for Problem {
    fn from(Failure(problem): Failure) -> Self {
        Arc::unwrap_or_clone(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_is_answered_with_the_whole_of_it() {
        let failure = Failure::from(sqlx::Error::PoolTimedOut);
        let whole = format!("{:?}", Problem::from(sqlx::Error::PoolTimedOut));
        assert!(whole.contains("retry-after") && whole.contains("pool timed out"), "{whole}");
        for reader in [failure.clone(), failure] {
            assert_eq!(format!("{:?}", Problem::from(reader)), whole);
        }
    }
}
