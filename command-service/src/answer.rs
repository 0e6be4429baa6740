//! What a use case answers when it stands, and the bodies that several endpoints take.

use axum::http::StatusCode;
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{store::Answer, text::Reason};

/// 200: it is so now.
pub(crate) fn done(body: &impl Serialize) -> Answer {
    answer(StatusCode::OK, body)
}

/// 201: it was not there before.
pub(crate) fn created(body: &impl Serialize) -> Answer {
    answer(StatusCode::CREATED, body)
}

fn answer(status: StatusCode, body: &impl Serialize) -> Answer {
    let body = serde_json::to_value(body).expect("ids, numbers and strings serialise");
    Answer { status, body }
}

/// Why something is done, where it is said.
#[derive(Clone, Debug, Default, Serialize, Deserialize, Validate, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Because {
    /// Why.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<Reason>,
}

impl Because {
    /// The reason, for the event.
    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.clone().map(String::from)
    }
}

/// A query without parameters.
#[derive(Clone, Copy, Debug, Default, Deserialize, Validate)]
pub struct Nothing {}
