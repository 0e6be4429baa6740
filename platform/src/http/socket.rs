//! A connection's socket that can still be written to when hyper has given the connection up: hyper closes it without a
//! word when a request's head is late.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// What hyper reads from and writes to.
pub(super) struct Socket {
    read: OwnedReadHalf,
    shared: Arc<Shared>,
}

/// What is left of a [`Socket`] when hyper has dropped it.
pub(super) struct Remains(Arc<Shared>);

struct Shared {
    write: Mutex<OwnedWriteHalf>,
    /// Something came in since the last answer went out: half a request.
    half_heard: AtomicBool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> (Self, Remains) {
        let (read, write) = stream.into_split();
        let shared = Arc::new(Shared { write: Mutex::new(write), half_heard: AtomicBool::new(false) });
        (Self { read, shared: Arc::clone(&shared) }, Remains(shared))
    }
}

impl Remains {
    /// Says `farewell` to a client that has sent half a request. Not waited for: what the kernel does not take at once
    /// is lost.
    pub(super) fn answer_half_a_request(&self, farewell: &[u8]) {
        if self.0.half_heard.load(Ordering::Relaxed) {
            let write = self.0.write.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = write.try_write(farewell);
        }
    }
}

impl Shared {
    fn writing<T>(&self, act: impl FnOnce(Pin<&mut OwnedWriteHalf>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.half_heard.store(false, Ordering::Relaxed);
        act(Pin::new(&mut *self.write.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.read).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.shared.half_heard.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.writing(|write| write.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.writing(|write| write.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP socket has nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.writing(|write| write.poll_shutdown(context))
    }
}
