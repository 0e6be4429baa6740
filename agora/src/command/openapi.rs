//! `agora openapi`

use clap::Args;

use crate::stack;

/// Print the API's description: OpenAPI 3.1, as JSON
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agora openapi > openapi.json")]
pub struct Openapi {}

impl Openapi {
    /// Prints it.
    ///
    /// # Errors
    /// Where nobody reads.
    pub fn run(self) -> anyhow::Result<()> {
        let text = stack::openapi().to_pretty_json()?;
        Ok(super::print(&format!("{text}\n"))?)
    }
}
