//! `lamppost-compat`: what `lamppost compat install` copies under names such as `sendmail`.

use std::process::ExitCode;

fn main() -> ExitCode {
    lamppost_compat::main()
}
