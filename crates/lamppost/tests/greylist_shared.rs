//! Two programs that share a greylist in a real MariaDB, as administrators see it.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use lamppost_load::Mariadb;
use support::greylist::Alone;
use support::until;

const FROM: &str = "someone@elsewhere.test";
const TO: &str = "demo@there.test";
const DUNNO: &str = "action=DUNNO";

/// Lines of `[mail.greylist]` by which a program uses the database, its password in a file.
fn sharing(database: &Mariadb, folder: &tempfile::TempDir, more: &str) -> String {
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{}\n", Mariadb::PASSWORD)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!(
        "database = \"mysql://{}@localhost:{}/{}\"\ndatabase-password = \"{}\"\n{more}",
        Mariadb::USER,
        database.address().port(),
        Mariadb::DATABASE,
        file.display(),
    )
}

#[test]
fn two_programs_share_a_greylist() {
    let database = Mariadb::start(&[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let first = Alone::start(&sharing(&database, &folder, "delay = \"2s\""), "");
    // Without tables it works all the same, and says what is missing.
    assert_eq!(first.connect().ask(FROM, TO, ""), DUNNO);
    let status = first.server.must(&["status"]);
    let lack = "has no table `relaytofrom`; run `lamppost greylist init`";
    assert!(status.contains(lack), "{status}");
    let doctor = first.server.command(&["doctor", "--no-dns"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("is not ready: it is yet to make the table relaytofrom"), "{doctor}");
    assert!(doctor.contains("help: run `lamppost greylist init`"), "{doctor}");
    let planned = first.server.must(&["greylist", "init", "--dry-run"]);
    assert!(planned.contains("would make the table relaytofrom:\n  CREATE TABLE"), "{planned}");
    let made = first.server.must(&["greylist", "init"]);
    insta::assert_snapshot!(made, @r"
    done: make the table relaytofrom
    done: make the table dns_name
    done: make the table mail_log
    done: make the table lamppost_writer
    ");
    let again = first.server.must(&["greylist", "init"]);
    assert!(again.ends_with("are as they should be.\n"), "{again}");
    assert!(until(|| first.connect().ask(FROM, TO, "").contains("greylisted (new)")));
    assert!(!first.server.must(&["status"]).contains("relaytofrom"));
    // The other knows of it, by a socket and by a name in the address.
    let by_socket = format!(
        "database = \"mariadb://{}:{}@localhost/{}?socket={}\"\ndelay = \"2s\"",
        Mariadb::USER,
        Mariadb::PASSWORD,
        Mariadb::DATABASE,
        database.socket().display()
    );
    let second = Alone::start(&by_socket, "");
    let shown = second.server.must(&["config", "show"]);
    assert!(shown.contains("mariadb://lamppost:…@localhost"), "{shown}");
    assert!(!shown.contains(Mariadb::PASSWORD), "{shown}");
    assert!(until(|| second.connect().ask(FROM, TO, "").contains("PREPEND X-Greylist")));
    assert!(until(|| first.connect().ask(FROM, TO, "") == DUNNO));
    assert!(until(|| first.server.must(&["greylist", "stats"]).starts_with("0 waiting, ")));
    let log = second.server.log() + &first.server.log();
    assert!(!log.contains(Mariadb::PASSWORD), "{log}");
}

#[test]
fn what_is_ruled_by_hand_counts_before_all_else() {
    let database = Mariadb::start(&[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let alone = Alone::start(&sharing(&database, &folder, ""), "");
    alone.server.must(&["greylist", "init"]);
    let run = |line: &str| {
        let arguments: Vec<_> = ["greylist"].into_iter().chain(line.split(' ')).collect();
        alone.server.must(&arguments)
    };
    assert!(until(|| alone.connect().ask(FROM, TO, "").contains("greylisted (new)")));
    assert_eq!(run("list --manual"), "Nothing is ruled by hand.\n");
    assert_eq!(
        run("allow 192.0.2.0/23 postmaster@there.test"),
        "3 rows written; there are 3 now.\n"
    );
    assert_eq!(alone.connect().ask(FROM, TO, ""), DUNNO);
    assert_eq!(run("block 192.0.2.1 --for 1h"), "1 row written; there are 4 now.\n");
    let blocked = alone.connect().ask(FROM, TO, "");
    assert!(blocked.contains("4.7.1 greylisted (blocked): try again in "), "{blocked}");
    let why = run(&format!("why 192.0.2.1 {FROM} {TO}"));
    assert!(why.contains("an administrator blocks it"), "{why}");
    let listed = run("list --manual");
    let rows: Vec<_> =
        listed.lines().map(|row| row.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(rows[1], ["client", "192.0.2", "passes", "never"]);
    assert_eq!(rows[2], ["client", "192.0.3", "passes", "never"]);
    assert_eq!(rows[3], ["recipient", "<postmaster@there.test>", "passes", "never"]);
    assert_eq!(rows[4][..4], ["client", "192.0.2.1", "is", "deferred"]);
    assert_eq!(run("forget --manual 192.0.2.1 --manual 192.0.2"), "2 manual rows forgotten.\n");
    assert!(alone.connect().ask(FROM, TO, "").contains("greylisted (early)"));
    let rows = database
        .execute("SELECT * FROM greylist.relaytofrom WHERE mail_from IS NULL ORDER BY id")
        .unwrap();
    let rows: Vec<_> = rows.lines().map(|row| row.split('\t').collect::<Vec<_>>()).collect();
    assert_eq!(
        rows[1][1..10],
        [
            "NULL",
            "NULL",
            "<postmaster@there.test>",
            "0000-00-00 00:00:00",
            "9999-12-31 23:59:59",
            "0",
            "0",
            "0",
            "MANUAL"
        ]
    );
    let refused = alone.server.command(&["greylist", "allow", "300.1"]);
    assert_eq!(refused.status.code(), Some(64));
}

#[test]
fn a_database_that_is_away_holds_up_nobody() {
    let mut database = Mariadb::start(&[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lines = sharing(&database, &folder, "delay = \"1s\"\nwhen-store-fails = \"local\"");
    let mut alone = Alone::start(&lines, "");
    alone.server.must(&["greylist", "init"]);
    assert!(until(|| alone.server.must(&["greylist", "stats"]).starts_with("0 waiting")));
    database.kill().unwrap();
    assert!(until(|| alone.connect().ask(FROM, TO, "").contains("greylisted")));
    assert!(until(|| alone.connect().ask(FROM, TO, "").contains("PREPEND")));
    assert!(until(|| alone.server.must(&["status"]).contains("wait here to be written back")));
    let stats = alone.server.must(&["greylist", "stats"]);
    assert!(stats.starts_with("how many there are is not known: "), "{stats}");
    assert!(stats.contains(" wait here until the shared database is there again"), "{stats}");
    // What was learned survives a restart, though the database is away at the start.
    alone.server.stop();
    alone.server.launch();
    assert_eq!(alone.connect().ask(FROM, TO, ""), DUNNO);
    database.start_again().unwrap();
    assert!(until(|| alone.server.must(&["greylist", "list"]).contains("known, passed")));
    assert!(until(|| !alone.server.must(&["status"]).contains("written back")));
}

#[test]
fn what_is_wrong_with_the_database_is_told_with_its_line() {
    let server = support::Server::prepare(&support::Setup::default(), None);
    let path = server.state().join("wrong.toml");
    std::fs::write(&path, "[mail.greylist]\ndatabase = \"mysql://db.example.org/grey\"\n").unwrap();
    let checked = server.command(&["check", path.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(told.contains("`database` names no user"), "{told}");
    assert!(told.contains("wrong.toml:2:12"), "{told}");
    assert!(told.contains("mysql://USER@HOST/NAME"), "{told}");
}
