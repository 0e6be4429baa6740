//! Work done side by side, from a bounded queue.

use std::{future::Future, sync::Arc};

use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
};

/// Does `work` on all that comes out of `queue`, `lanes` at a time. The first failure ends it, and closes the queue.
///
/// # Errors
/// That failure.
pub async fn run<T, F, W>(lanes: usize, queue: mpsc::Receiver<T>, work: F) -> anyhow::Result<()>
where
    T: Send + 'static,
    F: Fn(T) -> W + Clone + Send + 'static,
    W: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let queue = Arc::new(Mutex::new(queue));
    let mut set = JoinSet::new();
    for _ in 0..lanes {
        let (queue, work) = (Arc::clone(&queue), work.clone());
        set.spawn(async move {
            loop {
                let next = queue.lock().await.recv().await;
                let Some(next) = next else { return anyhow::Ok(()) };
                work(next).await?;
            }
        });
    }
    drop(queue);
    while let Some(ended) = set.join_next().await {
        ended??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn everything_is_done_once() -> anyhow::Result<()> {
        let (sender, queue) = mpsc::channel(2);
        tokio::spawn(async move {
            for nth in 1..=100 {
                sender.send(nth).await.expect("somebody listens");
            }
        });
        let sum = Arc::new(AtomicU32::new(0));
        let adding = Arc::clone(&sum);
        run(8, queue, move |nth| {
            let adding = Arc::clone(&adding);
            async move {
                adding.fetch_add(nth, Ordering::Relaxed);
                Ok(())
            }
        })
        .await?;
        assert_eq!(sum.load(Ordering::Relaxed), 5_050);
        Ok(())
    }

    #[tokio::test]
    async fn a_failure_ends_it_and_closes_the_queue() {
        let (sender, queue) = mpsc::channel(1);
        let feeding = tokio::spawn(async move {
            let mut sent = 0;
            while sender.send(()).await.is_ok() {
                sent += 1;
            }
            sent
        });
        let failed = run(2, queue, |()| async { anyhow::bail!("no") }).await;
        assert_eq!(failed.expect_err("it fails").to_string(), "no");
        assert!(feeding.await.expect("it ends") < 10);
    }
}
