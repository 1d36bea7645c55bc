//! `lamppost`: the services around a LAMP server, in one program.

mod command;
mod exit;
mod homes;
mod local_way;
mod named_files;
mod place;
mod recipe;
mod run;
mod state_files;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Before anything that a caller could have a hand in is looked at.
    if let Err(refusal) = lamppost_compat::refuse_secure_execution() {
        return refusal.report();
    }
    // Its words are addresses that come from the network: none is taken for an option.
    if let Some(code) = command::envelope_scanner(std::env::args_os()) {
        return code;
    }
    let arguments = match command::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(&error),
    };
    match command::execute(arguments) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
