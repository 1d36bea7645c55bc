//! End of data: only CRLF.CRLF ends a message, in whatever pieces it comes.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use support::{Server, Setup, Wire};

const SMUGGLED: &str = "MAIL FROM:<evil@elsewhere.test>\r\nRCPT TO:<demo@lamppost.test>\r\n\
    DATA\r\nSubject: smuggled\r\n\r\nsmuggled\r\n.\r\n";

/// Sends a body whose end is in doubt, then a message that a lenient server would take as a second.
fn smuggle(server: &Server, end: &str) {
    let mut wire = Wire::greeted(server.mx);
    wire.begin_content("demo@lamppost.test");
    wire.send(format!("Subject: first\r\n\r\nfirst{end}{SMUGGLED}QUIT\r\n"));
    let mut replies = String::new();
    loop {
        let reply = wire.reply();
        if reply.is_empty() {
            break;
        }
        replies.push_str(&reply);
    }
    assert!(!replies.contains("250 2.0.0"), "{end:?} was taken: {replies}");
    assert!(replies.starts_with('5'), "{end:?} got no refusal: {replies}");
}

#[test]
fn no_other_end_of_data_is_accepted() {
    let server = Server::start(&Setup::default());
    let ends = [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r\n.\r\r\n",
        "\r\r\n.\r\n",
        "\r.\r",
        "\r.\r\n",
        "\r\n.\r",
        "\n.\r",
    ];
    for end in ends {
        smuggle(&server, end);
    }
    assert!(support::files(&server.maildir("demo@lamppost.test").join("new")).is_empty());
}

#[test]
fn an_old_device_may_send_bare_newlines_but_ends_nothing_with_them() {
    let server = Server::start(&Setup {
        mx: "bare-newline-fix-for = [\"127.0.0.0/8\"]",
        ..Setup::default()
    });
    let mut wire = Wire::greeted(server.mx);
    wire.begin_content("demo@lamppost.test");
    let reply = wire.ask("Subject: scan\n\npage 1\n.\nMAIL FROM:<evil@elsewhere.test>\n\r\n.\r\n");
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    let message = server.only_message("demo@lamppost.test");
    assert!(message.contains("page 1\n"), "{message}");
    assert!(message.contains("MAIL FROM:<evil@elsewhere.test>\n"), "{message}");
}

#[test]
fn an_empty_message_is_a_message() {
    let server = Server::start(&Setup::default());
    let mut wire = Wire::greeted(server.mx);
    wire.begin_content("demo@lamppost.test");
    let reply = wire.ask(".\r\n");
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    server.delivered("demo@lamppost.test", 1);
}

#[test]
fn the_end_may_come_byte_by_byte() {
    let server = Server::start(&Setup::default());
    let mut wire = Wire::greeted(server.mx);
    wire.begin_content("demo@lamppost.test");
    for byte in b"Subject: slow\r\n\r\n..dot\r\n.x\r\n.\r" {
        wire.send([*byte]);
    }
    let reply = wire.ask("\n");
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    assert!(server.only_message("demo@lamppost.test").ends_with("Subject: slow\n\n.dot\nx\n"));
}
