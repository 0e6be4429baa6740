//! `agora query-service`

use clap::Args;
use platform::telemetry;

use super::service;
use crate::config::Config;

/// Run the read side alone: read endpoints and caches
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agora query-service --database-url postgres://agora@db/agora --kafka-brokers kafka:9092")]
pub struct QueryService {}

impl QueryService {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub fn run(self, config: &Config) -> anyhow::Result<()> {
        let _telemetry = telemetry::init(&config.telemetry, "query-service")?;
        service(config, |stop| query_service::run(config.query_service(), stop))
    }
}
