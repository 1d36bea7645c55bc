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
    let tried = || found(server, &["--in-state", "deferred"]).len() == 3;
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
            let is_count = words[at - 1].bytes().all(|byte| byte.is_ascii_digit());
            let is_counted = matches!(words[at].trim_end_matches(','), "records" | "try" | "tries");
            if is_count && is_counted {
                words[at] = words[at].replace("try", "tries");
                words[at - 1] = "N".into();
            }
        }
        words.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A word without what differs from run to run.
fn plain(word: &str) -> String {
    if word.starts_with("import-") {
        return "import-SUM".into();
    }
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
        ID-A AGE 27 B <anna@one.test> x@far.test deferred, N tries, next in AGE
        ID-B AGE 507 KiB <bob@two.test> y@far.test deferred, N tries, next in AGE
        ID-B AGE 507 KiB <bob@two.test> z@other.test deferred, N tries, next in AGE
        ID-C AGE 22 B <> x@far.test held, deferred, N tries
        3 messages, 4 recipients waiting or failed, 507 KiB; `lamppost queue show ID` tells why
        ");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "list", "--older", "1h"]), @"No message in the queue matches.");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "show", b]), @r"
        message ID-B
        received TIME
        from <bob@two.test>
        size 507 KiB
        client none: it was imported
        session import-SUM
        to y@far.test: deferred, N tries, next in AGE
        last try TIME 4.4.1 cannot connect to the relay HOST Connection refused (os error 111)
        to z@other.test: deferred, N tries, next in AGE
        last try TIME 4.4.1 cannot connect to the relay HOST Connection refused (os error 111)
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
        let expected = match verb {
            "release" => "Dry run: 0",
            // One has no sender to return it to.
            "return" => "Dry run: 2",
            _ => "Dry run: 3",
        };
        assert!(dry.contains(expected), "{verb}: {dry}");
    }
    assert_eq!(server.must(&["queue", "list", "--json"]), before);
    let delete = ["queue", "delete", "--sender", "@one.test"];
    insta::assert_snapshot!(told(&server, &ids, &[&delete[..], &["--dry-run"]].concat()), @r"
        ID AGE SIZE FROM TO STATE
        ID-A AGE 27 B <anna@one.test> x@far.test deferred, N tries, next in AGE
        1 message, 1 recipient waiting or failed, 27 B; `lamppost queue show ID` tells why
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
        ID-A: is held already
        0 messages held.
        ");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "release", a, b]), @"2 messages released.");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "release", c, "--json"]), @r#"
        {
        "changed": 1,
        "held": 0,
        "unknown": [],
        "unchanged": []
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
    std::fs::write(path("d.eml"), "").unwrap();
    let folder_name = path("");
    let folder_name = folder_name.trim_end_matches('/');
    let ids = || found(&server, &[]);
    let told = |arguments: &[&str]| {
        let ids = found(&server, &[]);
        told(&server, &ids, &[&["queue", "import"], arguments].concat()).replace(folder_name, "DIR")
    };
    insta::assert_snapshot!(told(&[folder_name]), @r"
        0 messages imported, 4 refused.
        error: DIR/a.eml: there is no DIR/a.json that says the envelope
        help: say it with --from and --to
        error: DIR/b.eml: DIR/b.json is no exported envelope (line 1, column 2): it must have `id`, `sender`, `size`, `held` and `recipients`, a list in which each has `address`, `state` and `attempts`
        help: compare it with what `lamppost queue export` writes, or say the envelope with --from and --to, which are used instead
        error: DIR/c.eml: it was held when it was exported
        help: import it with --include-held if it may be delivered now
        error: DIR/d.eml: it is empty
        error: 4 files were refused
        exit 65
        ");
    assert_eq!(ids().len(), 0);
    insta::assert_snapshot!(told(&["--include-held", "--dry-run", &path("c.eml")]), @r"
        DIR/c.eml: for 1 recipient
        1 message would be imported.
        ");
    let all = ["--from", "s@one.test", "--to", "r@far.test", folder_name, &path("none.eml")];
    let imported = told(&[&["--include-held"], &all[..]].concat());
    // What the command line says stands for an envelope that cannot be read.
    assert!(imported.contains("3 messages imported, 2 refused."), "{imported}");
    // What was refused is refused again, and what is there is left out.
    insta::assert_snapshot!(told(&[&["--include-held"], &all[..]].concat()), @r"
        DIR/a.eml: there already as ID-A: it was imported TIME
        DIR/b.eml: there already as ID-B: it was imported TIME
        DIR/c.eml: there already as ID-C: it was imported TIME
        0 messages imported, 3 there already, 2 refused.
        error: DIR/d.eml: it is empty
        error: DIR/none.eml: cannot read DIR/none.eml: No such file or directory (os error 2)
        error: 2 files were refused
        exit 65
        ");
    assert_eq!(ids().len(), 3);
    std::fs::write(path("b.json"), "{ \"id\": ").unwrap();
    let torn = told(&[&path("b.eml")]);
    assert!(torn.contains("DIR/b.json is no JSON (line 1, column 8)"), "{torn}");
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    insta::assert_snapshot!(told(&[empty]).replace(empty, "EMPTY"), @r"
        0 messages imported, 1 refused.
        error: EMPTY: there is no .eml file in this folder
        help: name files with other endings one by one
        error: 1 file was refused
        exit 65
        ");
}

#[test]
fn an_import_that_is_repeated_doubles_nothing() {
    let server = start();
    let ids = fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    server.must(&["queue", "export", folder]);
    let imported = |arguments: &[&str]| {
        let arguments = [&["queue", "import", folder], arguments].concat();
        told(&server, &ids, &arguments).replace(folder, "DIR")
    };
    // All is still in the queue.
    insta::assert_snapshot!(imported(&[]), @r"
        DIR/ID-A.eml: there already as ID-A: it is in the queue
        DIR/ID-B.eml: there already as ID-B: it is in the queue
        DIR/ID-C.eml: there already as ID-C: it is in the queue
        0 messages imported, 3 there already.
        ");
    server.must(&["queue", "delete", &ids[0], &ids[1]]);
    let report = json(&server, &["queue", "import", "--json", folder]);
    let outcomes: Vec<_> =
        report.as_array().unwrap().iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["imported", "imported", "there-already"]);
    assert_eq!(found(&server, &[]).len(), 3);
    // What was imported is remembered when it has left the queue, too.
    let new = report[0]["id"].as_str().unwrap();
    server.must(&["queue", "delete", new]);
    let again = imported(&[]).replace(new, "ID-NEW");
    assert!(
        again.contains("DIR/ID-A.eml: there already as ID-NEW: it was imported TIME"),
        "{again}"
    );
    assert!(again.ends_with("0 messages imported, 3 there already."), "{again}");
    // Without its memory, what is in the queue is found there.
    for file in support::files(Path::new(folder)) {
        if file.extension().is_some_and(|end| end == "imported") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let found_there = imported(&[]);
    assert!(found_there.ends_with("1 message imported, 2 there already."), "{found_there}");
    assert!(imported(&["--again"]).ends_with("3 messages imported."));
    assert_eq!(found(&server, &[]).len(), 6);
}

#[test]
fn one_file_for_others_is_another_message() {
    let server = start();
    let folder = mail();
    let file = folder.path().join("a.eml");
    let file = file.to_str().unwrap();
    let import = |to: &[&str]| {
        let to = to.iter().flat_map(|to| ["--to", to]);
        let arguments = ["queue", "import", "--json", "--from", "a@one.test", file];
        json(&server, &arguments.into_iter().chain(to).collect::<Vec<_>>())[0].clone()
    };
    assert_eq!(import(&["x@far.test"])["outcome"], "imported");
    assert_eq!(import(&["x@far.test"])["outcome"], "there-already");
    // Who has it is left out.
    let more = import(&["x@far.test", "y@far.test"]);
    assert_eq!((&more["outcome"], &more["recipients"]), (&"imported".into(), &1.into()));
    assert_eq!(found(&server, &["--recipient", "x@far.test"]).len(), 1);
    // A pattern of a shell names the envelopes too.
    let all = ["queue", "import", "--from", "<>", "--to", "z@far.test", file];
    let memory = file.replace(".eml", ".imported");
    let told = server.must(&[&all[..], &[&memory]].concat());
    assert!(told.ends_with("1 message imported.\n"), "{told}");
}

#[test]
fn ids_that_name_nothing_are_told_and_doubles_are_one() {
    let server = start();
    let ids = fill(&server);
    let [a, b, c] = &ids;
    let nobody = "0000000000007";
    insta::assert_snapshot!(told(&server, &ids, &["queue", "hold", a, nobody, a]), @r"
        0000000000007: no message in the queue has this id
        1 message held.
        error: 1 message not held
        help: `lamppost queue` lists what is in the queue, `lamppost log ID` what became of the rest
        exit 65
        ");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "retry", a, b]), @r"
        1 message is held: it is tried after `lamppost queue release`.
        1 message retried.
        ");
    assert_eq!(found(&server, &["--in-state", "held"]), std::slice::from_ref(a));
    insta::assert_snapshot!(told(&server, &ids, &["queue", "return", c]), @r"
        ID-C: has no sender whom it could be returned to, as bounces have none; `lamppost queue delete` removes it
        0 messages returned.
        error: 1 message not returned
        help: `lamppost queue` lists what is in the queue, `lamppost log ID` what became of the rest
        exit 65
        ");
    assert_eq!(found(&server, &["--sender", "<>"]), std::slice::from_ref(c));
    insta::assert_snapshot!(told(&server, &ids, &["queue", "delete", nobody, "--dry-run"]), @r"
        0000000000007: no message in the queue has this id
        Dry run: 0 messages would be deleted.
        error: 1 message would not be deleted
        help: `lamppost queue` lists what is in the queue, `lamppost log ID` what became of the rest
        exit 65
        ");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "hold", a, "--dry-run"]), @r"
        ID-A: is held already
        Dry run: 0 messages would be held.
        ");
    let retried = told(&server, &ids, &["queue", "retry", a, "--dry-run"]);
    assert!(retried.contains("1 message is held: it is tried after"), "{retried}");
    assert!(retried.ends_with("Dry run: 0 messages would be retried."), "{retried}");
    insta::assert_snapshot!(told(&server, &ids, &["queue", "release", b, "--json"]), @r#"
        {
        "changed": 0,
        "held": 0,
        "unknown": [],
        "unchanged": [
        {
        "id": "ID-B",
        "why": "so-before"
        }
        ]
        }
        "#);
    for verb in ["show", "cat"] {
        let absent = told(&server, &ids, &["queue", verb, nobody]);
        assert!(absent.contains("`lamppost log 0000000000007` tells"), "{absent}");
    }
    // Options of the list work without its name, and never silently do nothing.
    assert_eq!(json(&server, &["queue", "--json"]).as_array().unwrap().len(), 3);
    assert!(server.must(&["queue", "--sender", "<>"]).contains("1 message, "));
    insta::assert_snapshot!(told(&server, &ids, &["queue", "--json", "hold", "--all"]), @r"
        error: an option stands before the verb of `queue`
        help: write it behind: `lamppost queue VERB OPTIONS`
        exit 64
        ");
}

#[test]
fn a_retry_tells_what_is_being_delivered() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a relay that takes connections and says nothing"
    )]
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mail = format!("relay-to = \"{}\"\n", silent.local_addr().unwrap());
    let server = Server::start(&Setup { mail, ..Setup::default() });
    let folder = self::mail();
    let id = import(&server, &folder.path().join("a.eml"), "s@one.test", &["x@far.test"]);
    assert!(until(|| found(&server, &["--in-state", "delivering"]).len() == 1));
    let ids = [id.clone()];
    let retried =
        |arguments: &[&str]| told(&server, &ids, &[&["queue", "retry"], arguments].concat());
    insta::assert_snapshot!(retried(&["--all"]), @r"
        0 messages retried.
        1 is being delivered at this moment; it is tried again at once if that fails.
        ");
    insta::assert_snapshot!(retried(&[&id]), @r"
        ID-A: is being delivered at this moment; it is tried again at once if that fails
        0 messages retried.
        ");
    insta::assert_snapshot!(retried(&[&id, "--dry-run"]), @r"
        ID-A: is being delivered at this moment; it is tried again at once if that fails
        Dry run: 0 messages would be retried.
        ");
}

#[test]
fn the_log_tells_the_whole_life_of_a_message() {
    let server = start();
    let [id, ..] = fill(&server);
    for verb in ["hold", "release", "retry"] {
        server.must(&["queue", verb, &id]);
    }
    server.must(&["queue", "return", &id]);
    let bounce = || found(&server, &["--recipient", "anna@one.test"]).pop();
    assert!(until(|| bounce().is_some()), "{}", server.log());
    let bounce = bounce().unwrap();
    server.must(&["queue", "delete", &bounce]);
    let story = |id: &str| {
        let events = json(&server, &["log", "--json", id]);
        let events = events.as_array().unwrap().iter().map(|event| {
            if event["message"].as_str().unwrap().starts_with("message ") {
                assert!(event["by"].is_string(), "{event}");
            }
            event["message"].as_str().unwrap().to_owned()
        });
        events.filter(|message| message != "delivery deferred").collect::<Vec<_>>()
    };
    // The log's own thread writes a moment later.
    assert!(until(|| story(&bounce).last().is_some_and(|last| last == "message deleted")));
    let expected = [
        "message imported",
        "message held",
        "message released",
        "message retried",
        "message returned",
        "sender told of failure",
    ];
    assert_eq!(story(&id), expected);
    assert_eq!(story(&bounce), ["sender told of failure", "message deleted"]);
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
    assert!(list.contains("\n1100 messages, 1100 recipients waiting or failed, 17 KiB"));
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
    // A repair tells the same things when there is nothing to repair.
    let repaired = json(&server, &["queue", "check", "--repair", "--json"]);
    assert_eq!((&repaired["before"], &repaired["repair"]["report"]), (&report, &report));
    assert_eq!(repaired["repair"]["lost"], serde_json::json!([]));
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

        DAMAGE log/0000000001.seg: the content of the record at 1024 is damaged
        --repair writes what is whole again elsewhere

        DAMAGE log/0000000001.seg: message ID-A is lost: its content in the record at 1024 is damaged
        --repair copies what is left of it to quarantine/; the next start gives it up and tells its sender
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

        DAMAGE log/0000000001.seg: the content of the record at 1024 is damaged
        --repair writes what is whole again elsewhere

        DAMAGE log/0000000001.seg: message ID-A is lost: its content in the record at 1024 is damaged
        --repair copies what is left of it to quarantine/; the next start gives it up and tells its sender

        Repair:
        copied what is left of message ID-A (its content in the record at 1024 is damaged) to quarantine/ID-A
        wrote 2 whole messages again out of damaged segments
        wrote a new checkpoint
        removed log/0000000001.seg, which nothing needs any more
        1 message lost; the next start tells its sender.
        The spool is sound now.
        ");
    let sound = check(&server, &ids, &[]);
    assert!(sound.ends_with("The spool is sound."), "{sound}");
    let envelope = server.state().join("spool/quarantine").join(&ids[0]).with_extension("json");
    let envelope = std::fs::read_to_string(envelope).unwrap();
    assert!(envelope.contains("x@far.test") && envelope.contains("anna@one.test"), "{envelope}");
    server.launch();
    // Its sender is told, and the log tells of it.
    let is_told = || server.must(&["log", &ids[0]]).contains("sender told of failure");
    assert!(until(is_told), "{}", server.log());
    assert!(until(|| found(&server, &["--recipient", "anna@one.test"]).len() == 1));
    let log = server.must(&["log", &ids[0]]);
    assert!(log.contains("delivery failed") && log.contains("x@far.test"), "{log}");
    let shown = told(&server, &ids, &["queue", "show", &ids[0]]);
    assert!(shown.contains("FAULT") && shown.contains("to x@far.test: failed,"), "{shown}");
    assert_eq!(found(&server, &[])[..2], ids[1..]);
    let tried = told(&server, &ids, &["queue", "retry", &ids[0], "--dry-run"]);
    assert!(tried.starts_with("ID-A: no message in the queue has this id"), "{tried}");
    // What is left of it can be brought back.
    let quarantine = server.state().join("spool/quarantine");
    let imported = server.must(&["queue", "import", quarantine.to_str().unwrap()]);
    assert!(imported.ends_with("1 message imported.\n"), "{imported}");
    assert_eq!(found(&server, &["--sender", "anna@one.test"]).len(), 1);
    assert_eq!(content(&server, &ids[2]), b"Subject: three\n\nthird\n");
}

/// No checkpoint tells of the message: its record alone does.
#[test]
fn a_content_that_is_damaged_after_a_kill_costs_no_more_than_itself() {
    let mut server = start();
    let ids = fill(&server);
    server.kill();
    let (segment, at) = find(&server, b"first needle");
    flip(&segment, at);
    let damaged = check(&server, &ids, &[]);
    assert!(damaged.contains("message ID-A is lost: its content in the record"), "{damaged}");
    assert!(!damaged.contains("unknown"), "{damaged}");
    server.launch();
    let status = told(&server, &ids, &["status"]);
    assert!(status.contains("message ID-A from <anna@one.test> to x@far.test is"), "{status}");
    let shown = told(&server, &ids, &["queue", "show", &ids[0]]);
    assert!(shown.contains("FAULT its content in segment 1 at"), "{shown}");
    let quarantine = server.state().join("spool/quarantine");
    let left = std::fs::read(quarantine.join(&ids[0]).with_extension("eml")).unwrap();
    assert!(left.starts_with(b"Subject: one\n\n&irst needle"), "{left:?}");
    server.must(&["queue", "retry", &ids[0]]);
    let log = || server.must(&["log", &ids[0]]);
    assert!(until(|| log().contains("sender told of failure")), "{}", server.log());
    assert!(log().contains("is damaged in the spool"), "{}", log());
    assert_eq!(found(&server, &["--recipient", "anna@one.test"]).len(), 1);
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
    let told = "3 messages lost; the next start tells their senders.\nThe spool is sound now.";
    assert!(repaired.ends_with(told), "{repaired}");
    let quarantine = support::files(&server.state().join("spool/quarantine"));
    // The segment, and what is known of each message, what it lay in and its content.
    assert_eq!(quarantine.len(), 10, "{quarantine:?}");
    server.launch();
    // Of the last one nobody is told, since it is a bounce itself: it waits for an administrator.
    assert!(until(|| !found(&server, &[]).iter().any(|id| *id == ids[0] || *id == ids[1])));
    assert_eq!(found(&server, &["--in-state", "failed"]), ids[2..]);
    assert_eq!(found(&server, &["--sender", "<>"]).len(), 3);
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
        --repair copies what is left of it to quarantine/; the next start gives it up and tells its sender
        error: the spool is damaged
        help: copy the spool's folder elsewhere, then `lamppost queue check --repair`
        exit 65
        ");
    let repaired = check(&server, &ids, &["--repair"]);
    let told = "1 message lost; the next start tells its sender.\nThe spool is sound now.";
    assert!(repaired.ends_with(told), "{repaired}");
}

#[test]
fn a_spool_of_a_newer_format_is_left_alone() {
    let (server, ids) = stopped();
    let checkpoint = server.state().join("spool/checkpoint");
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    bytes[7] = b'9';
    // All versions have the sum of a header in one place; without it the letter is damaged.
    let sum = crc32c::crc32c(&bytes[..32]);
    bytes[32..36].copy_from_slice(&sum.to_le_bytes());
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
        "--again",
        folder,
    ];
    let new = server.maildir("demo@lamppost.test").join("new");
    for round in 1..=3 {
        let before = support::files(&new).len();
        std::thread::scope(|scope| {
            let importing = scope.spawn(|| server.command(&arguments));
            assert!(until(|| support::files(&new).len() > before + 50), "{}", server.log());
            server.strike();
            assert!(!importing.join().unwrap().status.success(), "it was killed while importing");
        });
        server.wait();
        let checked = check(&server, &[], &[]);
        assert!(checked.ends_with("The spool is sound."), "round {round}: {checked}");
        server.launch();
    }
}
