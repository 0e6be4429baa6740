//! Access tokens: what they say, and what is refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderValue, StatusCode, header};
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, encode, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    Identity, IdentityConfig,
    keys::{PublicKeys, SigningKey},
};
use crate::{limits::ACCESS_TOKEN_BYTES, problem::Problem};

/// By how much the clocks of two instances may differ.
pub(super) const LEEWAY: Duration = Duration::from_secs(5);
/// What the header says a token is (RFC 9068, section 2.1), so that no other JWT of ours passes for one.
const TYPE: &str = "at+jwt";

/// What an access token says (RFC 7519, section 4.1).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    sid: Uuid,
    jti: Uuid,
    iat: u64,
    nbf: u64,
    exp: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    operator: bool,
}

/// Why an access token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is none, or not one of ours: another algorithm, another type, missing claims.
    #[error("the access token is none of ours")]
    Malformed,
    /// No key of that `kid` is known.
    #[error("the access token was signed with an unknown key")]
    UnknownKey,
    /// The signature is not that of the key it names.
    #[error("the access token's signature is wrong")]
    Signature,
    /// It was made for somebody else, or by somebody else.
    #[error("the access token is not for this service")]
    Audience,
    /// It is over.
    #[error("the access token has expired")]
    Expired,
    /// It is not good yet.
    #[error("the access token is not valid yet")]
    NotYetValid,
    /// Its session was ended.
    #[error("the session has ended")]
    SessionEnded,
}

impl From<TokenError> for Problem {
    /// 401, with the challenge of RFC 6750.
    fn from(error: TokenError) -> Self {
        let name = match error {
            TokenError::Expired => "token-expired",
            TokenError::SessionEnded => "session-ended",
            TokenError::Malformed
            | TokenError::UnknownKey
            | TokenError::Signature
            | TokenError::Audience
            | TokenError::NotYetValid => "token-refused",
        };
        Self::new(StatusCode::UNAUTHORIZED, name, format_args!("{error}: refresh it, or log in again."))
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""))
    }
}

impl Claims {
    /// What a token for `identity` says, from now on for `ttl`.
    pub(super) fn new(identity: Identity, config: &IdentityConfig, ttl: Duration) -> Self {
        let now = now();
        Self {
            iss: config.issuer.clone(),
            aud: config.audience.clone(),
            sub: identity.account,
            sid: identity.session,
            jti: Uuid::now_v7(),
            iat: now,
            nbf: now,
            exp: now + ttl.as_secs(),
            operator: identity.operator,
        }
    }

    /// The token itself.
    pub(super) fn sign(&self, key: &SigningKey) -> anyhow::Result<String> {
        let header = Header { typ: Some(TYPE.to_owned()), kid: Some(key.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        Ok(encode(&header, self, &key.key)?)
    }

    /// Whom it speaks for.
    pub(super) fn identity(&self) -> Identity {
        Identity { account: self.sub, session: self.sid, operator: self.operator }
    }

    /// Whether it is over, in seconds of Unix time.
    pub(super) fn expired(&self, now: u64) -> bool {
        self.exp + LEEWAY.as_secs() < now
    }
}

/// What is asked of every token.
pub(super) struct Rules(Validation);

impl Rules {
    pub(super) fn new(config: &IdentityConfig) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY.as_secs();
        Self(validation)
    }

    /// What `token` says, if it is one of ours and good now.
    pub(super) fn check(&self, token: &str, keys: &PublicKeys) -> Result<Claims, TokenError> {
        if token.len() > ACCESS_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        // `alg: none` is no algorithm that it knows.
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(TYPE) {
            return Err(TokenError::Malformed);
        }
        let key = keys.get(header.kid.as_deref().unwrap_or_default()).ok_or(TokenError::UnknownKey)?;
        let checked = decode(token, key, &self.0).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::ImmatureSignature => TokenError::NotYetValid,
            ErrorKind::InvalidAudience | ErrorKind::InvalidIssuer => TokenError::Audience,
            _ => TokenError::Malformed,
        })?;
        Ok(checked.claims)
    }
}

/// A token with which a local command acts as `account`, as an operator: who can reach the database may do anything
/// already. It belongs to no session, and cannot be taken back before `ttl`.
///
/// # Errors
/// Where the database is away.
pub async fn mint_operator(
    pool: &PgPool,
    config: &IdentityConfig,
    account: Uuid,
    ttl: Duration,
) -> anyhow::Result<String> {
    let key = SigningKey::ensure(pool, config).await?;
    Claims::new(Identity { account, session: Uuid::nil(), operator: true }, config, ttl).sign(&key)
}

/// Seconds of Unix time.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
