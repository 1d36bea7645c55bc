//! Any bytes as connection rules, text or cdb: they are refused, or say something of every client.
#![no_main]

use std::net::IpAddr;

use lamppost_rules::{Cdb, Client, Grammar, Keys, Rules, compile, look_up};
use libfuzzer_sys::fuzz_target;

/// Bytes that a text may become: a range makes much of little.
const COMPILED_MAX: u32 = 1024 * 1024;

fuzz_target!(|input: (IpAddr, &[u8])| {
    let (address, bytes) = input;
    if let Ok(rules) = Rules::read(bytes.to_vec()) {
        drop(rules.verdict(address, Some("mail.example.org")));
    }
    let ip = address.to_string();
    let client = Client { ip: ip.as_bytes(), host: Some(b"a.b"), info: Some(b"") };
    // Damaged or not, as tcprulescheck reads it.
    drop(look_up(&Cdb::new(bytes), &client, Keys::Networks));
    if let Ok(compiled) = compile(bytes, Grammar::Exact, COMPILED_MAX) {
        let cdb = Cdb::new(&compiled.cdb);
        cdb.check().expect("what was made is whole");
        look_up(&cdb, &client, Keys::Exact).expect("a whole cdb answers");
    }
});
