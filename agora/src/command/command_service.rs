//! `agora command-service`

use clap::Args;
use platform::telemetry;

use super::service;
use crate::{config::Config, daily_check::DailyCheck};

/// Run the write side alone: command endpoints and the event store
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agora command-service --database-url postgres://agora@db/agora --listen 0.0.0.0:8080")]
pub struct CommandService {}

impl CommandService {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub fn run(self, config: &Config) -> anyhow::Result<()> {
        let _telemetry = telemetry::init(&config.telemetry, "command-service")?;
        service(config, |stop| command_service::run(config.command_service(), DailyCheck::of(config), stop))
    }
}
