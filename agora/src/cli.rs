//! The command line: what can be said, and who does it.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{command, config::Config};

/// Community forums, API first: one deployment serves many communities, and everything a client can do, it does
/// through the API.
#[derive(Debug, Parser)]
#[command(name = "agora", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  agora up                                  start everything on this machine
  agora demo                                make up a lively forum
  agora import stackexchange ~/french-meta  bring a Stack Exchange dump over
  agora events tail --follow                watch what happens
  agora events replay > history.ndjson      take the whole history elsewhere
  agora config check                        print all settings as they are merged

Settings come from --config FILE, then AGORA__… variables (AGORA__HTTP__LISTEN sets http.listen), then flags.")]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

/// Settings that have a flag; all others have a key in the configuration.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
#[allow(clippy::doc_markdown, reason = "these are words for people, printed as they are")]
struct Settings {
    /// Read settings from this TOML file; agora.example.toml explains them
    #[arg(long, global = true, value_name = "FILE", env = "AGORA_CONFIG")]
    config: Option<PathBuf>,
    /// Use this Postgres instead of an embedded one (database.url)
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// Use this Kafka instead of a broker inside the process (kafka.brokers)
    #[arg(long, global = true, value_name = "HOST:PORT,…")]
    kafka_brokers: Option<String>,
    /// The public address (http.listen)
    #[arg(long, global = true, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// The address of metrics and health (http.admin_listen)
    #[arg(long, global = true, value_name = "IP:PORT")]
    admin_listen: Option<SocketAddr>,
    /// Where this machine's own things are kept (data_dir)
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(command::up::Up),
    CommandService(command::command_service::CommandService),
    Projector(command::projector::Projector),
    QueryService(command::query_service::QueryService),
    Migrate(command::migrate::Migrate),
    #[command(subcommand)]
    Import(command::import::Import),
    Demo(command::demo::Demo),
    #[command(subcommand)]
    Events(command::events::Events),
    Stream(command::stream::Stream),
    #[command(subcommand)]
    Projections(command::projections::Projections),
    Check(command::check::Check),
    #[command(subcommand)]
    Upgrade(command::upgrade::Upgrade),
    #[command(subcommand)]
    Jobs(command::jobs::Jobs),
    #[command(subcommand)]
    Operators(command::operators::Operators),
    #[command(subcommand)]
    Config(command::config::Config),
    Openapi(command::openapi::Openapi),
    Completions(command::completions::Completions),
}

impl Settings {
    fn load(self) -> anyhow::Result<Config> {
        let overrides = [
            ("database.url", self.database_url),
            ("kafka.brokers", self.kafka_brokers),
            ("http.listen", self.listen.map(|listen| listen.to_string())),
            ("http.admin_listen", self.admin_listen.map(|listen| listen.to_string())),
            ("data_dir", self.dir.map(|dir| dir.to_string_lossy().into_owned())),
        ];
        let given = overrides.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Ok(Config::load(self.config.as_deref(), given.collect())?)
    }
}

impl Cli {
    /// Does what was said.
    ///
    /// # Errors
    /// What the command says; for a person, on one line.
    pub fn run(self) -> anyhow::Result<()> {
        let Self { settings, command } = self;
        match command {
            // What needs no settings does not fail because of them.
            Command::Openapi(openapi) => openapi.run(),
            Command::Completions(completions) => completions.run(),
            Command::Events(command::events::Events::Catalogue(catalogue)) => catalogue.run(),
            Command::Up(up) => up.run(settings.load()?),
            Command::CommandService(service) => service.run(&settings.load()?),
            Command::Projector(projector) => projector.run(&settings.load()?),
            Command::QueryService(service) => service.run(&settings.load()?),
            Command::Migrate(migrate) => migrate.run(settings.load()?),
            Command::Import(import) => import.run(settings.load()?),
            Command::Demo(demo) => demo.run(settings.load()?),
            Command::Events(events) => events.run(settings.load()?),
            Command::Stream(stream) => stream.run(settings.load()?),
            Command::Projections(projections) => projections.run(settings.load()?),
            Command::Check(check) => check.run(settings.load()?),
            Command::Upgrade(upgrade) => upgrade.run(settings.load()?),
            Command::Jobs(jobs) => jobs.run(settings.load()?),
            Command::Operators(operators) => operators.run(settings.load()?),
            Command::Config(config) => config.run(&settings.load()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_says_what_it_is_for() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} says nothing", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {} says nothing", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn flags_are_settings() {
        let flags =
            ["agora", "config", "check", "--listen", "0.0.0.0:80", "--dir", "/srv", "--database-url", "postgres://x"];
        let cli = Cli::try_parse_from(flags).expect("valid");
        let config = cli.settings.load().expect("valid");
        assert_eq!(config.http.listen.port(), 80);
        assert_eq!(config.data_dir, PathBuf::from("/srv"));
        assert!(config.has_database());
    }
}
