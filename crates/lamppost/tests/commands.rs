//! What the commands print, word by word.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn lamppost(arguments: &[&str]) -> Output {
    let folder = std::env::temp_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamppost"));
    command.env_remove("LAMPPOST_CONFIG").env("HOME", "/nonexistent").env_remove("XDG_STATE_HOME");
    let mut output = command.current_dir(folder).args(arguments).output().unwrap();
    without_users(&mut output.stderr);
    output
}

/// What root is told of the users that roles lack depends on who runs the test.
fn without_users(complaints: &mut Vec<u8>) {
    let text = String::from_utf8(std::mem::take(complaints)).unwrap();
    let whole = text.split_inclusive("\n\n");
    let others: String = whole.filter(|one| !one.contains("`lamppost setup` makes them")).collect();
    *complaints = others.into_bytes();
}

fn printed(arguments: &[&str]) -> String {
    let output = lamppost(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code and what was complained about.
fn complained(arguments: &[&str]) -> String {
    let output = lamppost(arguments);
    let code = output.status.code().unwrap();
    format!("{code}: {}", String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_key_is_explained() {
    insta::assert_snapshot!(printed(&["explain", "mail.greylist.retry-window"]), @r#"
        mail.greylist.retry-window

        How long after its first try a sender may come back before it is unknown again.

        default: "10h"
        "#);
    insta::assert_snapshot!(complained(&["explain", "mail.greylist.retry-windw"]), @r"
        65: error: there is no key or section `mail.greylist.retry-windw`
          help: did you mean `mail.greylist.retry-window`?
        ");
}

#[test]
fn a_program_that_does_not_run_is_told_so() {
    let state = ["--state", "/nonexistent"];
    insta::assert_snapshot!(complained(&[&state[..], &["status"]].concat()), @r"
        69: error: lamppost is not running: nobody answers on /nonexistent/control.sock: No such file or directory (os error 2)
          help: start it with `lamppost run`; name the same --state or --config if it runs with one
        ");
    insta::assert_snapshot!(complained(&[&state[..], &["queue", "retry"]].concat()), @r"
        64: error: this names no message
          help: name ids or a filter, such as --domain example.org, or --all
        ");
    insta::assert_snapshot!(complained(&[&state[..], &["queue", "delete", "--all"]].concat()), @r"
        64: error: this would delete every message in the queue
          help: look at them with --dry-run; add --yes if that is what you want
        ");
}

#[test]
fn a_wrong_file_is_told_with_its_places() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamppost.toml");
    let file = file.to_str().unwrap();
    std::fs::write(file, "[mail]\ndomain = [\"example.org\"]\n[log]\nlevel = \"verbose\"\n")
        .unwrap();
    let complaint = complained(&["check", file]).replace(file, "lamppost.toml");
    insta::assert_snapshot!(complaint, @r#"
        78: error: unknown key `domain` in `[mail]`
         --> lamppost.toml:2:1
          |
        2 | domain = ["example.org"]
          | ^^^^^^
          |
          = help: did you mean `domains`?

        error: `level` is not one of its words
         --> lamppost.toml:4:9
          |
        4 | level = "verbose"
          |         ^^^^^^^^^
          |
          = help: It may be "error", "warn", "info", "debug", "trace"

        error: lamppost.toml has 2 problems
        "#);
    let json = lamppost(&["check", "--json", file]);
    assert_eq!(json.status.code(), Some(78));
    let problems: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(problems["problems"][0]["line"], 2);
}

#[test]
fn a_file_to_begin_with_is_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamppost.toml");
    let file = file.to_str().unwrap();
    assert!(printed(&["init", file]).contains("is written"));
    let again = complained(&["init", file]);
    assert!(again.starts_with("74: ") && again.contains("move it away first"), "{again}");
    // It serves no domain yet.
    assert!(printed(&["check", file]).ends_with("can be used, with 1 warning.\n"));
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, text.replacen("#domains = []", "domains = [\"example.org\"]", 1)).unwrap();
    assert!(printed(&["check", file]).ends_with("is good.\n"));
    // What would not run is no warning.
    std::fs::write(file, "").unwrap();
    let nothing = complained(&["check", file]);
    assert!(nothing.starts_with("78: ") && nothing.contains("has 1 problem"), "{nothing}");
    assert!(complained(&["--config", file, "--state", "/nonexistent", "run"]).starts_with("78: "));
}

#[test]
fn the_file_to_begin_with_is_that_of_config_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    assert!(printed(&["init", "--config", &path("a.toml")]).contains("a.toml is written"));
    assert!(std::fs::exists(path("a.toml")).unwrap());
    assert!(printed(&["init", &path("b.toml"), "--config", &path("b.toml")]).contains("b.toml"));
    let two = complained(&["init", &path("c.toml"), "--config", &path("d.toml")]);
    assert!(two.starts_with("64: error: two files are named"), "{two}");
    assert!(!std::fs::exists(path("c.toml")).unwrap());
    let nowhere = complained(&["init", &path("no/e.toml")]);
    assert!(nowhere.contains("make its folder first"), "{nowhere}");
}

#[test]
fn a_section_is_explained_key_by_key() {
    let told = printed(&["explain", "mail.greylist"]);
    assert!(told.starts_with("# Whether unknown senders"), "{told}");
    assert_eq!(told.matches("mail.greylist.").count(), 33, "{told}");
    assert_eq!(printed(&["explain", "[mail.greylist]"]), told);
    let state = printed(&["explain", "server.state", "--state", "/somewhere"]);
    assert!(state.ends_with("default: \"\"\nhere:    /somewhere\n"), "{state}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "golden text")]
fn what_is_odd_or_unreadable_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let file = path("lamppost.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = lamppost(&["check", &file, "--state", "/proc/lamppost"]);
        let told = [output.stdout, output.stderr].concat();
        let mut told = String::from_utf8(told).unwrap().replace(&path(""), "DIR/");
        // Marks are as long as the folder's name.
        while told.contains("^^") {
            told = told.replace("^^", "^");
        }
        format!("{}: {told}", output.status.code().unwrap())
    };
    let listen = "[[mail.listen]]\naddress = [\"127.0.0.1:2525\"]\n";
    let tls = format!("[tls]\ncertificate = \"{0}\"\nkey = \"{0}\"\n", path("none.pem"));
    let mail = "[mail]\ndomains = [\"example.org\"]\n";
    insta::assert_snapshot!(check(&format!("{tls}{mail}{listen}")), @r#"
        78: error: `tls.certificate`: DIR/none.pem cannot be read: No such file or directory (os error 2)
         --> DIR/lamppost.toml:2:15
          |
        2 | certificate = "DIR/none.pem"
          |               ^
          |
          = help: write it, or correct its name

        error: `tls.key`: DIR/none.pem cannot be read: No such file or directory (os error 2)
         --> DIR/lamppost.toml:3:7
          |
        3 | key = "DIR/none.pem"
          |       ^
          |
          = help: write it, or correct its name

        error: DIR/lamppost.toml has 2 problems
        "#);
    std::fs::write(path("none.pem"), "nothing").unwrap();
    std::fs::set_permissions(path("none.pem"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    insta::assert_snapshot!(check(&format!("{tls}{mail}{listen}")), @r#"
        78: error: `tls.certificate`: DIR/none.pem holds no certificate in PEM (-----BEGIN CERTIFICATE-----)
         --> DIR/lamppost.toml:2:15
          |
        2 | certificate = "DIR/none.pem"
          |               ^
          |
          = help: name a certificate chain and the key that belongs to it, both in PEM

        error: DIR/lamppost.toml has 1 problem
        "#);
    let plain = format!("{listen}tls = \"off\"\n");
    insta::assert_snapshot!(check(&format!("{mail}postmaster = \"a b@example.org\"\n{plain}")), @r#"
        78: error: `postmaster` is no address: not a mail address of the form local-part@domain
         --> DIR/lamppost.toml:3:14
          |
        3 | postmaster = "a b@example.org"
          |              ^
          |
          = help: write it as an address, such as "admin@example.org"

        error: DIR/lamppost.toml has 1 problem
        "#);
    insta::assert_snapshot!(check(&format!("[mail.queue]\nlifetime = \"10m\"\n{plain}")), @r#"
        0: DIR/lamppost.toml can be used, with 3 warnings.
        warning: messages are given up before their senders are told that it takes longer
         --> DIR/lamppost.toml:1:1
          |
        1 | [mail.queue]
          | ^
          |
          = help: make it shorter than `lifetime`, or "0s" for never

        warning: no domain is served: mail from outside is refused, whoever it is for
         --> DIR/lamppost.toml:1:2
          |
        1 | [mail.queue]
          |  ^
          |
          = help: name the domains whose mailboxes are here: `domains = ["example.org"]` in `[mail]`

        warning: messages are given up before the longest wait between two tries is over
         --> DIR/lamppost.toml:2:12
          |
        2 | lifetime = "10m"
          |            ^
          |
          = help: make it longer than `retry-max`
        "#);
    let json = lamppost(&["check", "--json", &file]);
    let problems: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(problems["problems"][0]["severity"], "warning");
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_the_right_cure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().to_str().unwrap();
    let told = complained(&["check", file]).replace(file, "DIR");
    insta::assert_snapshot!(told, @r"
        78: error: cannot read DIR: Is a directory (os error 21)
          help: name the file in that folder with --config FILE
        ");
    let told = complained(&["check", "/nonexistent/lamppost.toml"]);
    insta::assert_snapshot!(told, @r"
        78: error: cannot read /nonexistent/lamppost.toml: No such file or directory (os error 2)
          help: `lamppost init FILE` writes one to begin with
        ");
}

#[test]
fn a_state_in_memory_is_refused() {
    let is_memory = std::fs::read_to_string("/proc/mounts").unwrap().contains(" /dev/shm tmpfs ");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamppost.toml");
    let file = file.to_str().unwrap();
    let check = |queue: &str| {
        let text = format!(
            "[server]\nstate = \"/dev/shm/lamppost\"\n[mail]\ndomains = [\"example.org\"]\n[mail.queue]\n{queue}\n\
             [[mail.listen]]\naddress = [\"127.0.0.1:2525\"]\ntls = \"off\"\n"
        );
        std::fs::write(file, text).unwrap();
        let output = lamppost(&["check", file]);
        assert_eq!(output.status.code() == Some(78), is_memory && queue.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let told = check("");
    let expected = is_memory.then_some(":2:9");
    assert_eq!(told.contains("in memory (tmpfs)"), is_memory, "{told}");
    assert!(expected.is_none_or(|place| told.contains(place)), "{told}");
    assert_eq!(check("accept-volatile = true"), "");
}

/// The program runs on with what it read before; to look at it takes only its place.
#[test]
fn a_file_that_was_made_wrong_does_not_hide_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamppost.toml");
    let file = file.to_str().unwrap();
    let status = |text: &str, options: &[&str]| {
        std::fs::write(file, text).unwrap();
        complained(&[&["--config", file], options, &["status"]].concat()).replace(file, "FILE")
    };
    insta::assert_snapshot!(status("[server]\nstate = \"/nonexistent\"\n[mail]\ndomain = 1\n", &[]), @r"
    69: warning: FILE is wrong (`lamppost check` tells all of it); the program is looked for at /nonexistent/control.sock
      help: --state DIR names another place

    error: lamppost is not running: nobody answers on /nonexistent/control.sock: No such file or directory (os error 2)
      help: start it with `lamppost run`; name the same --state or --config if it runs with one
    ");
    let named = status("[server]\nstate = \n", &["--state", "/nonexistent/named"]);
    assert!(
        named.starts_with("69: ") && named.contains("/nonexistent/named/control.sock"),
        "{named}"
    );
    // What it says of the place cannot be read.
    let hidden = status("[server]\nstate = \n", &[]);
    assert!(hidden.starts_with("78: error: "), "{hidden}");
    assert!(
        hidden.contains("help: name the state folder of the running program with --state"),
        "{hidden}"
    );
}

#[test]
fn a_password_of_few_letters_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (file, password) = (path("lamppost.toml"), path("password"));
    let try_it = |auth: &str, word: &str, verb: &str| {
        std::fs::write(&file, format!("[mail]\ndomains = [\"a.test\"]\n[mail.auth]\n{auth}\n"))
            .unwrap();
        std::fs::write(&password, word).unwrap();
        let place = ["--config", &file, "--state", &path("state")];
        let verb = ["account", verb, "a@a.test", "--password-file", &password];
        complained(&[&place[..], &verb].concat()).replace(&file, "FILE")
    };
    insta::assert_snapshot!(try_it("", "x\n", "add"), @r"
    65: error: the password has 1 letter, and `password-length-min` in [mail.auth] wants 8
      help: choose a longer one, such as four words, or have one made with --generate
    ");
    assert_eq!(try_it("password-length-min = 1", "x\n", "add"), "0: ");
    // The account stays as it is; what it gets from now on is held to the number.
    insta::assert_snapshot!(try_it("password-length-min = 9", "ÄÖÜäöüß!\n", "passwd"), @r"
    65: error: the password has 8 letters, and `password-length-min` in [mail.auth] (FILE:4) wants 9
      help: choose a longer one, such as four words, or have one made with --generate
    ");
    assert_eq!(try_it("", "ÄÖÜäöüß!\n", "passwd"), "0: ");
}

#[test]
fn what_nobody_can_find_is_told_with_a_cure() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let told = |arguments: &[&str]| {
        let all = [&["--state", state], arguments].concat();
        complained(&all).replace(state, "STATE")
    };
    insta::assert_snapshot!(told(&["log", "nothing"]), @r"
        65: error: there is no outcome log in STATE/log
          help: name the same --state or --config as `lamppost run`
        ");
    insta::assert_snapshot!(told(&["queue", "check"]), @r"
        65: error: cannot lock STATE/spool/lock: No such file or directory (os error 2)
          help: there is no spool; name the same --state or --config as `lamppost run`
        ");
    insta::assert_snapshot!(told(&["account", "add", "you@example.org", "--generate"]), @r"
        65: error: example.org is not served by the built-in demo, which has lamppost.test
          help: name the file that serves it with --config FILE; `lamppost init` writes one
        ");
    let password = ["account", "passwd", "demo@lamppost.test", "--password-file", "/nonexistent"];
    insta::assert_snapshot!(told(&password), @r"
    74: note: there is no /etc/lamppost/lamppost.toml, so this is about the built-in demo; --config FILE names a file
    error: cannot read the password from /nonexistent: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(told(&["queue", "import", "/nonexistent"]), @r"
        69: error: lamppost is not running: nobody answers on STATE/control.sock: No such file or directory (os error 2)
          help: start it with `lamppost run`; name the same --state or --config if it runs with one
        ");
    insta::assert_snapshot!(told(&["queue", "--json", "list"]), @r"
        64: error: an option stands before the verb of `queue`
          help: write it behind: `lamppost queue VERB OPTIONS`
        ");
}

#[test]
fn values_are_those_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamppost.toml");
    let file = file.to_str().unwrap();
    std::fs::write(
        file,
        "[mail]\ndomains = [\n\"example.org\", # ours\n]\n[mail.limits]\nmessage-size-max = \"4MiB\"\n",
    )
    .unwrap();
    let shown = printed(&["config", "show", "--json", "--config", file]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let value = |key: &str| {
        let entry = shown.as_array().unwrap().iter().find(|entry| entry["key"] == key);
        entry.unwrap()["value"].clone()
    };
    assert_eq!(value("mail.limits.message-size-max"), "4MiB");
    assert_eq!(value("mail.domains"), serde_json::json!(["example.org"]));
    assert_eq!(value("mail.greylist.enabled"), true);
    assert!(value("mail.limits.recipients-max").is_u64());
}

#[test]
fn an_unknown_id_is_a_failure_in_json_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("log")).unwrap();
    let state = folder.path().to_str().unwrap();
    let output = lamppost(&["--state", state, "log", "nothing", "--json"]);
    assert_eq!(output.status.code(), Some(65));
    assert_eq!(output.stdout, b"[]\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing is known of nothing"));
}

/// A key pair made by openssl, for this host, valid for so many days.
fn key_pair(folder: &std::path::Path, host: &str, days: &str) -> (String, String) {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("chain.pem"), path("key.pem"));
    let names = format!("subjectAltName=DNS:{host}");
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    openssl.args(["-days", days, "-subj", "/CN=lamppost", "-addext", &names]);
    let made = openssl.args(["-out", &certificate, "-keyout", &key]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

#[test]
fn a_certificate_that_clients_refuse_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let file = folder.path().join("lamppost.toml");
    let file = file.to_str().unwrap();
    let check = |host: &str, days: &str| {
        let (certificate, key) = key_pair(folder.path(), host, days);
        let text = format!(
            "[server]\nhostname = \"mail.example.org\"\n\
             [tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n\
             [mail]\ndomains = [\"example.org\"]\n[[mail.listen]]\naddress = [\"127.0.0.1:2525\"]\n"
        );
        std::fs::write(file, text).unwrap();
        let output = lamppost(&["check", file, "--state", state.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    let good = check("mail.example.org", "90");
    assert!(!good.contains("tls."), "{good}");
    let soon = check("*.example.org", "13");
    assert!(soon.contains("chain.pem expires at ") && soon.contains("toml:4:"), "{soon}");
    let other = check("elsewhere.test", "90");
    assert!(other.contains("is not for mail.example.org: it names "), "{other}");
    assert!(other.contains("elsewhere.test"), "{other}");
}

#[test]
fn what_everybody_may_open_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = key_pair(folder.path(), "mail.example.org", "90");
    std::fs::create_dir(path("state")).unwrap();
    std::fs::write(
        path("lamppost.toml"),
        format!(
            "[server]\nhostname = \"mail.example.org\"\nstate = \"{}\"\n\
             [tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n\
             [mail]\ndomains = [\"example.org\"]\n[[mail.listen]]\naddress = [\"192.0.2.99:2525\"]\n",
            path("state")
        ),
    )
    .unwrap();
    let check = |mode: u32| {
        for name in ["state", "key.pem"] {
            std::fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        let output = lamppost(&["check", &path("lamppost.toml")]);
        // The program does not start without the address.
        assert_eq!(output.status.code(), Some(78));
        String::from_utf8(output.stderr).unwrap()
    };
    let open = check(0o755);
    assert!(open.contains("everybody on this machine may open"), "{open}");
    assert!(open.contains("may look into the state folder"), "{open}");
    // An address of a network for documents, which nobody has.
    assert!(open.contains("error: this machine does not have 192.0.2.99"), "{open}");
    let closed = check(0o700);
    assert!(!closed.contains("everybody"), "{closed}");
}

#[test]
fn users_and_groups_that_are_not_there_are_told_with_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamppost.toml");
    let check = |sendmail: &str| {
        let text = format!(
            "[mail]\ndomains = [\"example.org\"]\n[mail.sendmail]\n{sendmail}\n\
             [[mail.listen]]\naddress = [\"127.0.0.1:2525\"]\ntls = \"off\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let output = lamppost(&["check", file.to_str().unwrap()]);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, user) = check("trusted-users = [\"root\", \"www-dat\"]");
    assert_eq!(code, 0);
    assert!(user.contains("lists no user www-dat") && user.contains("toml:4:26"), "{user}");
    assert!(!user.contains("no user root"), "{user}");
    let (code, group) = check("socket-group = \"no such group\"");
    assert_eq!(code, 78);
    assert!(group.contains("lists no group no such group") && group.contains("toml:4:"), "{group}");
    assert!(!check("enabled = false\nsocket-group = \"no such group\"").1.contains("no group"));
}

#[test]
fn a_domain_that_is_not_served_is_told_with_its_list() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamppost.toml");
    let state = folder.path().join("state");
    let (file, state) = (file.to_str().unwrap(), state.to_str().unwrap());
    let add = || {
        let add = ["account", "add", "you@example.org", "--generate"];
        complained(&[&["--config", file, "--state", state], &add[..]].concat())
            .replace(file, "FILE")
    };
    std::fs::write(file, "[mail]\ndomains = [\"other.test\"]\n").unwrap();
    insta::assert_snapshot!(add(), @r#"
    65: error: example.org is not in `domains` (FILE:2)
      help: add it to the list: `domains = ["other.test", "example.org"]`
    "#);
    std::fs::write(file, "").unwrap();
    insta::assert_snapshot!(add(), @r#"
    65: error: example.org is not served: FILE has no `domains` in [mail]
      help: add the list to [mail]: `domains = ["example.org"]`
    "#);
    assert!(!std::fs::exists(state).unwrap(), "nothing is made for a wrong command");
    assert_eq!(printed(&["--config", file, "--state", state, "account", "list"]), "");
}

#[test]
fn each_address_that_cannot_be_listened_on_is_told_with_its_own_cure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamppost.toml");
    let state = folder.path().join("state");
    let (file, state) = (file.to_str().unwrap(), state.to_str().unwrap());
    std::fs::write(
        file,
        "[mail]\ndomains = [\"example.org\"]\n[mail.queue]\naccept-volatile = true\n\
         [[mail.listen]]\naddress = [\n\"192.0.2.99:2525\",\n]\ntls = \"off\"\n",
    )
    .unwrap();
    let told = complained(&["--config", file, "--state", state, "run"]).replace(file, "FILE");
    insta::assert_snapshot!(told, @r#"
    69: error: cannot listen on 192.0.2.99:2525 (FILE:7): this machine has no such address
      help: `ip address` lists those that it has: correct the address, or set `when-absent = "wait"`, which listens once it appears
    "#);
}

#[test]
fn a_certificate_of_another_key_is_told_in_plain_words() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (certificate, _) = key_pair(folder.path(), "mail.example.org", "90");
    let (_, key) = key_pair(other.path(), "mail.example.org", "90");
    let file = folder.path().join("lamppost.toml");
    let file = file.to_str().unwrap();
    std::fs::write(file, format!("[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n"))
        .unwrap();
    let told = complained(&["check", file]);
    assert!(told.contains("is not that of the first certificate in"), "{told}");
    assert!(told.contains("name the key that the certificate was made with"), "{told}");
}

#[test]
fn a_postmaster_without_an_account_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamppost.toml");
    let (file, state) = (file.to_str().unwrap(), folder.path().to_str().unwrap());
    let text = "[mail]\ndomains = [\"example.org\"]\npostmaster = \"admin@example.org\"\n";
    std::fs::write(file, text).unwrap();
    let place = ["--config", file, "--state", state];
    let warned = || {
        let output = lamppost(&[&place[..], &["check", file]].concat());
        String::from_utf8(output.stderr).unwrap().contains("there is no account admin@example.org")
    };
    // Before there are any accounts nobody can tell.
    assert!(!warned());
    let add = |account| printed(&[&place[..], &["account", "add", account, "--generate"]].concat());
    add("you@example.org");
    assert!(warned());
    add("Admin@example.org");
    assert!(!warned());
    let listed = printed(&[&place[..], &["account", "list"]].concat());
    assert_eq!(listed, "Admin@example.org\nyou@example.org\n");
}
