//! Every refusal of a rule, so that one use case may meet those of several aggregates. Each module maps its own to a
//! status and a name.

use std::fmt::Display;

use axum::http::StatusCode;
use platform::problem::{FieldError, Problem};

use crate::{
    access::AccessRefusal, account::AccountRefusal, category::CategoryRefusal, community::CommunityRefusal,
    membership::MembershipRefusal, post::PostRefusal, reaction::ReactionRefusal, thread::ThreadRefusal,
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

/// A refusal's problem; `blamed` is the part of the body that it is about, where it is about one.
pub(crate) fn problem(
    status: StatusCode,
    name: &'static str,
    blamed: Option<&'static str>,
    refusal: impl Display,
) -> Problem {
    let problem = Problem::new(status, name, &refusal);
    match blamed {
        Some(pointer) => problem.with_errors(vec![FieldError::new(pointer, name.replace('-', "_"), refusal)]),
        None => problem,
    }
}
