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
          explain  Explain a key of the configuration file
          account  Manage the accounts: mailboxes and their passwords
          queue    Look at the queue and change what is in it; alone, list it
          status   Show what runs and how it is
          log      Tell what became of a message or a session
          reload   Make the running program read its configuration file again
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
    for command in
        ["run", "check", "init", "config", "explain", "account", "queue", "status", "log", "reload"]
    {
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
        65: error: there is no key `mail.greylist.retry-windw`
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
    assert!(printed(&["check", file]).ends_with("is good.\n"));
    std::fs::write(file, "").unwrap();
    assert!(printed(&["check", file]).ends_with("nothing would run.\n"));
    assert!(complained(&["--config", file, "--state", "/nonexistent", "run"]).starts_with("78: "));
}
