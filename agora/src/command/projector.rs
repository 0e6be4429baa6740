//! `agora projector`

use clap::Args;
use platform::{health::Health, http, kafka::Broker, telemetry};
use projector::Parts;
use store_reader::Wake;

use super::service;
use crate::config::Config;

/// Run the relay and the projections alone
#[derive(Debug, Args)]
#[command(after_help = "\
Several may run: they share the work through Kafka. It answers operators only, at http.admin_listen.

Example:
  agora projector --database-url postgres://agora@db/agora --kafka-brokers kafka:9092")]
pub struct Projector {}

impl Projector {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub fn run(self, config: &Config) -> anyhow::Result<()> {
        let _telemetry = telemetry::init(&config.telemetry, "projector")?;
        service(config, |stop| async move {
            let admin = http::bind(config.http.admin_listen, "http.admin_listen").await?;
            let parts = Parts {
                event_store: config.database.clone(),
                read_tables: config.read_tables().clone(),
                broker: Broker::start(&config.kafka)?,
                wake: Wake::default(),
            };
            let health = Health::new();
            let probe = health.register("projector");
            let administered = http::serve(admin, http::admin_router(health), &config.http, stop.clone());
            let projecting = async {
                probe.set_ready();
                projector::run(parts, stop).await
            };
            tokio::try_join!(administered, projecting).map(|_| ())
        })
    }
}
