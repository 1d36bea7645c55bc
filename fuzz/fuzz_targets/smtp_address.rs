//! Any text as an address: what is read prints as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(address) = text.parse::<lamppost_smtp::Address>() {
        assert_eq!(address.to_string(), text);
        assert_eq!(format!("{}@{}", address.local(), address.domain()), text);
    }
});
