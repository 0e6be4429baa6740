//! A request's body, bounded in bytes and time wherever it is read.

use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, http::StatusCode};
use bytes::Bytes;
use futures::StreamExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};

use crate::{limits::BODY_DISCARDED_BYTES, problem::Problem};

/// A body that fails past a number of bytes or a point in time. What is over the number is read and thrown away, up to
/// [`BODY_DISCARDED_BYTES`], so that the client hears the refusal.
pub(super) struct Bounded {
    inner: Body,
    limit: usize,
    read: usize,
    deadline: Instant,
    timeout: Duration,
    // Made only once there is something to wait for.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Taken when the end is here.
    place: Option<Place>,
}

/// A place among the commands in progress: for who holds this, once it is taken.
#[derive(Clone)]
pub(super) struct Place {
    of: Arc<Semaphore>,
    taken: Arc<OnceLock<OwnedSemaphorePermit>>,
}

impl Place {
    /// One that is not taken yet; none where there is no room now.
    pub(super) fn among(of: &Arc<Semaphore>) -> Option<Self> {
        (of.available_permits() > 0).then(|| Self { of: Arc::clone(of), taken: Arc::default() })
    }

    /// Takes it. Where others took the last one since, this command goes on without.
    pub(super) fn take(&self) {
        if self.taken.get().is_none()
            && let Ok(permit) = Arc::clone(&self.of).try_acquire_owned()
        {
            let _ = self.taken.set(permit);
        }
    }
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    #[error("the body took longer than {0:?}")]
    TooSlow(Duration),
}

impl Bounded {
    pub(super) fn new(inner: Body, limit: usize, timeout: Duration) -> Self {
        Self { inner, limit, read: 0, deadline: Instant::now() + timeout, timeout, alarm: None, place: None }
    }

    /// The same, which takes a place once all of it is here: who is slow to send holds none.
    pub(super) fn taking(self, place: Option<Place>) -> Self {
        Self { place, ..self }
    }

    /// Reads it to its end and keeps nothing.
    pub(super) async fn discard(inner: Body, timeout: Duration) {
        // All of it is over the limit: the first thing to come out is the end.
        let _ = Body::new(Self::new(inner, 0, timeout)).into_data_stream().next().await;
    }
}

fn failed(error: BodyError) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
    Poll::Ready(Some(Err(axum::Error::new(error))))
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        while let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            let over = this.read > this.limit;
            match frame {
                Some(Ok(frame)) => {
                    this.read += frame.data_ref().map_or(0, Bytes::len);
                    if this.read <= this.limit {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    if this.read - this.limit > BODY_DISCARDED_BYTES {
                        return failed(BodyError::TooLarge(this.limit));
                    }
                }
                _ if over => return failed(BodyError::TooLarge(this.limit)),
                None => {
                    this.place.iter().for_each(Place::take);
                    return Poll::Ready(None);
                }
                failed => return Poll::Ready(failed),
            }
        }
        let deadline = this.deadline;
        ready!(this.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline))).as_mut().poll(context));
        failed(if this.read > this.limit { BodyError::TooLarge(this.limit) } else { BodyError::TooSlow(this.timeout) })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What a client is told of a body that could not be read.
pub(crate) fn problem(error: &axum::Error) -> Problem {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref() {
            Some(BodyError::TooLarge(limit)) => return too_large(*limit),
            Some(BodyError::TooSlow(timeout)) => return too_slow(*timeout),
            None => cause = error.source(),
        }
    }
    Problem::new(StatusCode::BAD_REQUEST, "incomplete-body", "The body broke off before its end.")
}

/// 413.
pub(super) fn too_large(limit: usize) -> Problem {
    let detail = format_args!("The body may have {limit} bytes at most.");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
}

fn too_slow(timeout: Duration) -> Problem {
    let detail = format_args!("The body must arrive within {}.", humantime::format_duration(timeout));
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", detail)
}
