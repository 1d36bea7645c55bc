//! Files that are right, and what is said about those that are wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use lamppost_config::{
    Config, Source, explain, explain_section, init_text, placed, reference, similar_key,
};
use proptest::prelude::*;

fn problems(text: &str) -> String {
    Config::parse(text, Path::new("lamppost.toml")).unwrap_err().render(false)
}

#[test]
fn the_demo_is_right() {
    let demo = Config::demo();
    assert_eq!(demo.mail.listen.len(), 6);
    assert_eq!(demo.mail.greylist.delay.as_secs(), 10);
}

#[test]
fn an_empty_file_is_right_and_all_defaults() {
    let config = Config::parse("", Path::new("empty")).unwrap();
    assert!(config.mail.listen.is_empty() && config.mail.greylist.enabled);
    assert!(Config::show("", true).is_empty());
}

#[test]
fn the_file_to_begin_with_is_right_and_says_the_defaults() {
    let mut config = Config::parse(&init_text(), Path::new("init")).unwrap();
    let listen = std::mem::take(&mut config.mail.listen);
    assert_eq!(listen.len(), 1);
    assert_eq!(config, Config::parse("", Path::new("empty")).unwrap());
    // With every key uncommented it says the same.
    let uncommented: Vec<_> = init_text()
        .lines()
        .map(|line| {
            let key = line.strip_prefix('#');
            let key = key.filter(|rest| rest.contains(" = ") && !rest.starts_with(' '));
            key.unwrap_or(line).to_owned()
        })
        .collect();
    let all = Config::parse(&uncommented.join("\n"), Path::new("init")).unwrap();
    assert_eq!(all.mail.listen, listen);
}

#[test]
fn every_key_has_a_text_and_can_be_explained() {
    let keys = reference();
    assert!(keys.len() > 60);
    for key in keys {
        assert!(!key.text.is_empty(), "{} has no text", key.name);
        assert_eq!(explain(&key.name).as_ref(), Some(&key));
    }
    assert_eq!(explain("sessions-max").unwrap().name, "mail.limits.sessions-max");
    assert_eq!(explain("lifetime"), None);
    assert_eq!(explain_section("mail.greylist").len(), 33);
    assert!(explain_section("mail").len() > 50 && explain_section("mial").is_empty());
    assert_eq!(similar_key("mail.greylst").as_deref(), Some("mail.greylist"));
    assert_eq!(similar_key("session-max").as_deref(), Some("mail.limits.sessions-max"));
}

#[test]
fn examples_are_right() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut count = 0;
    for file in std::fs::read_dir(examples).unwrap() {
        let path = file.unwrap().path();
        if let Err(error) = Config::load(&path) {
            panic!("{error}");
        }
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn what_is_changed_is_shown_with_its_line() {
    let text = "[mail]\ndomains = [\"example.org\"]\n[[mail.listen]]\naddress = [\"192.0.2.1:25\"]\ntls = \"off\"\n";
    let shown = Config::show(text, true);
    let lines: Vec<_> = shown
        .iter()
        .map(|entry| match entry.source {
            Source::File { line } => format!("{line} {} = {}", entry.key, entry.value),
            Source::Default => unreachable!(),
        })
        .collect();
    assert_eq!(
        lines,
        [
            "2 mail.domains = [\"example.org\"]",
            "4 mail.listen[0].address = [\"192.0.2.1:25\"]",
            "5 mail.listen[0].tls = \"off\"",
        ]
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "golden text")]
fn all_problems_are_told_at_once() {
    insta::assert_snapshot!(problems(
        "[server]\nhostnam = \"mail.example.org\"\nstop-grace = 20\n\
         [mail.limits]\nmessage-size-max = 26214400\nsessions-max = \"many\"\n\
         [mail.greylist]\nwhen-store-fails = \"acept\"\n\
         [[mail.listen]]\naddress = [\"127.0.0.1\", \"mail.example.org:25\"]\n\
         [[mail.listen]]\naddress = [\"127.0.0.1:25\"]\nkind = \"submission\"\ntls = \"off\"\n\
         [[mail.listen]]\naddress = [\"127.0.0.1:25\"]\ntls = \"off\"\nproxy-protocol-from = [\"10.0.0.0\"]\n"
    ), @r#"
        error: unknown key `hostnam` in `[server]`
         --> lamppost.toml:2:1
          |
        2 | hostnam = "mail.example.org"
          | ^^^^^^^
          |
          = help: did you mean `hostname`?

        error: `stop-grace` is no duration
         --> lamppost.toml:3:14
          |
        3 | stop-grace = 20
          |              ^^
          |
          = help: write a number and a unit in quotes, such as "250ms", "10s", "5m", "4h" or "36d"

        error: `message-size-max` is no size
         --> lamppost.toml:5:20
          |
        5 | message-size-max = 26214400
          |                    ^^^^^^^^
          |
          = help: write a number and a unit in quotes, such as "512B", "64KiB", "25MiB" or "1GiB"

        error: `sessions-max` is not a number that it may be
         --> lamppost.toml:6:16
          |
        6 | sessions-max = "many"
          |                ^^^^^^
          |
          = help: write a whole number from 1 to 1000000000, without quotes

        error: `when-store-fails` is not one of its words
         --> lamppost.toml:8:20
          |
        8 | when-store-fails = "acept"
          |                    ^^^^^^^
          |
          = help: did you mean "accept"? It may be "accept", "defer", "local"

        error: TLS (the default) needs a certificate
         --> lamppost.toml:9:1
          |
        9 | [[mail.listen]]
          | ^^^^^^^^^^^^^^^
          |
          = help: name `certificate` and `key` in `[tls]`, or set `tls = "off"` here

        error: `address` has an entry that is no address to listen on
          --> lamppost.toml:10:12
           |
        10 | address = ["127.0.0.1", "mail.example.org:25"]
           |            ^^^^^^^^^^^
           |
           = help: a port is missing: "127.0.0.1:25"

        error: `address` has an entry that is no address to listen on
          --> lamppost.toml:10:25
           |
        10 | address = ["127.0.0.1", "mail.example.org:25"]
           |                         ^^^^^^^^^^^^^^^^^^^^^
           |
           = help: write an IP address and a port, such as "192.0.2.1:25" or "[2001:db8::1]:25"; names are not looked up, so that nothing else is ever bound

        error: submission without TLS can authenticate nobody
          --> lamppost.toml:14:7
           |
        14 | tls = "off"
           |       ^^^^^
           |
           = help: set `tls = "starttls"` or `"implicit"`, or allow passwords to be overheard with `plaintext-auth = true`

        error: 127.0.0.1:25 is listened on twice
          --> lamppost.toml:16:11
           |
        16 | address = ["127.0.0.1:25"]
           |           ^^^^^^^^^^^^^^^^
           |
           = help: remove one of the two

        error: `proxy-protocol-from` has an entry that is no network
          --> lamppost.toml:18:24
           |
        18 | proxy-protocol-from = ["10.0.0.0"]
           |                        ^^^^^^^^^^
           |
           = help: write an address and a prefix length, such as "192.0.2.0/24" or "2001:db8::/32"
        "#);
}

#[test]
fn lists_in_the_dns_are_checked() {
    let check = |text: &str, expected: &str| {
        let told = problems(text);
        assert!(told.contains(expected), "{text}: {told}");
        assert_eq!(told.matches("error: ").count(), 1, "{text}: {told}");
    };
    let list = "[[mail.dns-list]]\nzone = \"a.test\"\n";
    check("[[mail.dns-list]]\n", "a list has no zone");
    check("[[mail.dns-list]]\nzone = \"a b\"\n", "`zone` is no domain name");
    let long = format!("[[mail.dns-list]]\nzone = \"{}test\"\n", "list.".repeat(40));
    check(&long, "`zone` is no zone of a list");
    check(&list.repeat(2), "a.test is asked twice");
    check(&format!("{list}kind = \"blok\"\n"), "did you mean \"block\"?");
    check(&format!("{list}weight = 0\n"), "write a whole number from 1 to 1000");
    check(&format!("{list}answers = []\n"), "a list of which no answer counts");
    for wrong in ["192.0.2.1", "127.0.0.1/8", "127.0.0.9-2", "0.0.0.0/0"] {
        let text = format!("{list}answers = [\"127.0.0.2\", \"{wrong}\"]\n");
        check(&text, "`answers` has an entry that is no answer of a list");
    }
    check(&format!("{list}text = \"a\\r\\n250 b\"\n"), "`text` is no text for a reply");
    check(
        &format!("{list}[mail.dns-lists]\nthreshold = 2\n"),
        "no client would ever be refused: the weights of all blocklists are 1 together",
    );
    let many: Vec<_> =
        (0..65).map(|n| format!("[[mail.dns-list]]\nzone = \"l{n}.test\"\n")).collect();
    check(&many.concat(), "more than 64 lists cannot be asked");
    check("[dns]\nservers = [\"ns.example.org\"]\n", "is no address of a name server");
    let dns = Config::parse("[dns]\nservers = [\"192.0.2.1\", \"[::1]:5353\"]\n", Path::new("x"));
    let servers = dns.unwrap().dns.servers;
    let shown: Vec<_> = servers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["192.0.2.1:53", "[::1]:5353"]);
}

#[test]
fn syntax_errors_have_their_place() {
    insta::assert_snapshot!(problems("[server\nhostname = mail\n"), @r"
        error: unclosed table, expected `]`
         --> lamppost.toml:1:8
          |
        1 | [server
          |        ^

        error: unknown key `hostname` in the file
         --> lamppost.toml:2:1
          |
        2 | hostname = mail
          | ^^^^^^^^
          |
          = help: the file knows `dns`, `log`, `mail`, `metrics`, `server`, `tls`
        ");
}

#[test]
fn certificates_come_in_pairs() {
    insta::assert_snapshot!(problems("[tls]\nkey = \"/etc/key.pem\"\n"), @r#"
        error: `key` is there and `certificate` is not
         --> lamppost.toml:2:7
          |
        2 | key = "/etc/key.pem"
          |       ^^^^^^^^^^^^^^
          |
          = help: name the certificate's file too: `certificate = "/path/to/chain.pem"`
        "#);
}

#[test]
fn files_that_are_no_text_are_told_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lamppost.toml");
    std::fs::write(&path, b"[server]\n\xff\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.ends_with("lamppost.toml line 2 is not UTF-8 text"), "{error}");
}

#[test]
fn bounds_are_told_with_their_place_and_cure() {
    insta::assert_snapshot!(problems(
        "[mail.queue]\nsegment-size = \"4KiB\"\nretry-first = \"0s\"\nlifetime = \"400d\"\n\
         batch-max = 0\n[mail.limits]\ncommand-line-max = \"10B\"\n"
    ), @r#"
        error: `segment-size` is too small
         --> lamppost.toml:2:16
          |
        2 | segment-size = "4KiB"
          |                ^^^^^^
          |
          = help: write a size from "1MiB" to "1GiB"

        error: `retry-first` is too short
         --> lamppost.toml:3:15
          |
        3 | retry-first = "0s"
          |               ^^^^
          |
          = help: write a duration from "1s" to "7d"

        error: `lifetime` is too long
         --> lamppost.toml:4:12
          |
        4 | lifetime = "400d"
          |            ^^^^^^
          |
          = help: write a duration from "1m" to "365d"

        error: `batch-max` is not a number that it may be
         --> lamppost.toml:5:13
          |
        5 | batch-max = 0
          |             ^
          |
          = help: write a whole number from 1 to 100000, without quotes

        error: `command-line-max` is too small
         --> lamppost.toml:7:20
          |
        7 | command-line-max = "10B"
          |                    ^^^^^
          |
          = help: write a size from "512B" to "1MiB"
        "#);
    for (text, what) in [
        ("retry-max = \"30s\"", "shorter than the first"),
        ("retry-first = \"2h\"", "shorter than the first"),
        ("body-aside-from = \"1MiB\"\nsegment-size = \"2MiB\"", "too large for its segments"),
    ] {
        let told = problems(&format!("[mail.queue]\n{text}\n"));
        assert!(told.contains(what) && told.contains("lamppost.toml:2:"), "{told}");
    }
}

#[test]
fn what_is_odd_is_told_at_its_key() {
    let odd = |text: &str| {
        let config = Config::parse(text, Path::new("x")).unwrap();
        placed(Path::new("lamppost.toml"), text, config.remarks()).render(false)
    };
    let listen = "[[mail.listen]]\naddress = [\"127.0.0.1:2525\"]\ntls = \"off\"\n";
    assert_eq!(odd(&format!("[mail]\ndomains = [\"example.org\"]\n{listen}")), "");
    insta::assert_snapshot!(odd(&format!(
        "[mail]\npostmaster = \"me@example.org\"\n[mail.limits]\nsessions-max = 10\n\
         recipients-max = 5\ncommand-timeout = \"10s\"\n[mail.queue]\ndurability = \"none\"\n\
         lifetime = \"30m\"\n{listen}"
    )), @r#"
        warning: no domain is served: mail from outside is refused, whoever it is for
         --> lamppost.toml:1:1
          |
        1 | [mail]
          | ^^^^^^
          |
          = help: name the domains whose mailboxes are here: `domains = ["example.org"]` in `[mail]`

        warning: `example.org` is not in `domains`: this account can have no mailbox
         --> lamppost.toml:2:14
          |
        2 | postmaster = "me@example.org"
          |              ^^^^^^^^^^^^^^^^
          |
          = help: name an account whose domain is served here

        warning: one address may have all sessions: it is more than `sessions-max`
         --> lamppost.toml:3:1
          |
        3 | [mail.limits]
          | ^^^^^^^^^^^^^
          |
          = help: make it a small part of `sessions-max`

        warning: clients may count on 100 recipients of a message (RFC 5321 4.5.3.1.8)
         --> lamppost.toml:5:18
          |
        5 | recipients-max = 5
          |                  ^
          |
          = help: make it at least 100

        warning: 10s cuts off clients that are only slow
         --> lamppost.toml:6:19
          |
        6 | command-timeout = "10s"
          |                   ^^^^^
          |
          = help: make it at least "1m" (RFC 5321 4.5.3.2 asks for more)

        warning: messages are given up before their senders are told that it takes longer
         --> lamppost.toml:7:1
          |
        7 | [mail.queue]
          | ^^^^^^^^^^^^
          |
          = help: make it shorter than `lifetime`, or "0s" for never

        warning: a power cut loses mail that was acknowledged
         --> lamppost.toml:8:14
          |
        8 | durability = "none"
          |              ^^^^^^
          |
          = help: "group" costs a part of a sync for each message

        warning: messages are given up before the longest wait between two tries is over
         --> lamppost.toml:9:12
          |
        9 | lifetime = "30m"
          |            ^^^^^
          |
          = help: make it longer than `retry-max`
        "#);
    assert!(odd("").contains("nothing would run"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String) {
        if let Err(problems) = Config::parse(&text, Path::new("any")) {
            prop_assert!(!problems.problems.is_empty());
            problems.render(false);
        }
    }

    #[test]
    fn any_toml_is_read_or_refused(
        key in "server|log|mail|tls|mail.limits|mail.listen|nonsense",
        value in "1|-1|true|\"x\"|\"é\"|\\[\\]|\\[1\\]|\\{\\}|\\{ a = 1 \\}|1.5|1979-05-27|\\[\\[\\]\\]|\\[\\{\\}\\]",
    ) {
        let text = format!("{key} = {value}\n");
        if let Err(problems) = Config::parse(&text, Path::new("any")) {
            problems.render(true);
        }
    }
}

#[test]
fn a_relay_is_a_host_and_a_port() {
    let relay = |host: &str| {
        let config = Config::parse(&format!("[mail]\nrelay-to = \"{host}\"\n"), Path::new("x"));
        config.unwrap().mail.relay_to.map(|to| (to.host, to.port))
    };
    assert_eq!(relay(""), None);
    for (text, host, port) in [
        ("mail.example.org:587", "mail.example.org", 587),
        ("localhost:25", "localhost", 25),
        ("192.0.2.1:25", "192.0.2.1", 25),
        ("[2001:db8::1]:465", "2001:db8::1", 465),
    ] {
        assert_eq!(relay(text), Some((host.into(), port)));
    }
    for text in ["mail.example.org", "[2001:db8::1]", "2001:db8::1"] {
        let told = problems(&format!("[mail]\nrelay-to = \"{text}\"\n"));
        assert!(told.contains("names no port") && told.contains(":25\""), "{told}");
    }
    for text in [":25", "a b:25", "host:", "host:0", "host:70000", "[x]:25", "a..b:25"] {
        let told = problems(&format!("[mail]\nrelay-to = \"{text}\"\n"));
        assert!(told.contains("is no host and port"), "{told}");
    }
}

#[test]
fn a_relay_is_told_no_password_where_others_listen() {
    let login = "user = \"lamppost\"\npassword = \"/etc/lamppost/relay\"\n";
    for tls in ["starttls", "implicit"] {
        let text = format!("[mail.relay]\ntls = \"{tls}\"\n{login}");
        let relay = Config::parse(&text, Path::new("x")).unwrap();
        let (_, password) = relay.mail.relay.login.unwrap();
        assert_eq!(password.path(), Some("/etc/lamppost/relay".into()));
    }
    let open = format!("[mail.relay]\ntls = \"off\"\nplaintext-auth = true\n{login}");
    assert!(Config::parse(&open, Path::new("x")).is_ok());
    for (text, what, cure) in [
        (format!("tls = \"off\"\n{login}"), "could be overheard", "tls = \"starttls\""),
        (login.to_owned(), "could be overheard", "plaintext-auth = true"),
        ("user = \"lamppost\"\n".into(), "`password` is not", "password = \"/path/to/file\""),
        ("password = \"/etc/x\"\n".into(), "`user` is not", "name whom it belongs to"),
        ("ca = \"/etc/ca.pem\"\n".into(), "`ca` would do nothing", "or remove `ca`"),
        ("password = \"secret\"\n".into(), "neither an absolute path", "credential:NAME"),
    ] {
        let told = problems(&format!("[mail.relay]\n{text}"));
        assert!(told.contains(what) && told.contains(cure), "{told}");
        assert_eq!(told.matches("error:").count(), 1, "{told}");
    }
}

#[test]
fn what_stands_twice_is_told_with_its_first_line() {
    let cure = |text: &str| {
        let problems = Config::parse(text, Path::new("lamppost.toml")).unwrap_err();
        problems.problems[0].cure.clone().unwrap()
    };
    let key = "[log]\nlevel = \"info\"\n[mail]\nlevel = 1\n";
    assert!(!cure(key).contains("already"), "another section's key is another");
    let key = "[log]\nlevel = \"info\"\nformat = \"text\"\nlevel = \"warn\"\n";
    assert_eq!(cure(key), "it stands on line 2 already: remove one of the two");
    let section = "[log]\nlevel = \"info\"\n[mail]\n[log]\nformat = \"text\"\n";
    assert_eq!(cure(section), "it stands on line 1 already: remove one of the two");
}

#[test]
fn an_unknown_section_is_called_one() {
    let problems =
        Config::parse("[mails]\n[mail.greylst]\n[[listen]]\n", Path::new("lamppost.toml"));
    let problems = problems.unwrap_err().problems;
    let told: Vec<_> = problems.iter().map(|problem| problem.what.as_str()).collect();
    assert_eq!(
        told,
        [
            "unknown section `mails` in the file",
            "unknown section `greylst` in `[mail]`",
            "unknown section `listen` in the file",
        ]
    );
}

#[test]
fn mailboxes_of_users_are_checked() {
    for (text, what, cure) in [
        (
            "domains = [\"example.org\"]",
            "`example.org` is in `domains` of [mail] too",
            "one of the two",
        ),
        ("maildir = \"../Maildir\"", "no folder in a home", "without `..`"),
        ("maildir = \"/var/mail\"", "no folder in a home", "seen from the home"),
        ("maildir = \"\"", "no folder in a home", "such as"),
        ("uid-min = 0", "not a number that it may be", "from 1"),
        ("except = [\"a:b\"]", "no name of a user", "/etc/passwd"),
        ("process-files-max = 3", "not a number that it may be", "from 64"),
        ("process-memory-max = \"1MiB\"", "", "64MiB"),
    ] {
        let text = format!("[mail]\ndomains = [\"Example.org\"]\n[mail.system-users]\n{text}\n");
        let told = problems(&text);
        assert!(told.contains(what) && told.contains(cure), "{told}");
        assert_eq!(told.matches("error:").count(), 1, "{told}");
        assert!(told.contains("lamppost.toml:4:"), "{told}");
    }
    let text = "[mail]\npostmaster = \"alice@users.test\"\n[mail.system-users]\n\
                domains = [\"Users.test\"]\n[[mail.listen]]\naddress = [\"127.0.0.1:2525\"]\nkind = \"mx\"\ntls = \"off\"\n";
    let config = Config::parse(text, Path::new("lamppost.toml")).unwrap();
    assert_eq!(config.mail.system_users.maildir, "Maildir");
    assert_eq!(config.remarks(), []);
}
