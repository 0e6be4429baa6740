//! Who decides something that is kept on record.

use clap::Args;
use platform::origin;

/// Who says so.
#[derive(Debug, Args)]
pub(crate) struct Who {
    /// Who says so, for the record [default: the system's user and host]
    #[arg(long, value_name = "NAME", value_parser = words)]
    by: Option<String>,
}

impl Who {
    /// As it goes on record.
    pub(crate) fn name(self) -> String {
        self.by.unwrap_or_else(origin::user)
    }
}

/// What is to stand on record: something, and not only blanks.
pub(crate) fn words(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.is_empty() { Err("it is empty") } else { Ok(text.to_owned()) }
}
