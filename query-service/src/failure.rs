//! Why something asked for many readers at once could not be answered.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use platform::problem::Problem;

/// A problem that several readers are answered with: its cause was logged once, when it was made.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Arc<Problem>);

/// What is away for all is worth another try soon.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
        let again =
            Self::new(problem.status(), problem.name(), problem.detail()).with_errors(problem.errors().to_vec());
        match problem.status() {
            StatusCode::SERVICE_UNAVAILABLE => again.with_retry_after(RETRY_AFTER),
            _ => again,
        }
    }
}
