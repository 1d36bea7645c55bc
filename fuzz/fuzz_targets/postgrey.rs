//! Any bytes as a dump of a Berkeley DB of postgrey's.
#![no_main]

use lamppost_greylist::import::Dump;
use lamppost_greylist::import::postgrey::{Rules, entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for (key, value) in Dump::new(bytes).map_while(Result::ok) {
        entry(&key, &value, Rules::default());
    }
});
