//! A network between two parts that can be cut, silenced, slowed and reset: a TCP proxy on loopback.

use std::{io, net::SocketAddr, path::PathBuf, sync::OnceLock, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    time::sleep,
};

/// How many pieces are late where a link is slow.
const LATE: f64 = 0.2;

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It arrives.
    Open,
    /// A piece of it arrives late now and then, by up to so much, as where packets are lost: what was asked first is
    /// answered last, on another connection.
    Slow(Duration),
    /// It does not arrive until the flow is another, and nobody is told.
    Silent,
    /// Connections end, and new ones are refused.
    Cut,
}

/// Where a link leads.
#[derive(Clone, Debug)]
pub(crate) enum Upstream {
    /// A server on a port.
    Tcp(SocketAddr),
    /// A server on a socket file.
    Unix(PathBuf),
}

#[derive(Clone, Copy)]
struct State {
    flow: Flow,
    /// How often all connections were reset.
    resets: u32,
}

/// A proxy, for as long as the process runs.
pub(crate) struct Link {
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
    upstream: &'static OnceLock<Upstream>,
}

impl Link {
    /// Listens; [`Link::lead_to`] says where to.
    ///
    /// # Errors
    /// Where no port is free.
    pub(crate) async fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = watch::Sender::new(State { flow: Flow::Open, resets: 0 });
        let upstream: &'static OnceLock<Upstream> = Box::leak(Box::default());
        tokio::spawn(accept(listener, state.clone(), upstream));
        Ok(Self { address, state, upstream })
    }

    /// Says once where it leads.
    pub(crate) fn lead_to(&self, upstream: Upstream) {
        assert!(self.upstream.set(upstream).is_ok(), "a link leads to one place");
    }

    /// Lets what is sent flow so from now on.
    pub(crate) fn flow(&self, flow: Flow) {
        self.state.send_modify(|state| state.flow = flow);
    }

    /// Ends all its connections at once, by a reset (RFC 9293, 3.5.2), whatever is on its way.
    pub(crate) fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }
}

async fn accept(listener: TcpListener, state: watch::Sender<State>, upstream: &'static OnceLock<Upstream>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        // Else its end is announced in order.
        let _ = client.set_zero_linger();
        let _ = client.set_nodelay(true);
        let Some(upstream) = upstream.get() else { continue };
        if state.borrow().flow == Flow::Cut {
            continue;
        }
        let state = state.subscribe();
        tokio::spawn(async move {
            // What becomes of one connection is its two ends' to notice.
            let _ = match upstream {
                Upstream::Tcp(address) => match TcpStream::connect(address).await {
                    Ok(server) => {
                        let _ = server.set_zero_linger();
                        let _ = server.set_nodelay(true);
                        carry(client, server, state).await
                    }
                    Err(error) => Err(error),
                },
                Upstream::Unix(path) => match UnixStream::connect(path).await {
                    Ok(server) => carry(client, server, state).await,
                    Err(error) => Err(error),
                },
            };
        });
    }
}

/// Until one end ends, or the link does.
async fn carry<S>(client: TcpStream, server: S, mut state: watch::Receiver<State>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite,
{
    let resets = state.borrow().resets;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = tokio::io::split(server);
    let up = pump(from_client, to_server, state.clone());
    let down = pump(from_server, to_client, state.clone());
    let ended = async move {
        let over = |state: &State| state.resets > resets || state.flow == Flow::Cut;
        let _ = state.wait_for(over).await;
        Ok(())
    };
    tokio::select! {
        outcome = up => outcome,
        outcome = down => outcome,
        outcome = ended => outcome,
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let flow = state.wait_for(|state| state.flow != Flow::Silent).await.map(|state| state.flow);
        if let Ok(Flow::Slow(by)) = flow
            && rand::random_bool(LATE)
        {
            sleep(by.mul_f64(rand::random())).await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
