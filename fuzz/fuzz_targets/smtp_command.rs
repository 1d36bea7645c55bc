//! Any bytes as a command line.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    drop(lamppost_smtp::parse_command(line));
});
