//! One connection of HTTP/1.1, with one request at a time.

use std::{io, net::SocketAddr};

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// See the module.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An answer, as long as the next is not read.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its head, as it came.
    pub head: &'a [u8],
    /// Its body.
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// A header's value; `name` in lower case, as servers of HTTP/1.1 here write it.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.head, name)
    }
}

impl Connection {
    /// Opens it.
    ///
    /// # Errors
    /// Those of connect(2).
    pub async fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// Where the connection ends, or the answer has no length.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        let (status, head) = self.ask(request).await?;
        let length = match header(&self.received[..head], "content-length") {
            Some(length) => length.parse().map_err(|_| wrong("a length that is no number"))?,
            None if matches!(status, 204 | 304) => 0,
            None => return Err(wrong("an answer without content-length")),
        };
        while self.received.len() < head + length {
            self.read().await?;
        }
        let (head, rest) = self.received.split_at(head);
        Ok(Answer { status, head, body: &rest[..length] })
    }

    /// Sends a request whose answer has no end, and reads its head: its status.
    ///
    /// # Errors
    /// Where the connection ends.
    pub async fn follow(&mut self, request: &[u8]) -> io::Result<u16> {
        Ok(self.ask(request).await?.0)
    }

    /// Sends a request; answers its status, and how long its head is.
    async fn ask(&mut self, request: &[u8]) -> io::Result<(u16, usize)> {
        self.stream.write_all(request).await?;
        self.received.clear();
        let mut searched = 0;
        let head = loop {
            self.read().await?;
            if let Some(at) = memmem::find(&self.received[searched..], b"\r\n\r\n") {
                break searched + at + 4;
            }
            searched = self.received.len().saturating_sub(3);
        };
        let status = std::str::from_utf8(self.received.get(9..12).unwrap_or_default()).ok();
        let status = status.and_then(|digits| digits.parse().ok()).ok_or_else(|| wrong("no status"))?;
        Ok((status, head))
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}
