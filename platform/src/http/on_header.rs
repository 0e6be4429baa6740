//! What only some requests need, so that the others do not pay for it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use axum::{extract::Request, http::HeaderName};
use futures::future::Either;
use tower::{Layer, Service};

/// Puts a layer before a service for requests that carry a header; the others go straight to it.
#[derive(Clone)]
pub(super) struct OnHeaderLayer<L> {
    header: HeaderName,
    layer: Arc<L>,
}

/// See [`OnHeaderLayer`]. axum clones services for every request: a layered one is made only when it is needed.
#[derive(Clone)]
pub(super) struct OnHeader<S, L> {
    inner: S,
    on: OnHeaderLayer<L>,
}

impl<L> OnHeaderLayer<L> {
    pub(super) fn new(header: HeaderName, layer: L) -> Self {
        Self { header, layer: Arc::new(layer) }
    }
}

impl<S, L> Layer<S> for OnHeaderLayer<L> {
    type Service = OnHeader<S, L>;

    fn layer(&self, inner: S) -> OnHeader<S, L> {
        OnHeader { inner, on: Self { header: self.header.clone(), layer: Arc::clone(&self.layer) } }
    }
}

impl<S, L> Service<Request> for OnHeader<S, L>
where
    S: Service<Request> + Clone,
    L: Layer<S>,
    L::Service: Service<Request, Response = S::Response, Error = S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, <L::Service as Service<Request>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.headers().contains_key(&self.on.header) {
            // axum's routes are always ready, and so is what is before them here.
            Either::Right(self.on.layer.layer(self.inner.clone()).call(request))
        } else {
            Either::Left(self.inner.call(request))
        }
    }
}
