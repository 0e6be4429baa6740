//! What a command's request says besides its body: who acts, and the headers that every command takes.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, Method, StatusCode, Uri, header, request::Parts},
};
use chrono::{DateTime, Utc};
use events::AccountId;
use garde::Validate;
use platform::{
    extract::{Query, moment},
    http::RequestId,
    identity::{Authenticated, Authenticates, Identity},
    problem::{FieldError, Problem},
    telemetry,
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::{
    access::AccessRefusal,
    answer::Nothing,
    limits::IDEMPOTENCY_KEY_BYTES,
    store::{Idempotency, Request},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const ON_BEHALF_OF: HeaderName = HeaderName::from_static("agora-on-behalf-of");
const OCCURRED_AT: HeaderName = HeaderName::from_static("agora-occurred-at");
/// The namespace of guests' idempotency keys: version 5, so that no account has such an id.
const GUESTS: Uuid = Uuid::nil();

/// Somebody's command: who is logged in, and what the headers and the query say. Parameters that `Q` does not know are
/// refused; most commands know none.
#[derive(Debug)]
pub struct Command<Q = Nothing> {
    identity: Identity,
    said: Said,
    /// What the query says.
    pub query: Q,
}

/// A guest's command. Whoever sends a token with it is a guest all the same.
#[derive(Debug)]
pub struct GuestCommand {
    said: Said,
}

/// The headers that every command takes.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "documentation: the headers are read one by one")]
pub struct CommandHeaders {
    /// A name for this command, 1 to 255 visible ASCII characters, best a UUID. Sent again under the same key, it takes
    /// effect once and gets the same answer, with `Idempotency-Replayed: true`. Another request under a used key is
    /// refused.
    #[param(rename = "Idempotency-Key", example = "4fd2a9c1-5d0e-4a53-9bbd-5f9a2c1c6d0e")]
    idempotency_key: Option<String>,
    /// Operators only: the account to act for, or `deleted`.
    #[param(rename = "Agora-On-Behalf-Of", example = "018f3f4e-7c2a-7d10-8a3b-5e6f708192a3")]
    on_behalf_of: Option<String>,
    /// Operators only: when it happened, where that is not now (RFC 3339).
    #[param(rename = "Agora-Occurred-At", example = "2011-08-17T20:18:56.507Z")]
    occurred_at: Option<String>,
}

/// The header by which a command says what version it was made from.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "documentation: the headers are read one by one")]
pub struct IfMatch {
    /// The `ETag` of what is to be changed, or its version in quotes. Refused with 412 where it is at another version.
    #[param(rename = "If-Match", example = "\"7\"")]
    if_match: Option<String>,
}

/// The same, of what no read shows the version of.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "documentation: the headers are read one by one")]
pub struct IfMatchAnswered {
    /// The `ETag` that the last command on it answered, or that version in quotes; `"0"` where there was none yet. It is
    /// one's reaction's, not the post's. Refused with 412 where it is at another version.
    #[param(rename = "If-Match", example = "\"1\"")]
    if_match: Option<String>,
}

/// What is read from a request's head.
#[derive(Debug)]
struct Said {
    method: Method,
    uri: Uri,
    key: Option<String>,
    if_match: Option<i64>,
    on_behalf_of: Option<Behalf>,
    occurred_at: Option<DateTime<Utc>>,
    request_id: Option<Uuid>,
}

/// For whom an operator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behalf {
    Account(AccountId),
    Deleted,
}

impl<Q> Command<Q> {
    /// The account that acts; none for a deleted one.
    pub fn account(&self) -> Option<AccountId> {
        match self.said.on_behalf_of {
            None => Some(AccountId(self.identity.account)),
            Some(Behalf::Account(account)) => Some(account),
            Some(Behalf::Deleted) => None,
        }
    }

    /// Who is logged in, whoever it acts for.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// What the store is asked.
    pub fn request(&self, body: &impl Serialize) -> Request {
        let (account, owner) = (self.account(), self.identity.account);
        self.said.request(account, self.identity.operator, owner, body)
    }
}

impl GuestCommand {
    /// What the store is asked; `account` is the one that the guest becomes, under a name that no two have. Keys are those
    /// of the name, so that no stranger's is mine by chance or intent.
    pub fn request(&self, account: AccountId, name: &str, body: &impl Serialize) -> Request {
        let owner = Uuid::new_v5(&GUESTS, name.to_lowercase().as_bytes());
        self.said.request(Some(account), false, owner, body)
    }
}

impl<Q, S> FromRequestParts<S> for Command<Q>
where
    Q: DeserializeOwned + Validate<Context = ()>,
    S: Authenticates,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Authenticated(identity) = Authenticated::from_request_parts(parts, state).await?;
        let said = Said::read(parts)?;
        if !identity.operator && (said.on_behalf_of.is_some() || said.occurred_at.is_some()) {
            return Err(AccessRefusal::OperatorsOnly.into());
        }
        let Query(query) = Query::from_request_parts(parts, state).await?;
        Ok(Self { identity, said, query })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for GuestCommand {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let said = Said::read(parts)?;
        if said.on_behalf_of.is_some() || said.occurred_at.is_some() {
            return Err(AccessRefusal::OperatorsOnly.into());
        }
        Query::<Nothing>::from_request_parts(parts, state).await?;
        Ok(Self { said })
    }
}

impl Said {
    fn read(parts: &Parts) -> Result<Self, Problem> {
        let request_id = parts.extensions.get::<RequestId>().and_then(|id| id.as_str().parse().ok());
        Ok(Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            key: read(parts, &IDEMPOTENCY_KEY, key)?,
            if_match: read(parts, &header::IF_MATCH, entity_tag)?.flatten(),
            on_behalf_of: read(parts, &ON_BEHALF_OF, behalf)?,
            occurred_at: read(parts, &OCCURRED_AT, past)?,
            request_id,
        })
    }

    fn request(&self, actor: Option<AccountId>, operator: bool, owner: Uuid, body: &impl Serialize) -> Request {
        let idempotency = self.key.clone().map(|key| Idempotency { owner, key, fingerprint: self.fingerprint(body) });
        Request {
            actor,
            operator,
            now: Utc::now(),
            occurred_at: self.occurred_at,
            traceparent: telemetry::current_traceparent(),
            correlation_id: self.request_id.unwrap_or_else(Uuid::now_v7),
            causation_id: None,
            if_match: self.if_match,
            idempotency,
        }
    }

    /// The first half of a SHA-256 of all that the request asks, the parts separated by what none contains. The body as
    /// it was understood: the same in other blanks is the same.
    fn fingerprint(&self, body: &impl Serialize) -> [u8; 16] {
        let mut hash = Sha256::new();
        let path = self.uri.path_and_query().map_or("", |path| path.as_str());
        let behalf = match self.on_behalf_of {
            None => String::new(),
            Some(Behalf::Account(account)) => account.to_string(),
            Some(Behalf::Deleted) => "deleted".to_owned(),
        };
        let head = format!("{}\n{path}\n{:?}\n{behalf}\n", self.method, self.if_match);
        hash.update(head);
        hash.update(serde_json::to_vec(body).unwrap_or_default());
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        half
    }
}

/// What `parse` makes of a header, where it is there; 400 where it cannot.
fn read<T>(
    parts: &Parts,
    name: &HeaderName,
    parse: impl FnOnce(&str) -> Result<T, &'static str>,
) -> Result<Option<T>, Problem> {
    let mut values = parts.headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let parsed = match (value.to_str(), values.next()) {
        (Ok(value), None) => parse(value.trim()),
        (Err(_), _) => Err("must be visible ASCII"),
        (_, Some(_)) => Err("must be given once"),
    };
    parsed.map(Some).map_err(|rule| {
        let detail = format!("The header {name} {rule}.");
        Problem::new(StatusCode::BAD_REQUEST, "malformed-request", detail).with_errors(vec![FieldError::new(
            name.as_str(),
            "invalid_value",
            rule,
        )])
    })
}

fn key(value: &str) -> Result<String, &'static str> {
    let visible = value.bytes().all(|byte| byte.is_ascii_graphic());
    if (1..=IDEMPOTENCY_KEY_BYTES).contains(&value.len()) && visible {
        Ok(value.to_owned())
    } else {
        Err("must be 1 to 255 visible ASCII characters")
    }
}

/// The version in `"<version>"` or `"<version>-<hash>"`; none in `*`, which any version matches. A weak tag is as good:
/// a compressed answer has one, and the version means the state, not the bytes.
fn entity_tag(value: &str) -> Result<Option<i64>, &'static str> {
    if value == "*" {
        return Ok(None);
    }
    let tag = value.strip_prefix("W/").unwrap_or(value);
    let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| {
        let version = tag.split_once('-').map_or(tag, |(version, _)| version);
        version.parse().ok().filter(|version| *version >= 0)
    });
    version.map(Some).ok_or("must be one ETag that this API gave out, \"<version>-…\", or \"<version>\", or *")
}

fn behalf(value: &str) -> Result<Behalf, &'static str> {
    match value {
        "deleted" => Ok(Behalf::Deleted),
        id => id.parse().map(Behalf::Account).map_err(|_| "must be an account's id, or `deleted`"),
    }
}

fn past(value: &str) -> Result<DateTime<Utc>, &'static str> {
    let time = moment(value)?;
    if time > Utc::now() { Err("must not be in the future") } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, if_match: Option<i64>, on_behalf_of: Option<Behalf>) -> Said {
        Said {
            method: Method::PUT,
            uri: path.parse().expect("a path"),
            key: None,
            if_match,
            on_behalf_of,
            occurred_at: None,
            request_id: None,
        }
    }

    #[test]
    fn an_entity_tag_names_a_version_whatever_follows() {
        for (value, version) in [("*", None), ("\"7\"", Some(7)), ("W/\"7-ab-cd\"", Some(7)), ("\"0\"", Some(0))] {
            assert_eq!(entity_tag(value), Ok(version), "{value}");
        }
        for value in ["", "7", "\"\"", "\"x\"", "w/\"7\"", "\"7\", \"8\"", "\"-1\"", "\"99999999999999999999\""] {
            assert!(entity_tag(value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_key_is_visible_ascii() {
        assert!(key("k").is_ok() && key(&"k".repeat(255)).is_ok());
        for value in ["", "a b", "é", &"k".repeat(256)] {
            assert!(key(value).is_err(), "{value}");
        }
    }

    #[test]
    fn an_operator_acts_for_an_account_or_a_deleted_one_in_the_past() {
        assert_eq!(behalf("deleted"), Ok(Behalf::Deleted));
        assert_eq!(behalf(&Uuid::nil().to_string()), Ok(Behalf::Account(AccountId(Uuid::nil()))));
        assert!(behalf("ada").is_err());
        assert!(past("2011-08-17T22:18:56.507+02:00").is_ok());
        assert!(past("2999-01-01T00:00:00Z").is_err() && past("yesterday").is_err());
    }

    #[test]
    fn a_fingerprint_tells_requests_apart() {
        let fingerprint = |path, if_match, behalf, body: &str| said(path, if_match, behalf).fingerprint(&body);
        let one = fingerprint("/a?b", None, None, "x");
        assert_eq!(one, fingerprint("/a?b", None, None, "x"));
        let others = [
            fingerprint("/a", None, None, "x"),
            fingerprint("/a?b", Some(1), None, "x"),
            fingerprint("/a?b", None, Some(Behalf::Deleted), "x"),
            fingerprint("/a?b", None, None, "y"),
        ];
        assert!(!others.contains(&one));
    }
}
