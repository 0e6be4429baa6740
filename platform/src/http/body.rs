//! A request's body, bounded in bytes and time wherever it is read.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, http::StatusCode};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::problem::Problem;

/// A body that fails past a number of bytes or a point in time.
pub(super) struct Bounded {
    inner: Body,
    limit: usize,
    left: usize,
    deadline: Instant,
    timeout: Duration,
    // Made only once there is something to wait for.
    alarm: Option<Pin<Box<Sleep>>>,
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
        Self { inner, limit, left: limit, deadline: Instant::now() + timeout, timeout, alarm: None }
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(left) = this.left.checked_sub(length) else {
                return Poll::Ready(Some(Err(axum::Error::new(BodyError::TooLarge(this.limit)))));
            };
            this.left = left;
            return Poll::Ready(Some(Ok(frame)));
        }
        let deadline = this.deadline;
        ready!(this.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline))).as_mut().poll(context));
        Poll::Ready(Some(Err(axum::Error::new(BodyError::TooSlow(this.timeout)))))
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
