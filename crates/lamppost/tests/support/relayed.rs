//! A server that sends mail for elsewhere to a relay, and messages for it.

use std::fmt::Display;
use std::net::SocketAddr;

use super::{Server, Setup, Wire, free_addresses};

/// `\0demo@here.test\0` and the password, in base64.
const LOGIN: &str = "AGRlbW9AaGVyZS50ZXN0AGNvcnJlY3QgaG9yc2UgYmF0dGVyeSBzdGFwbGU=";

/// A server for here.test that sends mail for elsewhere to `relay`; `more` follows in the file.
pub(crate) fn sender(relay: impl Display, more: &str) -> (Server, SocketAddr) {
    let [plain] = free_addresses();
    let submission = format!(
        "[[mail.listen]]\naddress = [\"{plain}\"]\nkind = \"submission\"\ntls = \"off\"\nplaintext-auth = true\n"
    );
    let setup = Setup {
        domain: "here.test",
        mail: format!("relay-to = \"{relay}\"\n{submission}{more}"),
        accounts: &["demo@here.test"],
        ..Setup::default()
    };
    (Server::start(&setup), plain)
}

/// Logs in as an account.
pub(crate) fn logged_in(address: SocketAddr) -> Wire {
    let mut wire = Wire::greeted(address);
    assert!(wire.ask(format!("AUTH PLAIN {LOGIN}\r\n")).starts_with("235"));
    wire
}

/// Submits a message; returns the reply to its content.
pub(crate) fn submit(address: SocketAddr, to: &str, content: &str) -> String {
    let mut wire = logged_in(address);
    assert!(wire.ask("MAIL FROM:<demo@here.test>\r\n").starts_with("250"));
    assert!(wire.ask(format!("RCPT TO:<{to}>\r\n")).starts_with("250"));
    assert!(wire.ask("DATA\r\n").starts_with("354"));
    wire.ask(format!("{content}.\r\n"))
}

/// Whether nothing is in the queue.
pub(crate) fn is_empty(server: &Server) -> bool {
    !server.must(&["queue", "list", "--json"]).contains("\"id\"")
}
