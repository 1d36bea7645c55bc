//! Any text as a configuration file: it is read, or its problems can be shown.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(problems) = lamppost_config::Config::parse(text, Path::new("any")) {
        assert!(!problems.render(true).is_empty());
    }
    drop(lamppost_config::Config::show(text, true));
});
