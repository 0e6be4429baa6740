//! A producer that costs nothing while nothing is sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    client::Client,
    error::KafkaResult,
    message::ToBytes,
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};

/// How long a producer's thread waits at a time for what librdkafka reports.
const SERVE: Duration = Duration::from_millis(100);
/// How long it sleeps where nothing is on its way; librdkafka's log lines wait as long.
const SLEEP: Duration = Duration::from_secs(5);

/// A producer, and the thread that serves what librdkafka reports of it: one that sleeps while nothing is on its way.
/// rdkafka's own ([`rdkafka::producer::ThreadedProducer`] of 0.39) spins through the last millisecond of each tenth of a
/// second, for more than 1 % of a core.
pub(crate) struct Producer<C: ProducerContext + 'static> {
    inner: Arc<BaseProducer<C>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<C: ProducerContext + 'static> Producer<C> {
    pub(crate) fn new(config: &ClientConfig, context: C) -> anyhow::Result<Self> {
        let producer: Arc<BaseProducer<C>> = Arc::new(config.create_with_context(context)?);
        let ended = Arc::new(AtomicBool::new(false));
        let serve = {
            let (producer, ended) = (Arc::clone(&producer), Arc::clone(&ended));
            move || {
                while !ended.load(Ordering::Acquire) {
                    if producer.in_flight_count() == 0 {
                        thread::park_timeout(SLEEP);
                    }
                    producer.poll(SERVE);
                }
            }
        };
        let thread = thread::Builder::new().name("kafka-producer".to_owned()).spawn(serve)?;
        Ok(Self { inner: producer, ended, thread: Some(thread) })
    }

    /// Hands a message to librdkafka; waits for nothing.
    pub(crate) fn send<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(
        &self,
        record: BaseRecord<'_, K, P, C::DeliveryOpaque>,
    ) -> KafkaResult<()> {
        let sent = self.inner.send(record).map_err(|(error, _)| error);
        self.wake();
        sent
    }

    pub(crate) fn client(&self) -> &Client<C> {
        self.inner.client()
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

/// Waits for the thread: nothing is reported afterwards. Up to [`SERVE`].
impl<C: ProducerContext + 'static> Drop for Producer<C> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.wake();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread of a Kafka producer panicked");
        }
    }
}
