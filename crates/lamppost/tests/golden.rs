//! What every command prints, and its help, word by word. No command can be left out: the program's own help
//! tells which there are, and which of them print JSON.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use serde_json::Value;
use support::{Server, Setup, Wire, lamppost, until};

const ACCOUNT: &str = "demo@lamppost.test";
/// Commands that no list names: they are for the program itself and for packages.
const HIDDEN: [&str; 2] = ["man", "role"];
/// What is not in the tour, and where it is shown instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("run", "first_run.rs and mail.rs: it does not end by itself"),
    ("setup", "setup_command.rs: it changes the machine"),
    ("upgrade", "reload.rs: the program is another afterwards"),
    ("qmail-envelope-scanner", "envelope_scanner.rs: it prints nothing"),
    ("greylisting-delete-expired", "envelope_scanner.rs: it prints nothing"),
    ("qmail-smtpd", "qmail_smtpd.rs: its output is that of qmail"),
    ("rblsmtpd", "rblsmtpd.rs: its output is that of ucspi-tcp"),
    ("tcprules", "tcprules.rs: its output is that of ucspi-tcp"),
    ("tcprulescheck", "tcprules.rs: its output is that of ucspi-tcp"),
    ("tcpserver", "tcpserver.rs: its output is that of ucspi-tcp"),
    ("man", "man.rs: it prints nothing"),
    ("config defaults", "it is crates/lamppost-config/src/defaults.toml, letter by letter"),
    ("greylist allow", "greylist_shared.rs: what stands by hand stays"),
    ("greylist block", "greylist_shared.rs: what stands by hand stays"),
    ("greylist init", "greylist_shared.rs: it needs a database"),
    ("greylist import postgrey", "greylist_import.rs: it takes the databases of other programs"),
    ("greylist import sqlgrey", "greylist_import.rs: it takes the databases of other programs"),
    ("greylist replay", "its own module: it takes logs of other programs"),
    ("role", "roles.rs: what it prints depends on the kernel"),
];

/// What a command prints, without a program that runs.
fn printed(arguments: &[&str]) -> String {
    let mut command = lamppost();
    command.env_remove("LAMPPOST_CONFIG").env("HOME", "/nonexistent").args(arguments);
    support::succeeded(&command.output().unwrap())
}

/// The help of each command, by its words.
fn helps() -> Vec<(String, String)> {
    let mut open = vec![String::new()];
    open.extend(HIDDEN.map(str::to_owned));
    let mut helps = Vec::new();
    while let Some(command) = open.pop() {
        let arguments: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let help = printed(&arguments);
        let (_, list) = help.split_once("Commands:\n").unwrap_or_default();
        let lines = list.lines().take_while(|line| !line.is_empty());
        let named = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let below = named.filter_map(|line| line.split_whitespace().next());
        let below = below.filter(|name| *name != "help");
        open.extend(below.map(|name| format!("{command} {name}").trim().to_owned()));
        helps.push((command, help));
    }
    helps.sort();
    helps
}

#[test]
fn the_help_of_every_command() {
    let mut text = String::new();
    for (command, help) in helps() {
        let line = format!("lamppost {command}");
        write!(text, "$ {} --help\n{help}\n", line.trim()).unwrap();
    }
    insta::assert_snapshot!("help", text);
}

/// A running program, and what commands were told and said of it.
struct Tour {
    server: Server,
    text: String,
    toured: BTreeSet<String>,
    /// What is another with each run, and the word that stands for it.
    words: Vec<(String, String)>,
}

impl Tour {
    fn begin() -> Self {
        let greylist =
            "enabled = true\ndelay = \"5m\"\nmode = \"observe\"\nlookup-timeout = \"0s\"";
        let mut server = Server::with_accounts(&Setup { greylist, ..Setup::default() }, None);
        // What it is made with depends on who runs the test.
        let mode = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(server.state(), mode).unwrap();
        server.launch();
        let mut tour = Self { server, text: String::new(), toured: BTreeSet::new(), words: vec![] };
        tour.know(tour.server.state().to_str().unwrap().to_owned(), "STATE");
        tour.know(tour.server.config().to_str().unwrap().to_owned(), "FILE");
        for (address, word) in [
            (tour.server.mx, "MX"),
            (tour.server.submission, "SUBMISSION"),
            (tour.server.implicit, "IMPLICIT"),
            (tour.server.metrics, "METRICS"),
        ] {
            tour.know(address.to_string(), word);
        }
        let user = std::process::Command::new("id").arg("-un").output().unwrap();
        let user = support::succeeded(&user).trim().to_owned();
        tour.know(format!("by={user}"), "by=USER");
        tour.know(format!("{user} can write"), "USER can write");
        tour
    }

    fn know(&mut self, what: String, word: &str) {
        self.words.push((what, word.to_owned()));
    }

    fn run(&mut self, line: &str) {
        self.run_with(line, "");
    }

    /// Runs a command, in which words stand for what they are, and writes down what it says.
    fn run_with(&mut self, line: &str, input: &str) {
        let as_they_are = |argument: &str| {
            let known = self.words.iter().find(|(_, word)| word == argument);
            known.map_or(argument.to_owned(), |(what, _)| what.clone())
        };
        let arguments: Vec<_> = line.split(' ').map(as_they_are).collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let output = self.server.command_with_input(&arguments, input);
        let Output { status, stdout, stderr } = output;
        let told = self.plain(&String::from_utf8(stdout).unwrap());
        let complaints = self.plain(&String::from_utf8(stderr).unwrap());
        let code = status.code().unwrap();
        write!(self.text, "$ lamppost {line}\n{told}").unwrap();
        for complaint in complaints.lines() {
            writeln!(self.text, "! {complaint}").unwrap();
        }
        if code != 0 {
            writeln!(self.text, "= {code}").unwrap();
        }
        self.text.push('\n');
        let is_word = |word: &&str| {
            word.starts_with(|letter: char| letter.is_ascii_lowercase()) && !word.contains('@')
        };
        let words: Vec<_> = line.split(' ').take_while(is_word).collect();
        let json = if line.contains("--json") { " --json" } else { "" };
        for count in 1..=words.len() {
            self.toured.insert(format!("{}{json}", words[..count].join(" ")));
        }
    }

    /// What is said, without what is another with each run.
    fn plain(&self, told: &str) -> String {
        let mut text = told.to_owned();
        for (what, word) in &self.words {
            text = text.replace(what, word);
        }
        match serde_json::from_str(&text) {
            Ok(mut value @ (Value::Object(_) | Value::Array(_))) => {
                settle(&mut value, "");
                format!("{}\n", serde_json::to_string_pretty(&value).unwrap())
            }
            _ => settled(&text),
        }
    }
}

/// Numbers and texts of JSON that are another with each run.
fn settle(value: &mut Value, key: &str) {
    /// Figures that tell of the machine, or of time.
    const OTHERS: [&str; 14] = [
        "pid",
        "received",
        "due",
        "at",
        "spool-bytes",
        "syncs",
        "session",
        "length",
        "sha256",
        "records",
        "by",
        "spares",
        "segments",
        "accept-volatile",
    ];
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                // What a process is held to is the kernel's matter, and what names say that of the DNS here.
                if ["force", "evidence"].contains(&key.as_str()) {
                    *value = Value::String("…".into());
                }
                settle(value, key);
            }
        }
        Value::Array(values) => {
            values.retain(|value| {
                let is = |key: &str, words: &[&str]| {
                    value[key].as_str().is_some_and(|text| words.contains(&text))
                };
                !is("area", &["users", "disk"]) && !is("key", &["mail.queue.accept-volatile"])
            });
            for value in values.iter_mut() {
                settle(value, key);
            }
        }
        Value::Number(_) if key.ends_with("-s") || OTHERS.contains(&key) => *value = 0.into(),
        Value::String(text) if OTHERS.contains(&key) => *text = "…".into(),
        Value::String(text) => *text = settled(text),
        _ => {}
    }
}

/// A text without ages, dates, sizes and processes, and without what it says of this machine.
fn settled(text: &str) -> String {
    let is_of_machine = |line: &str| {
        [
            "ok    disk: ",
            "WARN  users: ",
            "      help: `lamppost setup`",
            "mail.queue.accept-volatile",
        ]
        .iter()
        .any(|begin| line.starts_with(begin))
    };
    // What root is told of the users that roles lack depends on who runs the test.
    let paragraphs = text.split_inclusive("\n\n");
    let paragraphs = paragraphs.filter(|one| !one.starts_with("warning: the roles have no users"));
    let text: String = paragraphs.collect();
    let lines = text.split_inclusive('\n').filter(|line| !is_of_machine(line));
    lines.map(settled_line).collect()
}

fn settled_line(line: &str) -> String {
    /// What is counted that is another with each run.
    const COUNTED: [&str; 5] = ["KiB", "MiB", "GiB", "syncs", "records"];
    let words: Vec<_> = line.split_inclusive([' ', '\n']).collect();
    let mut text = String::new();
    for (place, word) in words.iter().enumerate() {
        let is_counted = words
            .get(place + 1)
            .is_some_and(|next| COUNTED.contains(&next.trim().trim_end_matches([';', ','])));
        // How wide a column is depends on paths.
        if *word == " " && !text.is_empty() {
            if !text.ends_with("  ") {
                text.push(' ');
            }
        } else if is_counted {
            text.push_str("… ");
        } else {
            text.push_str(&settled_word(word));
        }
    }
    text
}

fn settled_word(word: &str) -> String {
    let bare = word.trim_end().trim_end_matches([',', '.', ';', ':', ')']).trim_start_matches('(');
    let is_digit = |letter: char| letter.is_ascii_digit();
    let digits = bare.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = &bare[digits.len()..];
    let is_age =
        !digits.is_empty() && digits.chars().all(is_digit) && ["s", "m", "h", "d"].contains(&unit);
    let is_date =
        bare.get(..5).is_some_and(|year| year.ends_with('-') && year[..4].chars().all(is_digit));
    if is_age || is_date {
        return word.replace(bare, "…");
    }
    // Processes, ports and seconds since 1970.
    let mut text = String::new();
    for part in word.split_inclusive(|letter: char| !is_digit(letter)) {
        let digits = part.trim_end_matches(|letter: char| !is_digit(letter));
        text.push_str(if digits.len() > 3 { "…" } else { digits });
        text.push_str(&part[digits.len()..]);
    }
    text
}

/// Commands on a running program, one after the other: each tells what the ones before it have done.
#[test]
#[expect(clippy::too_many_lines, reason = "a tour is one story, told line by line")]
fn the_output_of_every_command() {
    let mut tour = Tour::begin();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (name, word) in [
        ("new.toml", "NEW"),
        ("mail", "MAIL"),
        ("other", "OTHER"),
        ("all.tar", "BACKUP"),
        ("names", "NAMES"),
    ] {
        tour.know(path(name), word);
    }
    std::fs::create_dir(path("names")).unwrap();

    tour.run("check FILE");
    tour.run("check FILE --json");
    tour.run("init NEW");
    tour.run("init FILE");
    tour.run("config show --changed");
    tour.run("config show --changed --json");
    tour.run("explain mail.queue.retry-first");

    tour.run_with("account add new@lamppost.test --password-file -", "a long enough password");
    tour.run_with("account passwd new@lamppost.test --password-file -", "another long password");
    tour.run("account list");
    tour.run("account list --json");
    tour.run("account delete new@lamppost.test");

    tour.run("greylist why 192.0.2.1 a@elsewhere.test demo@lamppost.test");
    tour.run("greylist why 192.0.2.1 a@elsewhere.test demo@lamppost.test --json");
    tour.run("greylist list");
    tour.run("greylist list --json");
    tour.run("greylist stats");
    tour.run("greylist stats --json");
    let dump = "VERSION=3\nformat=print\nHEADER=END\n 192.0.2.0/a@elsewhere.test/demo@lamppost.test\n \
                4102444000,4102444800\nDATA=END\n";
    tour.run_with("greylist import postgrey -", dump);
    tour.run_with("greylist import postgrey - --json", dump);
    tour.run("greylist import sqlgrey FILE");
    tour.run("greylist import sqlgrey FILE --json");
    let attempt = r#"{"t": 1800000000, "ip": "192.0.2.1", "helo": "mx.elsewhere.test", "host": null,
        "from": "a@elsewhere.test", "to": ["demo@lamppost.test"], "auth": false, "spf": "none",
        "data": true}"#;
    tour.run_with("greylist replay", &(attempt.replace('\n', "") + "\n"));
    tour.run("greylist forget --all");
    tour.run("greylist expire");

    tour.run("pause delivery");
    let mut wire = Wire::greeted(tour.server.mx);
    for word in ["ID1", "ID2", "ID3"] {
        let reply = wire.deliver(ACCOUNT, "Subject: x\r\n\r\nx");
        let id = reply.split_whitespace().last().unwrap().to_owned();
        tour.know(id, word);
    }
    assert!(wire.ask("QUIT\r\n").starts_with("221"));
    let shown = tour.server.must(&["queue", "list", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    tour.know(shown[0]["origin"]["session"].as_str().unwrap().to_owned(), "SESSION");
    let sessions = || -> i64 {
        let status = tour.server.must(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status).unwrap();
        status["host"]["sessions"].as_i64().unwrap()
    };
    assert!(until(|| sessions() == 0));
    tour.run("queue list");
    tour.run("queue list --json");
    tour.run("queue show ID1");
    tour.run("queue show ID1 --json");
    tour.run("queue cat ID1");
    tour.run("queue hold ID1");
    tour.run("queue hold ID2 --json");
    tour.run("queue release ID1");
    tour.run("queue release ID2 --json");
    tour.run("queue retry ID1");
    tour.run("queue retry ID1 --json");
    tour.run("queue return ID1");
    tour.run("queue return ID2 --json");
    tour.run("queue export MAIL ID3");
    tour.run("queue export OTHER ID3 --json");
    tour.run("queue import MAIL");
    tour.run("queue import OTHER --json");
    tour.run("queue delete ID3");
    tour.run("queue delete --all --yes --json");
    tour.run("log ID3");
    tour.run("log ID3 --json");
    tour.run("status");
    tour.run("status --json");
    tour.run("resume delivery");
    tour.run("reload");
    tour.run("backup BACKUP");
    tour.run("backup BACKUP --check --json");
    tour.run("doctor --no-dns");
    tour.run("doctor --no-dns --json");
    tour.run("compat install NAMES");
    tour.run("compat list NAMES");
    tour.run("compat list NAMES --json");
    // Of a program that does not run.
    assert_eq!(tour.server.stop(), Some(0));
    tour.run("queue check");
    tour.run("queue check --json");
    tour.run("status");
    tour.run("restore BACKUP");
    tour.run("restore BACKUP --force");
    tour.run("restore BACKUP --force --json");

    let mut missing = Vec::new();
    for (command, help) in helps() {
        let is_group = help.contains("\nCommands:\n");
        let is_elsewhere = ELSEWHERE.iter().any(|(name, _)| *name == command);
        if is_group || is_elsewhere {
            continue;
        }
        for variant in ["", " --json"] {
            let has_json =
                || help.lines().any(|line| line.split_whitespace().next() == Some("--json"));
            let is_there = variant.is_empty() || has_json();
            if is_there && !tour.toured.contains(&format!("{command}{variant}")) {
                missing.push(format!("{command}{variant}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new(), "commands without a place in the tour");
    insta::assert_snapshot!("output", tour.text);
}
