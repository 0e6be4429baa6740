//! What can be set, of all services together: the file of `--config`, then `AGORA__…` variables, then flags.

use std::path::{Path, PathBuf};

use command_service::store::AppenderConfig;
use platform::{
    config::{ConfigError, Secret},
    db::DatabaseConfig,
    http::HttpConfig,
    identity::IdentityConfig,
    kafka::KafkaConfig,
    telemetry::TelemetryConfig,
};
use query_service::CacheConfig;
use serde::{Deserialize, Serialize};

/// The prefix of the environment variables: `AGORA__HTTP__LISTEN` sets `http.listen`.
pub const PREFIX: &str = "AGORA";

/// All settings, with their defaults. `agora.example.toml` explains them one by one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where this machine's own things are kept: the embedded Postgres, and what local commands need to find `up`.
    pub data_dir: PathBuf,
    /// Where it listens, and what it takes from a client.
    pub http: HttpConfig,
    /// The database of the event store.
    pub database: DatabaseConfig,
    /// The database of the read tables, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_database: Option<DatabaseConfig>,
    /// Kafka.
    pub kafka: KafkaConfig,
    /// Logs, traces and metrics.
    pub telemetry: TelemetryConfig,
    /// Passwords and tokens.
    pub identity: IdentityConfig,
    /// How the command-service gathers commands.
    pub appender: AppenderConfig,
    /// How much the query-service remembers.
    pub cache: CacheConfig,
    /// What the command-service does at a time.
    pub jobs: command_service::jobs::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from(".agora"),
            http: HttpConfig::default(),
            database: DatabaseConfig::default(),
            read_database: None,
            kafka: KafkaConfig::default(),
            telemetry: TelemetryConfig::default(),
            identity: IdentityConfig::default(),
            appender: AppenderConfig::default(),
            cache: CacheConfig::default(),
            jobs: command_service::jobs::Config::default(),
        }
    }
}

impl Config {
    /// Reads it; `overrides` are dotted keys with their values, from flags.
    ///
    /// # Errors
    /// [`ConfigError`] names the key at fault, and where it was set.
    pub fn load(file: Option<&Path>, overrides: Vec<(String, String)>) -> Result<Self, ConfigError> {
        platform::config::load(file, PREFIX, overrides)
    }

    /// The database of the read tables.
    pub fn read_tables(&self) -> &DatabaseConfig {
        self.read_database.as_ref().unwrap_or(&self.database)
    }

    /// What the command-service needs of it.
    pub fn command_service(&self) -> command_service::Config {
        command_service::Config {
            database: self.database.clone(),
            http: self.http.clone(),
            identity: self.identity.clone(),
            appender: self.appender.clone(),
            jobs: self.jobs.clone(),
        }
    }

    /// What the query-service needs of it.
    pub fn query_service(&self) -> query_service::Config {
        query_service::Config {
            database: self.read_tables().clone(),
            store: self.database.clone(),
            http: self.http.clone(),
            identity: self.identity.clone(),
            kafka: self.kafka.clone(),
            cache: self.cache.clone(),
        }
    }

    /// Whether a database of the person's own is to be used, rather than an embedded one.
    pub fn has_database(&self) -> bool {
        !self.database.url.expose().is_empty()
    }

    /// The same, with this database.
    #[must_use]
    pub fn with_database(mut self, url: &str) -> Self {
        self.database.url = Secret::new(url);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> PathBuf {
        PathBuf::from("../agora.example.toml")
    }

    #[test]
    fn the_example_says_the_defaults() {
        let example: Config = platform::config::load_from(Some(&example()), PREFIX, [], vec![]).expect("it is valid");
        let render = |config: &Config| platform::config::render(config).expect("TOML");
        assert_eq!(render(&example), render(&Config::default()));
    }

    /// A setting that the example forgets would not be found.
    #[test]
    fn the_example_says_every_key() {
        fn keys(prefix: &str, table: &toml::Table, found: &mut Vec<String>) {
            for (key, value) in table {
                let key = format!("{prefix}{key}");
                match value {
                    toml::Value::Table(table) => keys(&format!("{key}."), table, found),
                    _ => found.push(key),
                }
            }
        }
        let said = std::fs::read_to_string(example()).expect("it is there").parse().expect("TOML");
        let rendered = platform::config::render(&Config::default()).expect("TOML").parse().expect("TOML");
        let (mut documented, mut all) = (vec![], vec![]);
        keys("", &said, &mut documented);
        keys("", &rendered, &mut all);
        assert_eq!(documented, all);
    }

    #[test]
    fn a_wrong_key_is_named_with_its_place() {
        let overrides = vec![("http.lisen".to_owned(), "x".to_owned())];
        let error = platform::config::load_from::<Config>(None, PREFIX, [], overrides).expect_err("unknown");
        let said = error.to_string();
        assert!(said.contains("http.lisen") && said.contains("command line"), "{said}");
    }

    #[test]
    fn the_read_tables_are_beside_the_event_store_unless_told() {
        let config = Config::default().with_database("postgres://one");
        assert_eq!(config.read_tables().url.expose(), "postgres://one");
        let other = DatabaseConfig { url: Secret::new("postgres://other"), ..DatabaseConfig::default() };
        let config = Config { read_database: Some(other), ..config };
        assert_eq!(config.read_tables().url.expose(), "postgres://other");
    }
}
