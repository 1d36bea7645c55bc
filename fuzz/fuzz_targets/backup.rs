//! Any bytes as a backup: they are refused.
#![no_main]

use lamppost_backup::{Nowhere, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // One that is whole has all its checksums right, and says no more than is in it.
    if let Ok(manifest) = read(bytes, &mut Nowhere) {
        assert!(manifest.bytes() <= bytes.len() as u64);
    }
});
