//! What our Kafka clients do with what librdkafka says.

use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

/// Says once that Kafka is away and once that it is back. librdkafka's own lines, which repeat with every try, are
/// logged for who asks (`librdkafka=debug`).
#[derive(Debug)]
pub struct Quiet {
    who: &'static str,
    away: AtomicBool,
}

impl Quiet {
    /// For one client.
    pub fn new(who: &'static str) -> Self {
        Self { who, away: AtomicBool::new(false) }
    }

    /// Kafka answered.
    pub fn answered(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("{} reaches Kafka again", self.who);
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", client = self.who, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            if !self.away.swap(true, Ordering::Relaxed) {
                tracing::warn!("{} cannot reach Kafka, and will go on by itself: {reason}", self.who);
            }
        } else {
            tracing::debug!(target: "librdkafka", client = self.who, %error, reason);
        }
    }

    fn stats(&self, _: Statistics) {}
}

impl ConsumerContext for Quiet {}
