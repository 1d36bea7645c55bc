//! `lamppost greylist import`, from what real postgrey and sqlgrey wrote.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use support::greylist::Alone;
use support::perl_greylists::PerlGreylist;
use support::unpacked;

const TO: &str = "Demo/x@there.test";

/// A command of a running Lamppost, with postgrey's tools in reach, and this on standard input.
fn run(alone: &Alone, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = alone.server.prepared(arguments);
    let tools = unpacked().join("postgrey/usr");
    let path = format!("{}:{}", tools.join("bin").display(), std::env::var("PATH").unwrap());
    let libraries = tools.join(format!("lib/{}-linux-gnu", std::env::consts::ARCH));
    command.env("PATH", path).env("LD_LIBRARY_PATH", libraries);
    let mut child = command.spawn().unwrap();
    // A command that refuses what it was asked ends without reading all.
    drop(child.stdin.take().unwrap().write_all(input));
    child.wait_with_output().unwrap()
}

fn import(alone: &Alone, arguments: &[&str]) -> String {
    let output = run(alone, &[&["greylist", "import"], arguments].concat(), b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn passes(alone: &Alone, client: &str, from: &str) -> bool {
    alone.server.must(&["greylist", "why", client, from, TO]).starts_with("It would pass")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn what_postgrey_knows_is_known_here_while_it_runs() {
    let alone = Alone::start("", "");
    let postgrey = PerlGreylist::postgrey();
    postgrey.learn("192.0.2.7", "Some/one@elsewhere.test", TO);
    postgrey.learn("192.0.2.8", "", TO);
    postgrey.learn("2001:db8:1:2::7", "six@elsewhere.test", TO);
    assert!(!postgrey.ask("192.0.2.9", "new@elsewhere.test", TO));
    let folder = text(&postgrey.folder());
    // Each client has passed once, which is not enough for one that passes by itself.
    let import_folder = || import(&alone, &["postgrey", &folder, "--delay", "1s"]);
    assert_eq!(
        import_folder(),
        "4 taken over, 0 known already; 3 clients left out that have not passed often enough.\n"
    );
    assert!(passes(&alone, "192.0.2.77", "some/one@elsewhere.test"));
    assert!(passes(&alone, "192.0.2.77", "<>"));
    assert!(passes(&alone, "2001:db8:1:2:3::", "six@elsewhere.test"));
    assert!(!passes(&alone, "192.0.2.77", "new@elsewhere.test"));
    assert!(!passes(&alone, "192.0.3.77", "some/one@elsewhere.test"));
    assert_eq!(alone.server.must(&["greylist", "stats"]), "1 waiting, 3 known\n");
    assert!(import_folder().starts_with("0 taken over, 4 known already;"));
    assert_eq!(alone.server.must(&["greylist", "stats"]), "1 waiting, 3 known\n");
    // A client that passes there by itself counts for its network.
    let clients = ["postgrey", &folder, "--delay", "1s", "--clients-after", "1"];
    assert_eq!(import(&alone, &clients), "2 taken over, 4 known already.\n");
    let json = import(&alone, &[&clients[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["taken"], &json["unchanged"]), (&0.into(), &6.into()));
}

#[test]
fn a_dump_from_elsewhere_is_read_and_what_is_none_is_told() {
    let alone = Alone::start("", "");
    let postgrey = PerlGreylist::postgrey();
    postgrey.learn("192.0.2.7", "someone@elsewhere.test", TO);
    let tools = unpacked().join("postgrey/usr");
    let libraries = tools.join(format!("lib/{}-linux-gnu", std::env::consts::ARCH));
    let mut dump = Command::new(tools.join("bin/db5.3_dump"));
    dump.arg("-h").arg(postgrey.folder()).arg("postgrey.db").env("LD_LIBRARY_PATH", libraries);
    let dump = dump.output().unwrap().stdout;
    let arguments = ["greylist", "import", "postgrey", "-", "--delay", "1s"];
    let output = run(&alone, &arguments, &dump);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 taken over, 0 known already.\n");
    assert!(passes(&alone, "192.0.2.77", "someone@elsewhere.test"));
    let refused = run(&alone, &arguments, b"VERSION=2\n");
    assert_eq!(refused.status.code(), Some(65));
    insta::assert_snapshot!(String::from_utf8_lossy(&refused.stderr), @r#"
    error: standard input is no dump of a Berkeley DB: line 1: VERSION=3 was expected, not "VERSION=2"
      help: name postgrey's folder, or what `db5.3_dump -p -h /var/lib/postgrey postgrey.db` writes
    "#);
    let nothing = tempfile::tempdir().unwrap();
    let refused = run(&alone, &["greylist", "import", "postgrey", &text(nothing.path())], b"");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("neither postgrey.db nor postgrey_clients.db is in"), "{told}");
    // A file of postgrey's own, where nobody can read it.
    let file = text(&postgrey.folder().join("postgrey.db"));
    let mut command = alone.server.prepared(&["greylist", "import", "postgrey", &file]);
    let refused = command.env("PATH", nothing.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(71));
    insta::assert_snapshot!(String::from_utf8_lossy(&refused.stderr), @r"
    error: db5.3_dump is not there to read postgrey's files
      help: install it by `apt-get install db5.3-util`, or see `lamppost greylist import postgrey --help` for a way without it
    ");
}

#[test]
fn what_sqlgrey_knows_counts_for_networks() {
    let alone = Alone::start("", "");
    let sqlgrey = PerlGreylist::sqlgrey();
    for (client, from) in [
        ("192.0.2.7", "one@elsewhere.test"),
        ("192.0.2.8", "two@elsewhere.test"),
        ("198.51.100.7", "one@another.test"),
    ] {
        sqlgrey.learn(client, from, TO);
    }
    assert!(!sqlgrey.ask("203.0.113.7", "new@elsewhere.test", TO));
    let file = text(&sqlgrey.folder().join("sqlgrey.db"));
    assert_eq!(import(&alone, &["sqlgrey", &file]), "3 taken over, 0 known already.\n");
    assert_eq!(import(&alone, &["sqlgrey", &file]), "0 taken over, 3 known already.\n");
    let listed = alone.server.must(&["greylist", "list", "--recipient", "demo/x@there.test"]);
    assert!(listed.contains("203.0.113.0") && listed.lines().count() == 2, "{listed}");
    let config = text(&sqlgrey.folder().join("sqlgrey.conf"));
    let refused = run(&alone, &["greylist", "import", "sqlgrey", &config], b"");
    assert_eq!(refused.status.code(), Some(65));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("sqlgrey.conf") && told.contains("db_name"), "{told}");
}
