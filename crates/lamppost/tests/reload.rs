//! A reload under load: what is changed in listeners and limits takes hold at once, and no session of
//! those that run is lost.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::net::TcpStream;

use lamppost_load::Load;
use support::{Server, Setup, Wire, free_addresses, until};

const ACCOUNT: &str = "demo@lamppost.test";
/// Sessions of the load, each with a message of its own.
const SESSIONS: u64 = 10_000;

/// Writes the server's file anew.
fn rewrite(server: &Server, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(server.config()).unwrap();
    std::fs::write(server.config(), change(text)).unwrap();
}

fn with_listener(text: &str, address: std::net::SocketAddr) -> String {
    format!("{text}\n[[mail.listen]]\naddress = [\"{address}\"]\nkind = \"mx\"\ntls = \"off\"\n")
}

#[test]
fn no_session_is_lost_when_listeners_and_limits_change_again_and_again() {
    let server = Server::start(&Setup::default());
    let begun = std::fs::read_to_string(server.config()).unwrap();
    let [another] = free_addresses();
    let mut load = Load::new(server.mx, &[ACCOUNT]);
    load.sessions = 20;
    load.count = Some(SESSIONS);
    load.sizes = vec![4096];
    load.keep_connections = false;
    let running = load.start().unwrap();
    let mut reloads = 0_u64;
    while running.acknowledged() < SESSIONS * 9 / 10 {
        reloads += 1;
        let limited = begun.replace(
            "greeting-delay = \"0s\"",
            &format!("greeting-delay = \"0s\"\nerrors-max = {}", 10 + reloads),
        );
        let text = if reloads % 2 == 0 { limited } else { with_listener(&limited, another) };
        std::fs::write(server.config(), text).unwrap();
        let told = server.must(&["reload"]);
        assert!(told.contains("is in force."), "{told}");
        assert_eq!(TcpStream::connect(another).is_ok(), reloads % 2 == 1);
    }
    let report = running.finish();
    assert_eq!(report.acknowledged().count() as u64, SESSIONS, "{:?}", report.complaints);
    assert!(report.complaints.is_empty() && report.cuts == 0, "{:?}", report.complaints);
    assert!(reloads >= 3, "only {reloads} reloads while the load ran");
    server.await_empty_queue();
    server.delivered(ACCOUNT, usize::try_from(SESSIONS).unwrap());
}

#[test]
fn a_session_that_runs_goes_on_as_it_began_and_new_ones_are_served_anew() {
    let server = Server::start(&Setup::default());
    let mut old = Wire::greeted(server.mx);
    old.begin_content(ACCOUNT);
    rewrite(&server, |text| {
        text.replace(
            "greeting-delay = \"0s\"",
            "greeting-delay = \"0s\"\nmessage-size-max = \"2MiB\"",
        )
    });
    server.must(&["reload"]);
    assert!(Wire::connect(server.mx).reply().starts_with("220"));
    let mut new = Wire::connect(server.mx);
    new.reply();
    assert!(new.ask("EHLO client.test\r\n").contains("SIZE 2097152"));
    assert!(old.ask("Subject: x\r\n\r\nx\r\n.\r\n").starts_with("250"));
    assert!(old.deliver(ACCOUNT, "Subject: y\r\n\r\ny").starts_with("250"));
    assert!(old.ask("QUIT\r\n").starts_with("221"));
    server.delivered(ACCOUNT, 2);
    // The process of the old front ends with its last session.
    drop(new);
    let fronts = || {
        let status: serde_json::Value =
            serde_json::from_str(&server.must(&["status", "--json"])).unwrap();
        let roles = status["host"]["roles"].as_array().unwrap().clone();
        roles.iter().filter(|role| role["name"] == "front").count()
    };
    assert!(until(|| fronts() == 1));
}

#[test]
fn a_file_that_cannot_be_in_force_changes_nothing() {
    let server = Server::start(&Setup::default());
    let [another, taken] = free_addresses();
    #[expect(clippy::disallowed_methods, reason = "somebody else has the address")]
    let _held = std::net::TcpListener::bind(taken).unwrap();
    let begun = std::fs::read_to_string(server.config()).unwrap();
    let text = with_listener(&with_listener(&begun, another), taken);
    std::fs::write(server.config(), text).unwrap();
    let failed = server.command(&["reload"]);
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success());
    assert!(told.contains(&format!("cannot listen on {taken}")), "{told}");
    assert!(told.contains("The old configuration stays in force."), "{told}");
    assert!(TcpStream::connect(another).is_err());
    assert!(Wire::greeted(server.mx).deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    std::fs::write(server.config(), begun).unwrap();
    server.must(&["reload"]);
}
