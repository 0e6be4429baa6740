//! `agora completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(agora completions bash)
  agora completions zsh > ~/.zfunc/_agora
  agora completions fish > ~/.config/fish/completions/agora.fish")]
pub struct Completions {
    /// Which
    shell: Shell,
}

impl Completions {
    /// Prints them.
    ///
    /// # Errors
    /// Where nobody reads.
    pub fn run(self) -> anyhow::Result<()> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut crate::cli::Cli::command(), "agora", &mut text);
        Ok(super::print(&String::from_utf8(text)?)?)
    }
}
