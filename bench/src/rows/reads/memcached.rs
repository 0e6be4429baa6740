//! `memcached` (memcached(1)), which returns the same bytes by key: how far a cache over HTTP is from one that is
//! nothing else.

use std::{future::Future, net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime,
    time::Instant,
};

use super::{CONNECTIONS, SERVER};
use crate::{
    lab::Lab,
    pairs::Pairs,
    process::Baseline,
    report::{Report, Unit},
};

/// Ours beside gets of the same bytes, where there is a memcached.
pub(super) async fn row<O>(
    lab: &Lab,
    report: &mut Report,
    name: &str,
    bytes: &[u8],
    ours: impl FnMut() -> O,
) -> anyhow::Result<()>
where
    O: Future<Output = anyhow::Result<f64>>,
{
    if Command::new("memcached").arg("-V").output().is_err() {
        report.say(format_args!("{name} beside memcached: skipped, as there is none (apt-get install memcached)"));
        return Ok(());
    }
    let memcached = Baseline::start(Path::new("memcached"), Some(SERVER), |address| {
        // It refuses to be root.
        let arguments = ["--user=nobody", "--threads=1", "--conn-limit=1024", "--listen"].map(Into::into);
        arguments.into_iter().chain([address.to_string().into()]).collect()
    })
    .await?;
    let answer = format!("VALUE page 0 {}\r\n", bytes.len()).into_bytes();
    let answer = [&answer, bytes, b"\r\nEND\r\n"].concat();
    set(memcached.address, bytes).await?;
    let theirs = || gets(memcached.address, answer.clone(), lab.options.lasts);
    let pairs = Pairs::take(lab.options.pairs, ours, theirs).await?;
    report.beside(name, Unit::PerSecond, &pairs, "memcached get", None);
    Ok(())
}

async fn set(to: SocketAddr, bytes: &[u8]) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    let set = format!("set page 0 0 {}\r\n", bytes.len()).into_bytes();
    stream.write_all(&[&set, bytes, b"\r\n"].concat()).await?;
    let mut said = [0; 8];
    stream.read_exact(&mut said).await?;
    ensure!(&said == b"STORED\r\n", "memcached did not store {} bytes", bytes.len());
    Ok(())
}

/// Gets a second, by a generator like the one of HTTP: one thread.
async fn gets(to: SocketAddr, answer: Vec<u8>, lasts: Duration) -> anyhow::Result<f64> {
    tokio::task::spawn_blocking(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let streams = try_join_all((0..CONNECTIONS).map(|_| TcpStream::connect(to))).await?;
            let start = Instant::now();
            let got = try_join_all(streams.into_iter().map(|stream| get_over(stream, &answer, start + lasts))).await?;
            #[allow(clippy::cast_precision_loss, reason = "answers of a few minutes")]
            Ok(got.into_iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64())
        })
    })
    .await?
}

async fn get_over(mut stream: TcpStream, answer: &[u8], end: Instant) -> anyhow::Result<u64> {
    stream.set_nodelay(true)?;
    let (mut got, mut received) = (0, Vec::with_capacity(answer.len()));
    while Instant::now() < end {
        stream.write_all(b"get page\r\n").await?;
        received.clear();
        while received.len() < answer.len() {
            ensure!(stream.read_buf(&mut received).await? > 0, "memcached closed a connection");
        }
        received.starts_with(b"VALUE page ").then_some(()).context("memcached has lost the page")?;
        got += 1;
    }
    Ok(got)
}
