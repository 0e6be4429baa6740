//! Configuration: defaults, then one TOML file, then environment variables, then flags; later ones win.
//!
//! An environment variable is named by its key: `AGORA__HTTP__LISTEN` sets `http.listen`. A list is written as in TOML:
//! `AGORA__HTTP__CORS_ORIGINS='["https://forum.example"]'`. An unknown or wrong key is refused with its name and
//! place; for that, configuration types say `#[serde(default, deny_unknown_fields)]`.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use ::config::{Config, File, FileFormat, Map, Source, Value, ValueKind};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _},
};
use serde_path_to_error::Segment;

pub mod duration;

/// Reads the configuration: `T`'s defaults, `file` (it must exist, where one is given), the environment variables
/// that begin with `<prefix>__`, and `overrides` (dotted key and value, from flags).
///
/// # Errors
/// [`ConfigError`] names the key and the place it stands in.
pub fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    prefix: &str,
    overrides: Vec<(String, String)>,
) -> Result<T, ConfigError> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
    load_from(file, prefix, environment, overrides)
}

/// As [`load`], with the environment given.
///
/// # Errors
/// As [`load`].
pub fn load_from<T: DeserializeOwned>(
    file: Option<&Path>,
    prefix: &str,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: Vec<(String, String)>,
) -> Result<T, ConfigError> {
    let mut builder = Config::builder();
    let mut text = String::new();
    if let Some(path) = file {
        text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { file: path.to_owned(), source })?;
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let prefix = format!("{prefix}__");
    for (name, value) in environment {
        if let Some(key) = name.strip_prefix(&prefix) {
            let key = key.to_lowercase().replace("__", ".");
            builder = builder.add_source(Setting::new(key, &value, format!("environment variable {name}"))?);
        }
    }
    for (key, value) in overrides {
        builder = builder.add_source(Setting::new(key, &value, "command line".to_owned())?);
    }
    let merged = builder.build().map_err(|error| ConfigError::Syntax {
        file: file.map(Path::to_owned).unwrap_or_default(),
        reason: error.to_string().trim_end().to_owned(),
    })?;
    let tree = merged.cache;
    serde_path_to_error::deserialize(tree.clone()).map_err(|error| {
        let path: Vec<Segment> = error.path().iter().cloned().collect();
        ConfigError::Key {
            key: error.path().to_string(),
            place: place(&tree, &path, file, &text),
            reason: reason(error.inner()),
        }
    })
}

/// The configuration as TOML, with every [`Secret`] hidden: what `config check` prints.
///
/// # Errors
/// A type that TOML cannot hold (a map with keys that are no strings).
pub fn render<T: Serialize>(config: &T) -> Result<String, toml::ser::Error> {
    toml::to_string(config)
}

/// The name of the environment variable that sets `key`.
pub fn variable(prefix: &str, key: &str) -> String {
    format!("{prefix}__{}", key.to_uppercase().replace('.', "__"))
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {reason}", file.display())]
    Syntax {
        /// Which.
        file: PathBuf,
        /// Where and why, in the parser's words.
        reason: String,
    },
    /// A key is unknown, or its value wrong.
    #[error("configuration key `{key}` ({place}): {reason}")]
    Key {
        /// The dotted key.
        key: String,
        /// The file and line, the environment variable, or the command line.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads a number that must be more than 0. For fields: `#[serde(deserialize_with = "config::positive")]`.
///
/// # Errors
/// 0 and less, and what is no number.
pub fn positive<'de, D, N>(deserializer: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + Default + PartialOrd,
{
    let number = N::deserialize(deserializer)?;
    if number > N::default() { Ok(number) } else { Err(D::Error::custom("must be more than 0")) }
}

/// Reads a share, from 0 to 1. For fields: `#[serde(deserialize_with = "config::share")]`.
///
/// # Errors
/// What is below or above, and what is no number.
pub fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(D::Error::custom("must be from 0 to 1")) }
}

/// A value that never shows: `***` wherever it is printed or serialised. Of a URL only the password is hidden.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

/// What may be shown of a secret.
fn shown(secret: &str) -> String {
    let Some((scheme, rest)) = secret.split_once("://") else {
        return if secret.is_empty() { String::new() } else { "***".to_owned() };
    };
    // Options may hold a password too.
    let (rest, options) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
    match rest.rsplit_once('@').map(|(who, place)| (who.split_once(':'), who, place)) {
        Some((Some((user, _)), _, place)) => format!("{scheme}://{user}:***@{place}{options}"),
        Some((None, user, place)) => format!("{scheme}://{user}@{place}{options}"),
        None => format!("{scheme}://{rest}{options}"),
    }
}

/// One key set by an environment variable or a flag. The `config` crate's own source for the environment forgets
/// which variable a value came from.
#[derive(Clone, Debug)]
struct Setting {
    key: String,
    value: Value,
}

impl Setting {
    fn new(key: String, text: &str, origin: String) -> Result<Self, ConfigError> {
        let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
        if !key.split('.').all(plain) {
            return Err(ConfigError::Key { key, place: origin, reason: "is not the name of a key".to_owned() });
        }
        let kind = if text.starts_with('[') { list(text) } else { None };
        Ok(Self { key, value: Value::new(Some(&origin), kind.unwrap_or_else(|| ValueKind::String(text.to_owned()))) })
    }
}

impl Source for Setting {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(Map::from_iter([(self.key.clone(), self.value.clone())]))
    }
}

/// A list of strings, written as in TOML.
fn list(text: &str) -> Option<ValueKind> {
    #[derive(Deserialize)]
    struct Wrapped {
        list: Vec<String>,
    }
    let wrapped: Wrapped = toml::from_str(&format!("list = {text}")).ok()?;
    Some(wrapped.list.into())
}

/// Where the value at `path`, or the nearest one above it, was set.
fn place(tree: &Value, path: &[Segment], file: Option<&Path>, text: &str) -> String {
    let mut value = tree;
    for segment in path {
        let below = match (segment, &value.kind) {
            (Segment::Map { key }, ValueKind::Table(table)) => table.get(key),
            (Segment::Seq { index }, ValueKind::Array(list)) => list.get(*index),
            _ => None,
        };
        let Some(below) = below else { break };
        value = below;
    }
    match (origin(value), file) {
        (Some(origin), _) => origin.to_owned(),
        (None, Some(file)) => match line(text, path) {
            Some(line) => format!("{}, line {line}", file.display()),
            None => file.display().to_string(),
        },
        (None, None) => "not set".to_owned(),
    }
}

/// Where it was set; of a table, where the first thing in it was.
fn origin(value: &Value) -> Option<&str> {
    match (value.origin(), &value.kind) {
        (None, ValueKind::Table(table)) => table.values().find_map(origin),
        (origin, _) => origin,
    }
}

/// The line, from 1, in which the value at `path` stands in a TOML text.
fn line(text: &str, path: &[Segment]) -> Option<usize> {
    let mut table = toml::de::DeTable::parse(text).ok()?.into_inner();
    let mut offset = None;
    for segment in path {
        let Segment::Map { key } = segment else { break };
        let (key, value) = table.remove_entry(key.as_str())?;
        offset = Some(key.span().start);
        match value.into_inner() {
            toml::de::DeValue::Table(below) => table = below,
            _ => break,
        }
    }
    Some(text[..offset?].matches('\n').count() + 1)
}

/// The words of the error alone: the key and its place are ours to say.
fn reason(error: &::config::ConfigError) -> String {
    use ::config::ConfigError as E;
    match error {
        E::At { error, .. } => reason(error),
        E::Type { unexpected, expected, .. } => format!("invalid type: {unexpected}, expected {expected}"),
        E::NotFound(key) => format!("`{key}` is missing"),
        other => other.to_string().replace("unknown field", "unknown key"),
    }
}

#[cfg(test)]
mod tests;
