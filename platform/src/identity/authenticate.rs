use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use futures::future::BoxFuture;

use super::{Identity, TokenError};
use crate::problem::Problem;

/// Tells who a token speaks for.
pub trait Authenticator: Send + Sync + 'static {
    /// Whom `token` (the part after `Bearer `) speaks for.
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, TokenError>>;
}

/// The state of a router whose handlers may ask who is asking: [`Authenticated`], [`MaybeAuthenticated`]. (In a layer it
/// would be cloned and boxed for each request.)
pub trait Authenticates: Send + Sync {
    /// Who tells.
    fn authenticator(&self) -> &Arc<dyn Authenticator>;
}

/// Somebody who is logged in; anybody else is answered 401.
#[derive(Clone, Copy, Debug)]
pub struct Authenticated(pub Identity);

/// Whoever asks: `None` without a token. A bad token is answered 401, never taken for a guest.
#[derive(Clone, Copy, Debug)]
pub struct MaybeAuthenticated(pub Option<Identity>);

impl<S: Authenticates> FromRequestParts<S> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match MaybeAuthenticated::from_request_parts(parts, state).await? {
            MaybeAuthenticated(Some(identity)) => Ok(Self(identity)),
            MaybeAuthenticated(None) => Err(no_token()),
        }
    }
}

impl<S: Authenticates> FromRequestParts<S> for MaybeAuthenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // Several extractors of one handler may ask: the first answer holds for the request.
        if let Some(known) = parts.extensions.get::<Identity>() {
            return Ok(Self(Some(*known)));
        }
        let Some(token) = bearer(&parts.headers)? else { return Ok(Self(None)) };
        let identity = state.authenticator().authenticate(token).await?;
        parts.extensions.insert(identity);
        Ok(Self(Some(identity)))
    }
}

/// The access token of somebody who is logged in, for an answer that goes on for long: it can be looked at again.
/// Anybody else is answered 401.
#[derive(Clone)]
pub struct Credentials {
    authenticator: Arc<dyn Authenticator>,
    token: Arc<str>,
}

impl Credentials {
    /// Whom it speaks for now.
    ///
    /// # Errors
    /// 401 once it has expired, or its session has ended.
    pub async fn check(&self) -> Result<Identity, Problem> {
        Ok(self.authenticator.authenticate(&self.token).await?)
    }
}

impl<S: Authenticates> FromRequestParts<S> for Credentials {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?.ok_or_else(no_token)?.into();
        Ok(Self { authenticator: Arc::clone(state.authenticator()), token })
    }
}

fn no_token() -> Problem {
    challenge("This needs an access token: send Authorization: Bearer <token>.")
}

/// The token of `Authorization: Bearer <token>` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(header) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = header.to_str().ok().and_then(|header| {
        let (scheme, token) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    token.map(Some).ok_or_else(|| challenge("The Authorization header must be: Bearer <token>."))
}

fn challenge(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::Request, routing::get};
    use futures::FutureExt;
    use serde_json::json;
    use tower::ServiceExt;
    use uuid::Uuid;

    use super::*;
    use crate::testing;

    /// Knows one token.
    struct OneToken;

    impl Authenticator for OneToken {
        fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, TokenError>> {
            let ada = Identity { account: Uuid::from_u128(1), session: Uuid::nil(), operator: false };
            let known = if token == "ada" { Ok(ada) } else { Err(TokenError::Expired) };
            async move { known }.boxed()
        }
    }

    #[derive(Clone)]
    struct Known(Arc<dyn Authenticator>);

    impl Authenticates for Known {
        fn authenticator(&self) -> &Arc<dyn Authenticator> {
            &self.0
        }
    }

    async fn ask(path: &str, authorization: Option<&str>) -> (u16, serde_json::Value, Option<String>) {
        let router = Router::new()
            .route("/member", get(|Authenticated(who): Authenticated| async move { who.account.to_string() }))
            .route(
                "/guest",
                get(|MaybeAuthenticated(who): MaybeAuthenticated| async move { who.is_some().to_string() }),
            );
        let mut request = Request::get(path);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(Body::empty()).expect("a request");
        let router = router.with_state(Known(Arc::new(OneToken)));
        let response = router.oneshot(request).await.expect("an answer");
        let challenge = response.headers().get("www-authenticate").map(|value| value.to_str().unwrap_or("").to_owned());
        let (status, body) = testing::read(response).await;
        (status, body, challenge)
    }

    #[tokio::test]
    async fn a_good_token_is_somebody() {
        assert_eq!(ask("/member", Some("Bearer ada")).await.0, 200);
        assert_eq!(ask("/guest", Some("bearer ada")).await.1, json!(true));
    }

    #[tokio::test]
    async fn no_token_is_a_guest_or_a_challenge() {
        assert_eq!(ask("/guest", None).await.1, json!(false));
        let (status, body, challenge) = ask("/member", None).await;
        assert_eq!(
            (status, &body["type"], challenge.as_deref()),
            (401, &json!("/problems/unauthenticated"), Some("Bearer"))
        );
    }

    #[tokio::test]
    async fn a_bad_token_is_never_a_guest() {
        for authorization in ["Bearer eve", "Basic YWRhOg==", "ada", "Bearer "] {
            for path in ["/guest", "/member"] {
                assert_eq!(ask(path, Some(authorization)).await.0, 401, "{authorization} at {path}");
            }
        }
        let (_, body, challenge) = ask("/member", Some("Bearer eve")).await;
        assert_eq!(body["type"], "/problems/token-expired");
        assert_eq!(challenge.as_deref(), Some("Bearer error=\"invalid_token\""));
    }
}
