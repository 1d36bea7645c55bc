//! `lamppost greylist`, on a running program.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::greylist::Alone;
use support::until;

const FROM: &str = "someone@elsewhere.test";
const TO: &str = "demo@there.test";

#[test]
fn why_tells_what_a_message_would_meet_and_changes_nothing() {
    let alone = Alone::start("delay = \"1s\"", "");
    let why = |from: &str| alone.server.must(&["greylist", "why", "192.0.2.77", from, TO]);
    why(FROM);
    insta::assert_snapshot!(why(FROM), @r"
    It would be deferred (new), for 1 second: these three have not met.
    The delay is 1 second: nothing else is known (`delay`).
    ");
    assert_eq!(alone.server.must(&["greylist", "list"]), "The greylist knows no such triplet.\n");
    alone.connect().ask(FROM, TO, "");
    alone.connect().ask("", TO, "");
    assert!(until(|| why(FROM).starts_with("It would pass (waited): it has waited its delay.\n")));
    let told = why("<>");
    assert!(told.contains("Network 192.0.2.0: ") && told.contains("deferred once"), "{told}");
    assert!(until(|| alone.connect().ask(FROM, TO, "").contains("PREPEND")));
    let told = why(FROM);
    assert!(told.starts_with("It would pass (known): these three have met"), "{told}");
    assert!(told.ends_with("known, passed once; forgotten in 35d.\n"), "{told}");
    let json = alone.server.must(&["greylist", "why", "192.0.2.77", FROM, TO, "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["passes"], true);
    assert_eq!(json["triplet"]["passed"], 1);
}

#[test]
fn triplets_are_listed_and_forgotten_by_filters() {
    let alone = Alone::start("", "");
    let mut asker = alone.connect();
    for to in ["a@one.test", "b@one.test", "c@two.test"] {
        for from in [FROM, "", "o'neill+%_@elsewhere.test"] {
            assert!(asker.ask(from, to, "").contains("greylisted (new)"));
        }
    }
    let run = |line: &str| {
        let arguments: Vec<_> = ["greylist"].into_iter().chain(line.split(' ')).collect();
        alone.server.must(&arguments)
    };
    assert_eq!(run("stats"), "9 waiting, 0 known\n");
    let count = |line: &str| {
        let listed: Value = serde_json::from_str(&run(&format!("list --json {line}"))).unwrap();
        listed.as_array().unwrap().len()
    };
    assert_eq!(count("--ip 192.0.2.200"), 9);
    assert_eq!(count("--ip 192.0.3.1"), 0);
    assert_eq!(count("--sender <>"), 3);
    assert_eq!(count("--sender O'Neill+%_@elsewhere.test --recipient @ONE.test"), 2);
    assert_eq!(run("forget --recipient @one.test --sender <>"), "2 triplets forgotten.\n");
    assert_eq!(run("forget --recipient c@two.test"), "3 triplets forgotten.\n");
    assert_eq!(run("expire"), "0 triplets forgotten.\n");
    let refused = alone.server.command(&["greylist", "forget"]);
    assert_eq!(refused.status.code(), Some(64));
    insta::assert_snapshot!(String::from_utf8_lossy(&refused.stderr), @r"
    error: nothing says which triplets are to be forgotten
      help: name them by --ip, --sender or --recipient, or say --all; `lamppost greylist list` takes the same filters
    ");
    let listed = run("list");
    assert!(listed.starts_with("NETWORK "), "{listed}");
    assert!(listed.contains("<someone@elsewhere.test>"), "{listed}");
    assert!(listed.contains(" waits ") && listed.contains(", deferred once"), "{listed}");
    assert_eq!(run("forget --all"), "4 triplets forgotten.\n");
}
