//! What the commands print, word by word.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn lamppost(arguments: &[&str]) -> Output {
    let folder = std::env::temp_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamppost"));
    command.env_remove("LAMPPOST_CONFIG").env("HOME", "/nonexistent").env_remove("XDG_STATE_HOME");
    command.current_dir(folder).args(arguments).output().unwrap()
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
fn help_lists_the_commands() {
    insta::assert_snapshot!(printed(&["--help"]), @r"
        The services around a LAMP server, in one program

        Usage: lamppost [OPTIONS] <COMMAND>

        Commands:
          run      Run the services; without a configuration file, a demo on loopback
          check    Check a configuration file and tell everything that is wrong with it
          init     Write a configuration file to begin with, all keys explained
          config   Show the configuration
          explain  Explain a key of the configuration file, or all of a section
          account  Manage the accounts: mailboxes and their passwords
          queue    Look at the queue and change what is in it; alone, list it
          status   Show what runs and how it is
          doctor   Look at ports, DNS, disk, clock, certificate, database and permissions, and tell what to
                   mend
          log      Tell what became of a message or a session
          reload   Make the running program read its configuration file again
          compat   Put small programs under names of old, such as sendmail, into a folder
          help     Print this message or the help of the given subcommand(s)

        Options:
              --config <FILE>  Read this file [default: `$LAMPPOST_CONFIG`, /etc/lamppost/lamppost.toml,
                               else a built-in demo]
              --state <DIR>    Keep the state in this folder [default: what the file says]
          -h, --help           Print help
          -V, --version        Print version
        ");
}

#[test]
fn each_command_has_help() {
    for command in [
        "run", "check", "init", "config", "explain", "account", "queue", "status", "log", "reload",
        "compat", "doctor",
    ] {
        assert!(printed(&[command, "--help"]).contains("Usage: lamppost"), "{command}");
    }
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
    std::fs::write(file, text.replace("#domains = []", "domains = [\"example.org\"]")).unwrap();
    assert!(printed(&["check", file]).ends_with("is good.\n"));
    std::fs::write(file, "").unwrap();
    assert!(printed(&["check", file]).ends_with("can be used, with 2 warnings.\n"));
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
    assert_eq!(told.matches("mail.greylist.").count(), 7, "{told}");
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
fn a_state_in_memory_is_warned_of() {
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
        String::from_utf8(output.stderr).unwrap()
    };
    let told = check("");
    let expected = is_memory.then_some(":2:9");
    assert_eq!(told.contains("in memory (tmpfs)"), is_memory, "{told}");
    assert!(expected.is_none_or(|place| told.contains(place)), "{told}");
    assert_eq!(check("accept-volatile = true"), "");
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
    insta::assert_snapshot!(told(&password), @"74: error: cannot read the password from /nonexistent: No such file or directory (os error 2)");
    insta::assert_snapshot!(told(&["queue", "import", "/nonexistent"]), @r"
        69: error: lamppost is not running: nobody answers on STATE/control.sock: No such file or directory (os error 2)
          help: start it with `lamppost run`; name the same --state or --config if it runs with one
        ");
    insta::assert_snapshot!(told(&["queue", "--json", "list"]), @r"
        64: error: an option stands before the verb of `queue`
          help: write it behind: `lamppost queue VERB OPTIONS`
        ");
}
