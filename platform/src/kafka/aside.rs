use std::ops::Deref;

use tokio::runtime::Handle;

/// A client of librdkafka's that ends aside, for what need not be told to Kafka before the process ends: to end one takes
/// 100 ms and more, for which the thread that does it stands still, with all tasks that wait for it.
#[derive(Debug)]
pub struct Aside<T: Send + 'static>(Option<T>);

impl<T: Send> Aside<T> {
    /// This client.
    pub fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send> Deref for Aside<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: Send> Drop for Aside<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(|| drop(client));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Ends when it is told to; says where.
    struct Slow(mpsc::Receiver<()>, mpsc::SyncSender<thread::ThreadId>);

    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.recv_timeout(PATIENCE).expect("it is told to end");
            self.1.send(thread::current().id()).expect("somebody waits");
        }
    }

    #[tokio::test]
    async fn nobody_waits_until_it_has_ended() {
        let (end, told) = mpsc::sync_channel(0);
        let (ended, where_it_ended) = mpsc::sync_channel(1);
        drop(Aside::new(Slow(told, ended)));
        end.send(()).expect("it has not ended yet");
        let thread = where_it_ended.recv_timeout(PATIENCE).expect("it ends all the same");
        assert_ne!(thread, thread::current().id());
    }

    #[test]
    fn without_a_runtime_it_ends_at_once() {
        let (end, told) = mpsc::sync_channel(1);
        let (ended, where_it_ended) = mpsc::sync_channel(1);
        end.send(()).expect("there is room");
        drop(Aside::new(Slow(told, ended)));
        assert_eq!(where_it_ended.try_recv(), Ok(thread::current().id()));
    }
}
