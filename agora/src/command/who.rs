//! Who decides something that is kept on record.

use clap::{Args, builder::NonEmptyStringValueParser};
use platform::origin;

/// Who says so.
#[derive(Debug, Args)]
pub(crate) struct Who {
    /// Who says so, for the record [default: the system's user and host]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    by: Option<String>,
}

impl Who {
    /// As it goes on record.
    pub(crate) fn name(self) -> String {
        self.by.unwrap_or_else(origin::user)
    }
}
