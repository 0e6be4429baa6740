//! What happens around every handler. One layer rather than six: each would cost every request an allocation.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::{MatchedPath, Request},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};
use tokio::{sync::Semaphore, time::timeout};
use tower::{Layer, Service};
use tracing::Instrument;

use super::{
    HttpConfig,
    body::{Bounded, Place, too_large},
    seen::{Metrics, Seen},
};
use crate::problem::Problem;

/// When a request that took too long may be tried again.
const RETRY_AFTER_TIMEOUT: Duration = Duration::from_secs(2);
/// When a command that found no place may be sent again.
const RETRY_AFTER_CROWD: Duration = Duration::from_secs(1);

/// Wraps a service in a [`Chassis`].
#[derive(Clone)]
pub(super) struct ChassisLayer(Arc<Common>);

/// What all routes have in common.
struct Common {
    bounds: Bounds,
    metrics: Metrics,
    cors: bool,
    /// For commands in progress.
    places: Arc<Semaphore>,
}

/// See the module. There is one for each route: axum layers them one by one.
#[derive(Clone)]
pub(super) struct Chassis<S> {
    inner: S,
    common: Arc<Common>,
    route: Arc<OnceLock<Arc<str>>>,
}

/// What a request may take.
#[derive(Clone, Copy)]
struct Bounds {
    body_bytes: usize,
    body_time: Duration,
    handler_time: Duration,
}

impl ChassisLayer {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self(Arc::new(Common {
            bounds: Bounds {
                body_bytes: config.body_limit_bytes,
                body_time: config.body_timeout,
                handler_time: config.handler_timeout,
            },
            metrics: Metrics::new(&opentelemetry::global::meter("agora")),
            cors: !config.cors_origins.is_empty(),
            places: Arc::new(Semaphore::new(config.max_commands)),
        }))
    }
}

impl<S> Layer<S> for ChassisLayer {
    type Service = Chassis<S>;

    fn layer(&self, inner: S) -> Chassis<S> {
        Chassis { inner, common: Arc::clone(&self.0), route: Arc::default() }
    }
}

impl<S> Service<Request> for Chassis<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let Common { bounds, metrics, cors, places } = &*self.common;
        let (bounds, cors) = (*bounds, *cors);
        let route = self.route(&request);
        let place = (!request.method().is_safe()).then(|| Place::among(places));
        let seen = Seen::new(&mut request, route, metrics.clone(), matches!(place, Some(Some(_))));
        let place = match place {
            Some(None) => return ready(Ok(seen.answered(crowded()))).boxed(),
            place => place.flatten(),
        };
        let span = seen.span();
        // Boxed here, as it is large and would be moved several times below.
        let handled = bounds.body(request, place.clone()).map(|request| self.inner.call(request).boxed());
        async move {
            let response = match handled {
                Ok(handled) => bounds.handle(handled).await,
                Err(body) => {
                    Bounded::discard(body, bounds.body_time).await;
                    too_large(bounds.body_bytes).into_response()
                }
            };
            let mut response = seen.answered(response);
            if cors {
                // Only those who send an Origin are answered with what CORS asks for: caches must know.
                response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
            }
            drop(place);
            Ok(response)
        }
        .instrument(span)
        .boxed()
    }
}

impl<S> Chassis<S> {
    /// The template of the route, such as `/things/{id}`; nothing where no route matches.
    fn route(&self, request: &Request) -> Arc<str> {
        let matched = || request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default().into();
        Arc::clone(self.route.get_or_init(matched))
    }
}

impl Bounds {
    /// The request with its body bounded; or what may be discarded of it, where it says itself that it is too large.
    /// A command takes its place once all of it is here.
    fn body(self, request: Request, place: Option<Place>) -> Result<Request, Body> {
        if request.body().is_end_stream() {
            place.iter().for_each(Place::take);
            return Ok(request);
        }
        if request.body().size_hint().lower() > self.body_bytes as u64 {
            // Who asks first (RFC 9110, section 10.1.1) has not begun to send it.
            let asks_first = request.headers().contains_key(header::EXPECT);
            return Err(if asks_first { Body::empty() } else { request.into_body() });
        }
        Ok(request.map(|body| Body::new(Bounded::new(body, self.body_bytes, self.body_time).taking(place))))
    }

    /// The handler's answer, or a problem where it panics or takes too long.
    async fn handle(self, handled: impl Future<Output = Result<Response, Infallible>>) -> Response {
        match timeout(self.handler_time, AssertUnwindSafe(handled).catch_unwind()).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(panic)) => Problem::internal(&Panicked(words(&*panic).to_owned())).into_response(),
            Err(elapsed) => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "handler-timeout", "This took too long and was given up.")
                    .with_retry_after(RETRY_AFTER_TIMEOUT)
                    .with_cause(&elapsed)
                    .into_response()
            }
        }
    }
}

/// The cheapest answer there is: it is for times when there is no time.
fn crowded() -> Response {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many commands are in progress. Try again.")
        .with_retry_after(RETRY_AFTER_CROWD)
        .into_response()
}

/// A panic of a handler; the panic hook has said where.
#[derive(Debug, thiserror::Error)]
#[error("a handler panicked: {0}")]
struct Panicked(String);

fn words(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (_, Some(words)) => words,
        _ => "(no words)",
    }
}
