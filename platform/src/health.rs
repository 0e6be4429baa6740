//! Whether this process is alive, and whether it can serve.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What this process needs before it can serve, and how that stands. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    parts: Arc<Mutex<Vec<Part>>>,
}

/// One part's hand on [`Health`]. It starts unready.
#[derive(Clone, Debug)]
pub struct Probe {
    health: Health,
    index: usize,
}

/// How one part stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// Whether it can serve.
    pub ready: bool,
    /// Why it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How this process stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether every part can serve.
    pub ready: bool,
    /// The parts.
    pub parts: Vec<Part>,
}

impl Health {
    /// Nothing to wait for yet: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part that must be ready, unready until its [`Probe`] says otherwise.
    pub fn register(&self, name: &str) -> Probe {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.push(Part { name: name.to_owned(), ready: false, reason: Some("starting".to_owned()) });
        Probe { health: self.clone(), index: parts.len() - 1 }
    }

    /// How everything stands now.
    pub fn readiness(&self) -> Readiness {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Readiness { ready: parts.iter().all(|part| part.ready), parts }
    }
}

impl Probe {
    /// The part can serve.
    pub fn set_ready(&self) {
        self.set(None);
    }

    /// The part cannot serve, because of `reason`. It is shown to whoever asks: no secret in it.
    pub fn set_unready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        let mut parts = self.health.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let part = &mut parts[self.index];
        if part.reason != reason {
            match &reason {
                None => tracing::info!(part = part.name, "ready"),
                Some(reason) => tracing::warn!(part = part.name, reason, "not ready"),
            }
        }
        part.ready = reason.is_none();
        part.reason = reason;
    }
}

/// `GET /health/live` and `GET /health/ready`.
pub fn routes<S: Clone + Send + Sync + 'static>(health: Health) -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).with_state(health)
}

/// Whether the process answers at all: restart it where it does not.
#[utoipa::path(get, path = "/health/live", tag = "health", responses((status = 200, description = "It does.", body = String, content_type = "text/plain")))]
async fn live() -> &'static str {
    "alive\n"
}

/// Whether the process can serve: send it nothing while it cannot.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "health",
    responses(
        (status = 200, description = "It can.", body = Readiness),
        (status = 503, description = "It cannot; the parts say why.", body = Readiness),
    )
)]
async fn ready(State(health): State<Health>) -> (StatusCode, Json<Readiness>) {
    let readiness = health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_part_is() {
        let health = Health::new();
        assert!(health.readiness().ready);
        let store = health.register("store");
        let cache = health.register("cache");
        store.set_ready();
        assert!(!health.readiness().ready);
        cache.set_ready();
        assert!(health.readiness().ready);
        store.set_unready("the database is away");
        let readiness = health.readiness();
        assert!(!readiness.ready);
        assert_eq!(readiness.parts[0].reason.as_deref(), Some("the database is away"));
    }
}
