//! `lamppost greylist replay`, by the numbers of a file and without a running program.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use support::{lamppost, succeeded};

const ATTEMPTS: &str = r#"{"t":1000,"ip":"192.0.2.1","helo":"mx.a.example","host":null,"from":"s@a.example","to":["x@here.test"],"auth":false,"spf":"none","data":true}
{"t":1060,"ip":"192.0.2.9","from":"s@a.example","to":["x@here.test","y@here.test"]}
{"t":1070,"ip":"192.0.2.9","from":"","to":["x@here.test"]}
"#;

fn replayed(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let file = folder.join("lamppost.toml");
    std::fs::write(&file, "[mail.greylist]\nenabled = false\ndelay = \"1m\"\n").unwrap();
    let mut command = lamppost();
    command.args(["greylist", "replay", "--config"]).arg(&file).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn attempts_are_decided_by_the_files_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let told = |arguments: &[&str]| {
        let text = succeeded(&replayed(folder.path(), arguments, ATTEMPTS));
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        assert!(lines[3].starts_with(r#"{"summary":{"recipients":4,"#), "{}", lines[3]);
        lines[..3].join("\n")
    };
    insta::assert_snapshot!(told(&[]), @r#"
    {"to":[{"decision":"defer","reason":"new","retry_in":60}],"data":null}
    {"to":[{"decision":"accept","reason":"waited","retry_in":null},{"decision":"defer","reason":"new","retry_in":60}],"data":"accept"}
    {"to":[{"decision":"accept","reason":"new","retry_in":60}],"data":"defer"}
    "#);
    insta::assert_snapshot!(told(&["--policy", "relaydelay"]), @r#"
    {"to":[{"decision":"defer","reason":"new","retry_in":61}],"data":null}
    {"to":[{"decision":"defer","reason":"early","retry_in":1},{"decision":"defer","reason":"new","retry_in":61}],"data":null}
    {"to":[{"decision":"accept","reason":"new","retry_in":61}],"data":"defer"}
    "#);
    let rows = folder.path().join("rows.json");
    let row = r#"[{"network":"192.0.2.0","sender":"s@a.example","recipient":"x@here.test","passes-from":60000,"expires":90000000,"deferred":1,"passed":3}]"#;
    std::fs::write(&rows, row).unwrap();
    assert!(told(&["--rows", rows.to_str().unwrap()]).contains(r#""reason":"known""#));
}

#[test]
fn what_is_no_attempt_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let refused = replayed(folder.path(), &["--summary"], &format!("{ATTEMPTS}\nnonsense\n"));
    assert_eq!(refused.status.code(), Some(65));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.starts_with("error: standard input line 5: the line is no attempt in JSON"),
        "{told}"
    );
    let log = replayed(folder.path(), &["--from-log", "postfix", "--summary"], "nonsense\n");
    assert!(succeeded(&log).starts_with("0 recipients of mail were decided:\n"));
}
