//! `./dev faults`: breaks Agora at random, and looks whether it kept its promises.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use agora_tests::faults::{self, Options};
use clap::Parser;

/// Break Agora at random, and look whether it kept its promises
#[derive(Parser)]
#[command(name = "./dev faults")]
struct Arguments {
    /// The schedule of the first round; each next round takes the next number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rounds at most
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// Begin no round after so many minutes
    #[arg(long, default_value_t = 600)]
    minutes: u64,
    /// Faults in a round
    #[arg(long, default_value_t = 20)]
    faults: usize,
    /// Break each of these promises on purpose, all of them where none is named: the campaign must find it
    #[arg(long, value_name = "NAME", num_args = 0..)]
    sabotage: Option<Vec<String>>,
    /// The binary under test
    #[arg(long, env = "AGORA_UNDER_TEST", hide = true)]
    agora: PathBuf,
    /// Where logs are kept
    #[arg(long, default_value = "target/faults")]
    logs: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { seed, rounds, minutes, faults, sabotage, agora, logs } = Arguments::parse();
    let within = Duration::from_secs(60 * minutes);
    let options = Options { agora, seed, rounds, within, faults, dir: logs };
    let outcome = match sabotage {
        Some(names) => faults::sabotage(&options, &names).await,
        None => faults::run(&options).await.map(|report| println!("\n{report}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}
