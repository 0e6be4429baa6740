//! Every refusal of a rule, so that one use case may meet those of several aggregates. Each module maps its own to a
//! status and a name, and so to the API's documentation.

use std::{collections::BTreeMap, marker::PhantomData};

use axum::http::StatusCode;
use platform::{
    openapi,
    problem::{self, Problem},
};
use utoipa::{
    IntoResponses,
    openapi::{RefOr, Response, ResponseBuilder},
};

use crate::{
    access::AccessRefusal,
    account::{AccountRefusal, EMAIL, USERNAME},
    category::{CATEGORY, CategoryRefusal},
    community::{CommunityRefusal, SLUG},
    membership::MembershipRefusal,
    post::PostRefusal,
    reaction::ReactionRefusal,
    store::Stop,
    thread::ThreadRefusal,
};

macro_rules! refusals {
    ($($variant:ident($refusal:ty),)+) => {
        /// Why a command was refused: understood, and against a rule.
        #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum Refusal {
            $(#[doc = concat!("See [`", stringify!($refusal), "`].")] #[error(transparent)] $variant(#[from] $refusal),)+
        }

        impl From<Refusal> for Problem {
            fn from(refusal: Refusal) -> Self {
                match refusal { $(Refusal::$variant(refusal) => refusal.into(),)+ }
            }
        }

        $(impl From<$refusal> for Stop<Refusal> {
            fn from(refusal: $refusal) -> Self {
                Self::Refused(refusal.into())
            }
        })+
    };
}

refusals! {
    Access(AccessRefusal),
    Account(AccountRefusal),
    Category(CategoryRefusal),
    Community(CommunityRefusal),
    Membership(MembershipRefusal),
    Post(PostRefusal),
    Reaction(ReactionRefusal),
    Thread(ThreadRefusal),
}

impl From<Refusal> for Stop<Refusal> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Refusal {
    /// What it means that somebody else holds a unique value of this kind.
    pub(crate) fn taken(kind: &str) -> Self {
        match kind {
            USERNAME => AccountRefusal::UsernameTaken.into(),
            EMAIL => AccountRefusal::EmailTaken.into(),
            SLUG => CommunityRefusal::SlugTaken.into(),
            CATEGORY => CategoryRefusal::DuplicateId.into(),
            other => unreachable!("nothing claims a {other}"),
        }
    }
}

/// Refusals that the API's documentation names.
pub trait Documented {
    /// The status and the problem's name of each.
    fn problems() -> Vec<(StatusCode, &'static str)>;
}

impl<A: Documented, B: Documented> Documented for (A, B) {
    fn problems() -> Vec<(StatusCode, &'static str)> {
        [A::problems(), B::problems()].concat()
    }
}

impl<A: Documented, B: Documented, C: Documented> Documented for (A, B, C) {
    fn problems() -> Vec<(StatusCode, &'static str)> {
        [A::problems(), B::problems(), C::problems()].concat()
    }
}

/// What any endpoint may refuse, before a rule of the forum is asked.
pub struct Always;

impl Documented for Always {
    fn problems() -> Vec<(StatusCode, &'static str)> {
        vec![
            (StatusCode::BAD_REQUEST, "malformed-request"),
            (StatusCode::UNAUTHORIZED, "unauthenticated"),
            (StatusCode::UNAUTHORIZED, "token-expired"),
            (StatusCode::UNAUTHORIZED, "token-refused"),
            (StatusCode::UNAUTHORIZED, "session-ended"),
            (StatusCode::REQUEST_TIMEOUT, "request-timeout"),
            (StatusCode::PRECONDITION_FAILED, "version-mismatch"),
            (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type"),
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid-value"),
            (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused"),
            (StatusCode::UNPROCESSABLE_ENTITY, "event-too-large"),
            (StatusCode::INTERNAL_SERVER_ERROR, "internal-error"),
            (StatusCode::INTERNAL_SERVER_ERROR, "unreadable-event"),
            (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            (StatusCode::SERVICE_UNAVAILABLE, "contended"),
            (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable"),
            (StatusCode::SERVICE_UNAVAILABLE, "readers-behind"),
            (StatusCode::SERVICE_UNAVAILABLE, "handler-timeout"),
        ]
    }
}

/// For `responses(…)` of an endpoint: the problems of `T`, and those of every endpoint.
pub struct Refused<T>(PhantomData<T>);

impl<T: Documented> IntoResponses for Refused<T> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut names: BTreeMap<StatusCode, Vec<&'static str>> = BTreeMap::new();
        for (status, name) in <(T, Always)>::problems() {
            let names = names.entry(status).or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let described = |(status, names): (StatusCode, Vec<_>)| (status.as_str().to_owned(), response(status, &names));
        names.into_iter().map(described).collect()
    }
}

fn response(status: StatusCode, names: &[&'static str]) -> RefOr<Response> {
    let types: Vec<_> = names.iter().map(|name| format!("`/problems/{name}`")).collect();
    let problem = openapi::problem(status, names.first().copied().unwrap_or_default());
    RefOr::T(ResponseBuilder::new().description(types.join(", ")).content(problem::CONTENT_TYPE, problem).build())
}
