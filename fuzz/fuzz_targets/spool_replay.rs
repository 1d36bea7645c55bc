//! Any bytes as a segment of the spool.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    lamppost_queue::scan_segment(bytes);
});
