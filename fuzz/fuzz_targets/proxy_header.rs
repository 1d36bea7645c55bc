//! Any bytes as the beginning of a proxied connection.
#![no_main]

use lamppost_net::proxy::{Progress, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes) {
        Progress::Complete { length, .. } => assert!(length <= bytes.len()),
        Progress::Incomplete(more) => assert!(more > 0),
        Progress::Invalid => {}
    }
});
