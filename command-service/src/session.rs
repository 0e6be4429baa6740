//! Logging in, renewing, logging out. A session is no aggregate: what it is lives in [`platform::identity`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Json as Answered,
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::IntoResponse,
};
use events::AccountId;
use garde::Validate;
use moka::sync::Cache;
use platform::{
    extract::{Json, NoBody, Query},
    identity::{Authenticated, Tokens},
    problem::{FieldError, Problem},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    App,
    account::{EMAIL, PASSWORD, USERNAME},
    answer::Nothing,
    limits::{CREDENTIAL_BYTES, LOG_IN_FAILURES, LOG_IN_WINDOW, LOG_INS_REMEMBERED},
    refusal::{Documented, Refused},
    store::{Store, StoreError},
    text::Password,
};

/// Tokens are nobody's to keep but the client's (RFC 6749, section 5.1).
const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// Who logs in.
#[derive(Deserialize, Validate, ToSchema)]
pub struct LogIn {
    /// A username or an e-mail address.
    #[garde(length(bytes, max = CREDENTIAL_BYTES))]
    #[schema(example = "ada")]
    login: String,
    /// The account's password.
    #[garde(skip)]
    password: Password,
}

/// A session that goes on.
#[derive(Deserialize, Validate, ToSchema)]
pub struct Renewal {
    /// What the log-in, or the last renewal, gave.
    #[garde(length(bytes, max = CREDENTIAL_BYTES))]
    refresh_token: String,
}

/// A session that is over.
#[derive(Serialize, ToSchema)]
pub struct SessionEnded {
    id: Uuid,
}

/// What every way to show a password may refuse.
pub struct GuessRefusals;

impl Documented for GuessRefusals {
    fn problems() -> Vec<(StatusCode, &'static str)> {
        vec![(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts"), (StatusCode::SERVICE_UNAVAILABLE, "unavailable")]
    }
}

/// What a log-in or a renewal may refuse.
pub struct SessionRefusals;

impl Documented for SessionRefusals {
    fn problems() -> Vec<(StatusCode, &'static str)> {
        vec![
            (StatusCode::UNAUTHORIZED, "credentials-refused"),
            (StatusCode::UNAUTHORIZED, "refresh-token-refused"),
            (StatusCode::UNAUTHORIZED, "refresh-token-reused"),
        ]
        .into_iter()
        .chain(GuessRefusals::problems())
        .collect()
    }
}

/// Counts guesses at each password, so that nobody guesses for long. Clones share the counts.
#[derive(Clone)]
pub struct Attempts(Cache<String, Arc<Guesses>>);

#[derive(Default)]
struct Guesses {
    failed: AtomicU32,
    under_way: AtomicU32,
}

/// A guess at a password. It counts while it is under way, so that many at once are not many chances, and after it has
/// failed.
pub(crate) struct Attempt {
    all: Attempts,
    login: String,
    guesses: Arc<Guesses>,
    /// Once, however often it was compared.
    failed: AtomicBool,
}

impl Attempts {
    /// Nobody has tried yet.
    pub fn new() -> Self {
        Self(Cache::builder().max_capacity(LOG_INS_REMEMBERED).time_to_live(LOG_IN_WINDOW).build())
    }

    /// Lets an attempt begin.
    ///
    /// # Errors
    /// 429 where too many failed; or are under way, for a moment.
    pub(crate) fn admit(&self, login: &str) -> Result<Attempt, Problem> {
        let guesses = self.0.get_with_by_ref(login, Arc::default);
        let under_way = guesses.under_way.fetch_add(1, Ordering::SeqCst);
        let attempt = Attempt { all: self.clone(), login: login.to_owned(), guesses, failed: false.into() };
        let failed = attempt.guesses.failed.load(Ordering::SeqCst);
        if failed + under_way < LOG_IN_FAILURES {
            return Ok(attempt);
        }
        let (detail, wait) = if failed < LOG_IN_FAILURES {
            ("Too many attempts at once to log in to this account.", Duration::from_secs(1))
        } else {
            ("Too many failed attempts to log in to this account. Wait a little.", LOG_IN_WINDOW)
        };
        Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", detail).with_retry_after(wait))
    }
}

impl Attempt {
    /// The password was compared: a failure is counted, a success forgives those before.
    pub(crate) fn ended(&self, success: bool) {
        if success {
            self.guesses.failed.store(0, Ordering::SeqCst);
            self.all.0.invalidate(&self.login);
        } else if !self.failed.swap(true, Ordering::SeqCst) {
            self.guesses.failed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.guesses.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Default for Attempts {
    fn default() -> Self {
        Self::new()
    }
}

/// Logs in: begins a session, and answers its tokens.
///
/// After 10 failed attempts within a minute, the name or address takes no more for the rest of it.
#[utoipa::path(
    post,
    path = "/v2/sessions",
    tag = "sessions",
    responses((status = 201, description = "Logged in.", body = Tokens, headers(
        ("Cache-Control" = String, description = "`no-store`: what it says is nobody else's."),
        ("Location" = String, description = "Where it is ended.")
    )), Refused<SessionRefusals>),
    security(())
)]
pub(crate) async fn log_in(
    State(app): State<App>,
    _: Query<Nothing>,
    Json(body): Json<LogIn>,
) -> Result<impl IntoResponse, Problem> {
    let login = body.login.to_lowercase();
    // By what was typed, not by its account: that a name is locked out must not tell whose an address is.
    let attempt = app.attempts.admit(&login)?;
    let account = find(&app.store, &login).await?;
    let hash = match account {
        Some(account) => app.store.private(account, PASSWORD).await?,
        None => None,
    };
    let proved = app.identities.passwords().verify(body.password.0, hash.clone()).await?;
    attempt.ended(proved);
    let Some(account) = account.filter(|_| proved) else {
        return Err(refused());
    };
    let tokens = app.identities.issue(account.0).await?;
    // A password that changed meanwhile ended the sessions that were there: this one may have come just too late.
    if app.store.private(account, PASSWORD).await? != hash {
        app.identities.end(tokens.session).await?;
        return Err(refused());
    }
    Ok((StatusCode::CREATED, [NO_STORE, (header::LOCATION, "/v2/sessions/current")], Answered(tokens)))
}

/// Renews a session: new tokens for its refresh token.
///
/// The old refresh token may be used again for 10 seconds, as the answer may have been lost; after that, using it ends
/// the session.
#[utoipa::path(
    post,
    path = "/v2/sessions/refresh",
    tag = "sessions",
    responses((status = 200, description = "Renewed.", body = Tokens, headers(
        ("Cache-Control" = String, description = "`no-store`: what it says is nobody else's.")
    )), Refused<SessionRefusals>),
    security(())
)]
pub(crate) async fn renew(
    State(app): State<App>,
    _: Query<Nothing>,
    Json(body): Json<Renewal>,
) -> Result<impl IntoResponse, Problem> {
    let tokens = app.identities.refresh(&body.refresh_token).await?;
    Ok(([NO_STORE], Answered(tokens)))
}

/// Logs out: ends the session of the access token. Its tokens are refused everywhere within a second.
#[utoipa::path(
    delete,
    path = "/v2/sessions/current",
    tag = "sessions",
    responses((status = 200, description = "Logged out.", body = SessionEnded, headers(
        ("Cache-Control" = String, description = "`no-store`: what it says is nobody else's.")
    )), Refused<SessionRefusals>)
)]
pub(crate) async fn log_out(
    State(app): State<App>,
    Authenticated(identity): Authenticated,
    _: Query<Nothing>,
    _: NoBody,
) -> Result<impl IntoResponse, Problem> {
    app.identities.end(identity.session).await?;
    Ok(([NO_STORE], Answered(SessionEnded { id: identity.session })))
}

/// The account of a username or an e-mail address, in lower case.
async fn find(store: &Store, login: &str) -> Result<Option<AccountId>, StoreError> {
    let kind = if login.contains('@') { EMAIL } else { USERNAME };
    Ok(store.claimed_by(kind, login).await?.and_then(|owner| owner.parse().ok()))
}

/// The same whether the account is not there, has no password, or has another one.
fn refused() -> Problem {
    let detail = "There is no account of this name and password.";
    let errors = vec![FieldError::new("#/password", "credentials_refused", detail)];
    Problem::new(StatusCode::UNAUTHORIZED, "credentials-refused", detail).with_errors(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_failures_are_refused_until_one_is_forgiven() {
        let attempts = Attempts::new();
        for _ in 0..LOG_IN_FAILURES {
            attempts.admit("ada").expect("let in").ended(false);
        }
        let refused = attempts.admit("ada").map(drop).expect_err("one too many");
        assert_eq!((refused.status(), refused.name()), (StatusCode::TOO_MANY_REQUESTS, "too-many-attempts"));
        assert!(attempts.admit("bob").is_ok(), "others are not concerned");

        let mut at_once: Vec<_> = (0..LOG_IN_FAILURES).map(|_| attempts.admit("eve").expect("let in")).collect();
        let refused = attempts.admit("eve").map(drop).expect_err("those under way count");
        assert!(refused.detail().contains("at once"), "{refused:?}");
        at_once.pop();
        let last = attempts.admit("eve").expect("one was never looked at");
        for attempt in at_once {
            attempt.ended(false);
        }
        last.ended(true);
        drop(last);
        assert!(attempts.admit("eve").is_ok(), "forgiven");
    }
}
