//! The command line. Everything it can do is in the library.

use std::{io, process::ExitCode};

use agora::cli::Cli;
use clap::Parser as _;

/// Gives memory back some seconds after a burst that took it, librdkafka's too: it stands in for C's `malloc`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let Err(error) = Cli::parse().run() else { return ExitCode::SUCCESS };
    let cause = error.root_cause().downcast_ref::<io::Error>();
    if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe) {
        // Who reads has seen enough.
        return ExitCode::SUCCESS;
    }
    let mut causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    // Some errors (sqlx's) say themselves what is below them.
    causes.dedup_by(|below, above| above.ends_with(&*below));
    eprintln!("agora: {}", causes.join(": "));
    ExitCode::FAILURE
}
