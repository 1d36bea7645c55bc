//! The tools of the queue: what they print, word by word, and what they do to a spool.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use support::{Server, Setup, free_addresses, until};

/// A server whose mail for elsewhere waits: nobody listens where it is to go.
fn start() -> Server {
    let [nobody] = free_addresses();
    let mail = format!("relay-to = \"{nobody}\"\n");
    Server::start(&Setup { mail, ..Setup::default() })
}

/// A folder with mail to import: three messages, one of them large.
fn mail() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let large = format!("Subject: two\n\n{}", "a line of a large message\n".repeat(20_000));
    for (name, content) in [
        ("a", "Subject: one\r\n\r\nfirst needle\r\n"),
        ("b", &*large),
        ("c", "Subject: three\n\nthird\n"),
    ] {
        std::fs::write(folder.path().join(name).with_extension("eml"), content).unwrap();
    }
    folder
}

/// Imports a file; returns its new id.
#[track_caller]
fn import(server: &Server, file: &Path, from: &str, to: &[&str]) -> String {
    let mut arguments = vec!["queue", "import", "--json", "--from", from];
    arguments.extend(to.iter().flat_map(|to| ["--to", to]));
    arguments.push(file.to_str().unwrap());
    let lines: serde_json::Value = serde_json::from_str(&server.must(&arguments)).unwrap();
    lines[0]["id"].as_str().unwrap().to_owned()
}

/// The three messages, tried once in vain each.
fn fill(server: &Server) -> [String; 3] {
    let folder = mail();
    let file = |name: &str| folder.path().join(name).with_extension("eml");
    let ids = [
        import(server, &file("a"), "anna@one.test", &["x@far.test"]),
        import(server, &file("b"), "bob@two.test", &["y@far.test", "z@other.test"]),
        import(server, &file("c"), "<>", &["x@far.test"]),
    ];
    let tried =
        || json(server, &["queue", "list", "--in-state", "new", "--json"]) == serde_json::json!([]);
    assert!(until(tried), "{}", server.log());
    ids
}

fn json(server: &Server, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&server.must(arguments)).unwrap()
}

/// What a command printed and complained, with its exit code unless that is 0. Ids, times, folders
/// and what depends on how often a delivery was tried are told by names, and columns by one space.
fn told(server: &Server, ids: &[String], arguments: &[&str]) -> String {
    let output = server.command(arguments);
    let mut text = String::from_utf8(output.stdout).unwrap();
    text.push_str(&String::from_utf8(output.stderr).unwrap());
    if !output.status.success() {
        writeln!(text, "exit {}", output.status.code().unwrap()).unwrap();
    }
    for (id, name) in ids.iter().zip(["ID-A", "ID-B", "ID-C"]) {
        text = text.replace(id, name);
    }
    text = text.replace(&server.state().display().to_string(), "STATE");
    let lines = text.lines().map(|line| {
        let mut words: Vec<_> = line.split_whitespace().map(plain).collect();
        for at in 1..words.len() {
            if words[at].starts_with("records") || matches!(&*words[at], "try," | "tries,") {
                words[at] = words[at].replace("try", "tries");
                let open = if words[at - 1].starts_with('(') { "(" } else { "" };
                words[at - 1] = format!("{open}N");
            }
        }
        words.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A word without what differs from run to run.
fn plain(word: &str) -> String {
    let digits = word.chars().take_while(char::is_ascii_digit).count();
    let is_date = digits == 4 && word.trim_end_matches(':').ends_with('Z');
    match &word[digits..] {
        "s" | "m" if digits > 0 => "AGE".into(),
        _ if is_date => "TIME".into(),
        _ if word.starts_with("127.0.0.1:") => "HOST".into(),
        _ => word.into(),
    }
}

/// The ids that a filter finds.
fn found(server: &Server, filter: &[&str]) -> Vec<String> {
    let list = json(server, &[&["queue", "list", "--json"], filter].concat());
    list.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_filter_finds_what_it_names() {
    let server = start();
    let ids = fill(&server);
    let [a, b, c] = &ids;
    server.must(&["queue", "hold", c]);
    let cases: [(&[&str], &[&String]); 17] = [
        (&[], &[a, b, c]),
        (&["--sender", "Anna@one.test"], &[a]),
        (&["--sender", "@two.test"], &[b]),
        (&["--sender", "<>"], &[c]),
        (&["--recipient", "z@other.test"], &[b]),
        (&["--recipient", "@far.test"], &[a, b, c]),
        (&["--domain", "one.test"], &[a]),
        (&["--domain", "other.test"], &[b]),
        (&["--older", "1h"], &[]),
        (&["--newer", "1h"], &[a, b, c]),
        (&["--larger", "1KiB"], &[b]),
        (&["--smaller", "1KiB"], &[a, c]),
        (&["--in-state", "held"], &[c]),
        (&["--in-state", "deferred"], &[a, b, c]),
        (&["--in-state", "failed"], &[]),
        (&["--recipient", "x@far.test", "--sender", "<>"], &[c]),
        (&["--recipient", "x@far.test", "--larger", "1MiB"], &[]),
    ];
    for (filter, expected) in cases {
        assert_eq!(found(&server, filter).iter().collect::<Vec<_>>(), expected, "{filter:?}");
    }
    insta::assert_snapshot!(told(&server, &ids, &["queue", "list", "--sender", "one.test"]), @r"
        error: invalid value 'one.test' for '--sender <ADDRESS>': write a whole address, or @domain for all of a domain

        For more information, try '--help'.
        exit 64
        ");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "list"]), @r"
        ID AGE SIZE FROM TO STATE
        ID-A AGE 27 B <anna@one.test> x@far.test next try in AGE (N tries, last: cannot connect to the relay HOST Connection refused (os error 111))
        ID-B AGE 507 KiB <bob@two.test> y@far.test next try in AGE (N tries, last: cannot connect to the relay HOST Connection refused (os error 111))
        ID-B AGE 507 KiB <bob@two.test> z@other.test next try in AGE (N tries, last: cannot connect to the relay HOST Connection refused (os error 111))
        ID-C AGE 22 B <> x@far.test held (N tries, last: cannot connect to the relay HOST Connection refused (os error 111))
        3 messages, 4 recipients waiting or failed, 507 KiB
        ");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "list", "--older", "1h"]), @"No message in the queue is like that.");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "show", b]), @r"
        message ID-B
        received TIME
        from <bob@two.test>
        size 507 KiB
        client none: this host wrote it
        session import
        to y@far.test: next try in AGE (N tries, last: cannot connect to the relay HOST Connection refused (os error 111))
        last try TIME 4.4.1
        to z@other.test: next try in AGE (N tries, last: cannot connect to the relay HOST Connection refused (os error 111))
        last try TIME 4.4.1
        ");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "cat", c]), @r"
        Subject: three

        third
        ");
}

#[test]
fn a_dry_run_changes_nothing_and_a_sweep_needs_a_word() {
    let server = start();
    let ids = fill(&server);
    let [a, b, c] = &ids;
    let before = server.must(&["queue", "list", "--json"]);
    for verb in ["retry", "hold", "release", "return", "delete"] {
        let dry = told(&server, &ids, &["queue", verb, "--all", "--dry-run"]);
        let expected = if verb == "release" { "Dry run: 0" } else { "Dry run: 3" };
        assert!(dry.contains(expected), "{verb}: {dry}");
    }
    assert_eq!(server.must(&["queue", "list", "--json"]), before);
    let delete = ["queue", "delete", "--sender", "@one.test"];
    insta::assert_snapshot!(told(&server, &ids, &[&delete[..], &["--dry-run"]].concat()), @r"
        ID AGE SIZE FROM TO STATE
        ID-A AGE 27 B <anna@one.test> x@far.test next try in AGE (N tries, last: cannot connect to the relay HOST Connection refused (os error 111))
        1 message, 1 recipient waiting or failed, 27 B
        Dry run: 1 message would be deleted.
        ");
    insta::assert_snapshot!(told(&server, &ids, &delete), @r"
        error: this would delete all messages that the filters name
        help: look at them with --dry-run; add --yes if that is what you want
        exit 64
        ");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "hold"]), @r"
        error: this names no message
        help: name ids or a filter, such as --domain example.org, or --all
        exit 64
        ");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "hold", a, "--domain", "far.test"]), @r"
        error: the argument '[IDS]...' cannot be used with '--domain <DOMAIN>'

        Usage: lamppost queue hold <IDS>...

        For more information, try '--help'.
        exit 64
        ");
    assert_eq!(server.must(&["queue", "list", "--json"]), before);
    insta::assert_snapshot!(told(&server, &ids, &["queue", "hold", "--domain", "far.test"]), @"3 messages held.");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "hold", a]), @r"
        error: nothing was held: no such message, or it was so before
        exit 65
        ");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "release", a, b]), @"2 messages released.");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "release", c, "--json"]), @r#"
        {
        "changed": 1
        }
        "#);
    insta::assert_snapshot!(told(&server, &ids, &[&delete[..], &["--yes"]].concat()), @"1 message deleted.");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "return", b]), @"1 message returned.");
    // The bounce for bob is in the queue in its place, or has gone the same way as its message.
    assert!(until(|| found(&server, &["--recipient", "bob@two.test"]).len() == 1));
}

/// The content of a message in the queue.
fn content(server: &Server, id: &str) -> Vec<u8> {
    server.command(&["queue", "cat", id]).stdout
}

#[test]
fn what_is_exported_is_imported_byte_for_byte() {
    use std::os::unix::fs::PermissionsExt;
    let mut server = start();
    let ids = fill(&server);
    let contents = ids.each_ref().map(|id| content(&server, id));
    assert_eq!(contents[0], b"Subject: one\n\nfirst needle\n");
    let folder = tempfile::tempdir().unwrap();
    let (online, offline) = (folder.path().join("online"), folder.path().join("offline"));
    let target = |path: &Path| path.to_str().unwrap().to_owned();
    server.must(&["queue", "export", &target(&online)]);
    for (id, content) in ids.iter().zip(&contents) {
        let file = online.join(id).with_extension("eml");
        assert_eq!(&std::fs::read(&file).unwrap(), content);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let again = told(&server, &ids, &["queue", "export", &target(&online), "--sender", "<>"]);
    let again = again.replace(&target(&online), "DIR");
    insta::assert_snapshot!(again, @r"
        0 messages exported to DIR.
        error: DIR/ID-C.eml is there already
        error: 1 message could not be exported
        exit 65
        ");

    server.stop();
    let told_so = told(&server, &ids, &["queue", "export", &target(&offline), "--smaller", "1KiB"]);
    insta::assert_snapshot!(told_so.replace(&target(&offline), "DIR"), @r"
        2 messages exported to DIR.
        lamppost is not running; reading STATE/spool itself
        ");
    let file = |id: &String| PathBuf::from(id).with_extension("eml");
    for id in [&ids[0], &ids[2]] {
        assert_eq!(
            std::fs::read(offline.join(file(id))).unwrap(),
            std::fs::read(online.join(file(id))).unwrap()
        );
    }

    server.launch();
    server.must(&["queue", "delete", "--all", "--yes"]);
    let imported = json(&server, &["queue", "import", "--json", &target(&online)]);
    for ((line, content), count) in
        imported.as_array().unwrap().iter().zip(&contents).zip([1, 2, 1])
    {
        let id = line["id"].as_str().unwrap();
        assert_eq!(&self::content(&server, id), content);
        let shown = json(&server, &["queue", "show", "--json", id]);
        assert_eq!(shown["recipients"].as_array().unwrap().len(), count);
    }
    assert_eq!(found(&server, &["--sender", "<>"]).len(), 1);
}

#[test]
fn what_cannot_be_imported_is_named_and_the_rest_is_imported() {
    let server = start();
    let folder = mail();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("b.json"), "{}").unwrap();
    let held = serde_json::json!({
        "id": "0000000000001", "sender": "s@one.test", "size": 1, "origin": null, "fault": null,
        "held": true, "recipients": [
            { "address": "had@far.test", "state": "delivered", "last": null, "attempts": 0 },
            { "address": "waits@far.test", "state": "failed", "last": null, "attempts": 3 },
        ],
    });
    std::fs::write(path("c.json"), held.to_string()).unwrap();
    let folder_name = path("");
    let folder_name = folder_name.trim_end_matches('/');
    let told = |arguments: &[&str]| {
        told(&server, &[], &[&["queue", "import"], arguments].concat()).replace(folder_name, "DIR")
    };
    insta::assert_snapshot!(told(&[folder_name]), @r"
        error: DIR/a.eml has no .json file beside it that says the envelope
        help: say it with --from
        exit 64
        ");
    insta::assert_snapshot!(told(&[folder_name, "--keep-going"]), @r"
        0 messages imported.
        error: DIR/a.eml has no .json file beside it that says the envelope
        error: DIR/b.json is no exported envelope: missing field `id` at line 1 column 2
        error: DIR/c.eml was held when it was exported
        error: 3 files could not be imported
        exit 65
        ");
    assert_eq!(found(&server, &[]).len(), 0);
    insta::assert_snapshot!(told(&["--include-held", "--dry-run", &path("c.eml")]), @r"
        DIR/c.eml: for 1 recipient
        1 message would be imported.
        ");
    server.must(&["queue", "import", "--include-held", &path("c.eml")]);
    let list = json(&server, &["queue", "list", "--json"]);
    assert_eq!(list[0]["recipients"].as_array().unwrap().len(), 1);
    assert_eq!(list[0]["recipients"][0]["address"], "waits@far.test");
}

#[test]
fn bulk_changes_go_through_a_long_queue() {
    let server = start();
    let folder = tempfile::tempdir().unwrap();
    for number in 0..1100 {
        let path = folder.path().join(format!("{number}.eml"));
        std::fs::write(path, format!("Subject: {number}\n\nx\n")).unwrap();
    }
    let folder = folder.path().to_str().unwrap();
    let arguments = ["queue", "import", "--from", "s@one.test", "--to", "r@far.test", folder];
    assert!(server.must(&arguments).ends_with("1100 messages imported.\n"));
    assert_eq!(found(&server, &[]).len(), 1100);
    assert_eq!(server.must(&["queue", "hold", "--all"]), "1100 messages held.\n");
    let list = server.must(&["queue", "list", "--in-state", "held"]);
    assert_eq!(list.lines().count(), 1102);
    assert!(list.ends_with("1100 messages, 1100 recipients waiting or failed, 17 KiB\n"), "{list}");
    let delete = ["queue", "delete", "--domain", "one.test", "--yes"];
    assert_eq!(server.must(&delete), "1100 messages deleted.\n");
    assert_eq!(server.must(&["queue"]), "The queue is empty.\n");
}

/// The first segment that holds these bytes, and where.
fn find(server: &Server, needle: &[u8]) -> (PathBuf, usize) {
    let found = support::files(&server.state().join("spool/log")).into_iter().find_map(|path| {
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(needle.len()).position(|window| window == needle)?;
        Some((path, at))
    });
    found.unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

fn check(server: &Server, ids: &[String], arguments: &[&str]) -> String {
    told(server, ids, &[&["queue", "check"], arguments].concat())
}

/// A spool with three messages, of a program that does not run.
fn stopped() -> (Server, [String; 3]) {
    let mut server = start();
    let ids = fill(&server);
    server.stop();
    (server, ids)
}

#[test]
fn a_spool_is_sound_and_is_told_so_when_nobody_holds_it() {
    let mut server = start();
    let ids = fill(&server);
    let pid = server.pid().to_string();
    insta::assert_snapshot!(check(&server, &ids, &[]).replace(&pid, "PID"), @r"
        error: the spool STATE/spool is held by process PID; stop that one first
        help: this reads the spool of a program that does not run; of a running one, `lamppost status` tells whether the spool is well
        exit 69
        ");
    server.stop();
    let sound = check(&server, &ids, &[]);
    assert!(sound.ends_with("The spool is sound."), "{sound}");
    assert!(sound.contains("queue 3 messages, 507 KiB, 1 in files of their own"), "{sound}");
    let report = json(&server, &["queue", "check", "--json"]);
    assert_eq!(report["messages"], 3);
}

#[test]
fn a_flipped_bit_in_a_record_costs_that_message_and_no_other() {
    let (mut server, ids) = stopped();
    let (segment, at) = find(&server, b"first needle");
    flip(&segment, at);
    insta::assert_snapshot!(check(&server, &ids, &[]), @r"
        spool STATE/spool
        log 1 segment with N records, 1 made ahead
        queue 3 messages, 507 KiB, 1 in files of their own

        DAMAGE log/0000000001.seg: 155 bytes from 1024 on are damaged
        --repair copies them to quarantine/ and writes what is whole again elsewhere

        DAMAGE log/0000000001.seg: the record number 1 is missing
        what was in there is unknown; --repair goes on without it

        DAMAGE log/0000000001.seg: message ID-A is lost: its record at 1024 is damaged
        --repair writes what is known of it to quarantine/ and forgets it
        error: the spool is damaged
        help: copy the spool's folder elsewhere, then `lamppost queue check --repair`
        exit 65
        ");
    assert_eq!(server.command(&["queue", "check", "--json"]).status.code(), Some(65));
    let repaired = check(&server, &ids, &["--repair"]);
    insta::assert_snapshot!(repaired, @r"
        spool STATE/spool
        log 1 segment with N records, 1 made ahead
        queue 3 messages, 507 KiB, 1 in files of their own

        DAMAGE log/0000000001.seg: 155 bytes from 1024 on are damaged
        --repair copies them to quarantine/ and writes what is whole again elsewhere

        DAMAGE log/0000000001.seg: the record number 1 is missing
        what was in there is unknown; --repair goes on without it

        DAMAGE log/0000000001.seg: message ID-A is lost: its record at 1024 is damaged
        --repair writes what is known of it to quarantine/ and forgets it

        Repair:
        copied a damaged part of segment 1 to quarantine/0000000001-1024.damaged
        gave up message ID-A (its record at 1024 is damaged); see quarantine/ID-A.json
        wrote 2 whole messages again out of damaged segments
        wrote a new checkpoint
        removed log/0000000001.seg, which nothing needs any more
        1 message lost.
        The spool is sound now.
        ");
    let sound = check(&server, &ids, &[]);
    assert!(sound.ends_with("The spool is sound."), "{sound}");
    let envelope = server.state().join("spool/quarantine").join(&ids[0]).with_extension("json");
    let envelope = std::fs::read_to_string(envelope).unwrap();
    assert!(envelope.contains("x@far.test") && envelope.contains("anna@one.test"), "{envelope}");
    server.launch();
    assert_eq!(found(&server, &[]), ids[1..]);
    assert_eq!(content(&server, &ids[2]), b"Subject: three\n\nthird\n");
}

#[test]
fn a_damaged_header_is_written_again_from_its_copy() {
    let (server, ids) = stopped();
    let (segment, _) = find(&server, b"first needle");
    flip(&segment, 520);
    insta::assert_snapshot!(check(&server, &ids, &[]), @r"
        spool STATE/spool
        log 1 segment with N records, 1 made ahead
        queue 3 messages, 507 KiB, 1 in files of their own

        DAMAGE log/0000000001.seg: one of the two copies of its header is damaged
        --repair writes it again from the other
        error: the spool is damaged
        help: copy the spool's folder elsewhere, then `lamppost queue check --repair`
        exit 65
        ");
    let repaired = check(&server, &ids, &["--repair"]);
    assert!(repaired.ends_with("The spool is sound now."), "{repaired}");
    assert!(check(&server, &ids, &[]).ends_with("The spool is sound."));
}

#[test]
fn a_segment_without_a_header_costs_its_messages_and_they_are_named() {
    let (mut server, ids) = stopped();
    let (segment, _) = find(&server, b"first needle");
    flip(&segment, 8);
    flip(&segment, 520);
    let damaged = check(&server, &ids, &[]);
    assert_eq!(damaged.matches("is lost: its segment is lost").count(), 3, "{damaged}");
    let repaired = check(&server, &ids, &["--repair"]);
    assert!(repaired.ends_with("3 messages lost.\nThe spool is sound now."), "{repaired}");
    let quarantine = support::files(&server.state().join("spool/quarantine"));
    // The segment, three envelopes, and the large content.
    assert_eq!(quarantine.len(), 5, "{quarantine:?}");
    server.launch();
    assert_eq!(found(&server, &[]).len(), 0);
}

#[test]
fn a_damaged_checkpoint_is_written_again() {
    let (mut server, ids) = stopped();
    flip(&server.state().join("spool/checkpoint"), 60);
    let damaged = check(&server, &ids, &[]);
    assert!(damaged.contains("DAMAGE checkpoint: the checkpoint is damaged"), "{damaged}");
    let repaired = check(&server, &ids, &["--repair"]);
    assert!(repaired.ends_with("The spool is sound now."), "{repaired}");
    server.launch();
    assert_eq!(found(&server, &[]), ids);
}

#[test]
fn a_content_that_is_not_there_costs_its_message() {
    let (server, ids) = stopped();
    std::fs::remove_file(server.state().join("spool/bodies").join(&ids[1])).unwrap();
    insta::assert_snapshot!(check(&server, &ids, &[]), @r"
        spool STATE/spool
        log 1 segment with N records, 1 made ahead
        queue 3 messages, 507 KiB, 0 in files of their own

        DAMAGE bodies/ID-B: message ID-B is lost: its content is not there
        --repair writes what is known of it to quarantine/ and forgets it
        error: the spool is damaged
        help: copy the spool's folder elsewhere, then `lamppost queue check --repair`
        exit 65
        ");
    let repaired = check(&server, &ids, &["--repair"]);
    assert!(repaired.ends_with("1 message lost.\nThe spool is sound now."), "{repaired}");
}

#[test]
fn a_spool_of_a_newer_format_is_left_alone() {
    let (server, ids) = stopped();
    let checkpoint = server.state().join("spool/checkpoint");
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    bytes[7] = b'9';
    std::fs::write(&checkpoint, &bytes).unwrap();
    insta::assert_snapshot!(check(&server, &ids, &["--repair"]), @r"
        error: STATE/spool/checkpoint has a format that only a newer version knows; use that version, or move the file away
        exit 65
        ");
    assert_eq!(std::fs::read(&checkpoint).unwrap(), bytes);
}

/// A torn write and its numbers, given again, must not look like damage.
#[test]
fn a_program_that_was_killed_leaves_a_sound_spool() {
    let mut server = start();
    let folder = tempfile::tempdir().unwrap();
    for number in 0..400 {
        let path = folder.path().join(format!("{number}.eml"));
        std::fs::write(path, format!("Subject: {number}\n\nx\n")).unwrap();
    }
    let folder = folder.path().to_str().unwrap();
    let arguments = [
        "queue",
        "import",
        "--from",
        "s@one.test",
        "--to",
        "r@far.test",
        "--to",
        "demo@lamppost.test",
        folder,
    ];
    let new = server.maildir("demo@lamppost.test").join("new");
    for round in 1..=3 {
        let before = support::files(&new).len();
        std::thread::scope(|scope| {
            let importing = scope.spawn(|| server.command(&arguments));
            assert!(until(|| support::files(&new).len() > before + 50), "{}", server.log());
            support::signal(server.pid(), "KILL");
            assert!(!importing.join().unwrap().status.success(), "it was killed while importing");
        });
        server.kill();
        let checked = check(&server, &[], &[]);
        assert!(checked.ends_with("The spool is sound."), "round {round}: {checked}");
        server.launch();
    }
}
