//! A real Postfix asks the greylist of a program that takes no mail itself (feature `peers`, set up by
//! `cargo xtask setup`; root starts it).
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use support::greylist::Alone;
use support::postfix::Postfix;
use support::{Wire, until};

/// Lines of main.cf for a Postfix that takes mail from anywhere and asks at this place.
fn asking(place: &str) -> String {
    format!(
        "smtpd_tls_security_level = may\nsmtpd_error_sleep_time = 0\nsmtpd_soft_error_limit = 10000\n\
         smtpd_hard_error_limit = 10000\nvirtual_mailbox_maps = inline:{{ \
         {{ someone@there.test = someone/Maildir/ }}, {{ other@there.test = someone/Maildir/ }} }}\nmynetworks = 203.0.113.0/24\n\
         smtpd_authorized_xclient_hosts = 127.0.0.0/8\n\
         smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n\
         smtpd_recipient_restrictions = check_policy_service {place}\n"
    )
}

/// A client of the Postfix from this address; `login` is what it has authenticated by, if anything.
fn client(postfix: &Postfix, address: &str, login: &str) -> Wire {
    let mut wire = Wire::connect(postfix.starttls);
    let greeting = wire.reply();
    assert!(greeting.starts_with("220 "), "{greeting}{}", postfix.log());
    assert!(wire.ask("EHLO client.test\r\n").starts_with("250"));
    let reply = wire.ask(format!("XCLIENT ADDR={address} LOGIN={login}\r\n"));
    assert!(reply.starts_with("220"), "{reply}{}", postfix.log());
    assert!(wire.ask("EHLO client.test\r\n").starts_with("250"));
    wire
}

/// Tries to send a message to two recipients; returns the replies to them.
fn attempt(wire: &mut Wire, from: &str) -> [String; 2] {
    assert!(wire.ask(format!("MAIL FROM:<{from}>\r\n")).starts_with("250"));
    ["someone@there.test", "other@there.test"].map(|to| wire.ask(format!("RCPT TO:<{to}>\r\n")))
}

#[test]
fn postfix_asks_by_each_kind_of_socket() {
    for is_local in [false, true] {
        // Whoever Postfix runs as may ask.
        let alone = Alone::start("delay = \"1s\"", "socket-mode = \"0666\"");
        open_to_all(&alone);
        let place = if is_local {
            format!("unix:{}", alone.socket.display())
        } else {
            format!("inet:{}", alone.address)
        };
        let postfix = Postfix::start(&asking(&place));
        for from in ["sender@elsewhere.test", ""] {
            let mut wire = client(&postfix, "192.0.2.1", "[UNAVAILABLE]");
            for reply in attempt(&mut wire, from) {
                let told = "Recipient address rejected: greylisted (new): try again in 1 second";
                assert!(reply.starts_with("450 4.7.1 ") && reply.contains(told), "{reply}");
            }
            assert!(wire.ask("RSET\r\n").starts_with("250"));
            let mut taken = false;
            assert!(until(|| {
                let replies = attempt(&mut wire, from);
                taken = replies.iter().all(|reply| reply.starts_with("250"));
                taken || !wire.ask("RSET\r\n").starts_with("250")
            }));
            assert!(taken, "{}{}", postfix.log(), alone.server.log());
            assert!(wire.ask("DATA\r\n").starts_with("354"));
            let sent = wire.ask(format!("Subject: from <{from}>\r\n\r\nx\r\n.\r\n"));
            assert!(sent.starts_with("250"), "{sent}");
        }
        assert!(until(|| postfix.messages().len() == 4), "{}", postfix.log());
        for message in postfix.messages() {
            assert_eq!(message.matches("\nX-Greylist: delayed ").count(), 1, "{message}");
        }
        // Mail of those who are known is as it came.
        let mut wire = client(&postfix, "192.0.2.77", "[UNAVAILABLE]");
        assert!(attempt(&mut wire, "sender@elsewhere.test")[0].starts_with("250"));
        assert!(wire.ask("DATA\r\n").starts_with("354"));
        assert!(wire.ask("Subject: known\r\n\r\nx\r\n.\r\n").starts_with("250"));
        let known = || postfix.messages().into_iter().find(|text| text.contains("Subject: known"));
        assert!(until(|| known().is_some()), "{}", postfix.log());
        assert!(!known().unwrap().contains("X-Greylist"));
    }
}

#[test]
fn who_authenticated_or_has_no_address_does_not_wait() {
    let alone = Alone::start("", "");
    let postfix = Postfix::start(&asking(&format!("inet:{}", alone.address)));
    for (address, login, code) in [
        ("192.0.2.1", "[UNAVAILABLE]", "450 4.7.1 "),
        ("192.0.2.1", "demo", "250 "),
        ("[UNAVAILABLE]", "[UNAVAILABLE]", "250 "),
    ] {
        let replies = attempt(&mut client(&postfix, address, login), "sender@elsewhere.test");
        assert!(replies[0].starts_with(code), "{address} {login}: {replies:?}");
    }
}

#[test]
fn postfix_goes_on_through_reloads_restarts_and_a_broken_store() {
    let mut alone = Alone::start("", "");
    let postfix = Postfix::start(&asking(&format!("inet:{}", alone.address)));
    let mut wire = client(&postfix, "192.0.2.1", "[UNAVAILABLE]");
    let mut reply = |from: &str| {
        let replies = attempt(&mut wire, from);
        assert!(wire.ask("RSET\r\n").starts_with("250"));
        replies[0].clone()
    };
    assert!(reply("sender@elsewhere.test").contains("greylisted (new)"));
    // Another front takes the place of the one that Postfix is connected to.
    alone.write("", "connections-max = 100");
    alone.server.must(&["reload"]);
    assert!(reply("sender@elsewhere.test").contains("greylisted (early)"));
    alone.server.stop();
    alone.server.launch();
    assert!(reply("sender@elsewhere.test").contains("greylisted (early)"));
    alone.break_store();
    assert!(reply("other@elsewhere.test").starts_with("250"));
    alone.write("when-store-fails = \"defer\"", "connections-max = 100");
    alone.server.must(&["reload"]);
    assert!(reply("other@elsewhere.test").starts_with("450 4.3.0 "));
}

/// Lets others pass through the folders above the socket.
fn open_to_all(alone: &Alone) {
    use std::os::unix::fs::PermissionsExt;
    for folder in alone.socket.ancestors().skip(1).take(2) {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder, open).unwrap();
    }
}
