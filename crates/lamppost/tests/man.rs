//! The manual pages and the completions: there for every command and every key.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

fn printed(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamppost"));
    let output = command.env_remove("LAMPPOST_CONFIG").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn written() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    printed(&["man", folder.path().to_str().unwrap()]);
    folder
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).expect(name)
}

/// The commands below one, as its help lists them.
fn commands_below(command: &[String]) -> Vec<Vec<String>> {
    let mut arguments: Vec<_> = command.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = printed(&arguments);
    let Some((_, list)) = help.split_once("Commands:\n") else { return Vec::new() };
    let lines = list.lines().take_while(|line| !line.is_empty());
    let named = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next());
    let below = names.filter(|name| *name != "help");
    below.map(|name| [command, &[name.to_owned()]].concat()).collect()
}

#[test]
fn every_command_has_a_page() {
    let folder = written();
    let mut open = vec![Vec::new()];
    let mut names = Vec::new();
    while let Some(command) = open.pop() {
        let name = [&["lamppost".to_owned()], command.as_slice()].concat().join("-");
        let page = read(folder.path(), &format!("man1/{name}.1"));
        assert!(page.contains(".SH NAME\n") && page.contains(".SH \"SEE ALSO\"\n"), "{page}");
        names.push(format!("{name}.1"));
        open.extend(commands_below(&command));
    }
    // One of the programs under other names.
    names.push("lamppost-sendmail.1".into());
    names.sort();
    let there = fs::read_dir(folder.path().join("man1")).unwrap();
    let mut there: Vec<_> =
        there.map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    assert_eq!(names, there, "no page is missing, and none is of a command that is not there");
    assert!(names.len() > 25, "{names:?}");
}

#[test]
fn sendmail_has_a_page_with_its_options_and_ends() {
    let page = read(written().path(), "man1/lamppost-sendmail.1").replace("\\-", "-");
    for (word, text) in lamppost_compat::OPTIONS.iter().chain(&lamppost_compat::EXIT_CODES) {
        assert!(page.contains(&format!(".TP\n\\fB{word}\\fR\n{text}\n")), "{word}: {page}");
    }
}

#[test]
fn the_format_page_explains_every_key() {
    let folder = written();
    let page = read(folder.path(), "man5/lamppost.toml.5");
    let keys = lamppost_config::reference();
    assert!(keys.len() > 90);
    // Hyphens are escaped, so that they can be pasted.
    let page = page.replace("\\-", "-");
    for key in keys {
        let (section, name) = key.name.rsplit_once('.').unwrap();
        assert!(page.contains(&format!("[{section}]")), "no section {section}");
        let line = format!("\\fB{name}\\fR = \\fI");
        assert!(page.contains(&line), "no line {line} for {}", key.name);
    }
}

#[test]
fn three_shells_complete_every_command() {
    let folder = written();
    for name in ["bash/lamppost", "zsh/_lamppost", "fish/lamppost.fish"] {
        let text = read(&folder.path().join("completions"), name);
        for command in commands_below(&[]) {
            assert!(text.contains(&command[0]), "{name} does not know {}", command[0]);
        }
    }
}

#[test]
fn pages_that_cannot_be_written_are_told() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamppost"));
    let output = command.args(["man", "/dev/null/pages"]).output().unwrap();
    assert_eq!(output.status.code(), Some(74));
    let complaint = String::from_utf8(output.stderr).unwrap();
    insta::assert_snapshot!(complaint, @"error: cannot write into /dev/null/pages: Not a directory (os error 20)");
}
