//! Set-up, checks, tests, benchmarks and packages of the project: `cargo xtask --help`.
#![expect(clippy::print_stdout, reason = "a tool for people prints")]

mod bench;
mod check;
mod dist;
mod machine;
mod setup;
mod soak;
mod steps;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, checks, tests, benchmarks and packages of the project"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests need, or print the command that does
    Setup,
    /// Check quickly what a change needs: format, lints, unit tests, tidy
    Check,
    /// Set up and run everything
    Test,
    /// Kill the program hundreds of times, cut the power, and run the tests with many more cases
    Soak(soak::Soak),
    /// Compare with a peer, both in one run
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Make a Debian package and let lintian look at it
    Dist(dist::Dist),
    /// Check what the compiler does not: the crate graph, file sizes, docs
    Tidy,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::Check => check::check(),
        Command::Test => check::test(),
        Command::Soak(soak) => soak.run(),
        Command::Bench(bench) => bench.run(),
        Command::Dist(dist) => dist.run(),
        Command::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
