//! Any lines as attempts in JSON, and as mail logs.
#![no_main]

use lamppost_greylist::replay::{Delivery, Log, LogKind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for kind in [LogKind::Exim, LogKind::Lamppost, LogKind::Postfix] {
        let mut log = Log::new(kind);
        for line in text.lines() {
            if let Some(delivery) = log.read(line) {
                let _evidence = delivery.evidence();
            }
        }
        while log.end().is_some() {}
    }
    for line in text.lines() {
        if let Ok(delivery) = Delivery::of_json(line) {
            let _evidence = delivery.evidence();
        }
    }
});
