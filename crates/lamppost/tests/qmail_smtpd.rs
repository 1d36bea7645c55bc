//! `qmail-smtpd` as tcpserver calls it: dialogues word for word, what the queue gets, and bad days.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

#[cfg(feature = "peers")]
use std::path::Path;
#[cfg(feature = "peers")]
use std::time::Duration;
use std::time::Instant;

use support::mounted::{Kind, Mounted};
use support::qmail::{Dialogue, Home};
use support::until;

/// A message whose Received field tells no time.
fn timeless(message: &str) -> String {
    let (before, rest) = message.split_once("with SMTP; ").unwrap();
    let (_, after) = rest.split_once(" -0000\n").unwrap();
    format!("{before}with SMTP; TIME -0000\n{after}")
}

#[test]
fn a_message_is_handed_over_as_qmail_queue_takes_it() {
    let home = Home::new();
    let mut dialogue = home.begin();
    assert_eq!(dialogue.reply(), "220 mail.here.test ESMTP");
    dialogue.expect(&[
        ("EHLO client.test", "250-mail.here.test\n250-PIPELINING\n250 8BITMIME"),
        ("MAIL FROM:<Some.One@b.test> BODY=8BITMIME", "250 ok"),
        ("RCPT TO:<c@here.test>", "250 ok"),
        (
            "RCPT TO:<d@elsewhere.test>",
            "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
        ),
        ("RCPT TO:<\"e f\"@x.below.test>", "250 ok"),
        ("RCPT TO:<>", "250 ok"),
        ("DATA", "354 go ahead"),
    ]);
    dialogue.send(b"Subject: x\r\n\r\n..\r\na\rb\xff\r\n");
    let taken = dialogue.ask(".");
    let words: Vec<_> = taken.split(' ').collect();
    assert!(
        matches!(words[..], ["250", "ok", time, "qp", pid]
        if time.parse::<u64>().is_ok() && pid.parse::<u32>().is_ok()),
        "{taken}"
    );
    dialogue.expect(&[("DATA", "503 MAIL first (#5.5.1)"), ("QUIT", "221 mail.here.test")]);
    let end = dialogue.end();
    assert_eq!((end.code, &*end.said, &*end.told), (Some(0), "", ""));
    assert_eq!(home.kept("envelope"), b"FSome.One@b.test\0Tc@here.test\0Te f@x.below.test\0T\0\0");
    let message = home.kept("message");
    assert!(message.ends_with(b"\nSubject: x\n\n.\na\rb\xff\n"));
    let message = String::from_utf8_lossy(&message).replace('\r', "CR");
    insta::assert_snapshot!(timeless(&message), @r"
    Received: from unknown (HELO client.test) (192.0.2.1)
      by mx.here.test with SMTP; TIME -0000
    Subject: x

    .
    aCRb�
    ");
}

#[test]
fn control_files_say_who_and_how_much() {
    let home = Home::new();
    home.control("smtpgreeting", "greetings.test no UCE\n");
    home.control("badmailfrom", "bad@b.test\n@worse.test\n");
    home.control("databytes", "5\n");
    let mut dialogue = home.begin();
    assert_eq!(dialogue.reply(), "220 greetings.test no UCE ESMTP");
    let bad = "553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)";
    dialogue.expect(&[
        ("HELO client.test", "250 greetings.test no UCE"),
        ("MAIL FROM:<BAD@b.test>", "250 ok"),
        ("RCPT TO:<c@here.test>", bad),
        ("MAIL FROM:<x@Worse.test>", "250 ok"),
        ("RCPT TO:<c@here.test>", bad),
        ("MAIL FROM:<x@sub.worse.test>", "250 ok"),
        (
            "RCPT TO:<c@[127.0.0.1]>",
            "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
        ),
        ("RCPT TO:<c@HERE.test>", "250 ok"),
        ("DATA", "354 go ahead"),
    ]);
    // Five bytes are stored of it.
    assert!(dialogue.ask("1234\r\n.").starts_with("250 ok "));
    dialogue.expect(&[
        ("MAIL FROM:<a@b.test>", "250 ok"),
        ("RCPT TO:<c@here.test>", "250 ok"),
        ("DATA", "354 go ahead"),
        ("12345\r\n.", "552 sorry, that message size exceeds my databytes limit (#5.3.4)"),
    ]);
    assert_eq!(dialogue.end().code, Some(1));
    // The variable has the last word, and an address by number is one by name.
    home.control("localiphost", "here.test\n");
    let mut ruled = Dialogue::begin(home.smtpd(&[]).env("DATABYTES", "0"));
    ruled.reply();
    ruled.expect(&[
        ("MAIL FROM:<>", "250 ok"),
        ("RCPT TO:<c@[127.0.0.1]>", "250 ok"),
        ("DATA", "354 go ahead"),
    ]);
    assert!(ruled.ask("123456789\r\n.").starts_with("250 ok "));
    assert_eq!(home.kept("envelope"), b"F\0Tc@here.test\0\0");
}

#[test]
fn who_may_relay_does_with_what_the_rule_appends() {
    let home = Home::new();
    let mut dialogue = Dialogue::begin(home.smtpd(&[]).env("RELAYCLIENT", "@fix"));
    dialogue.reply();
    dialogue.expect(&[
        ("MAIL FROM:<a@b.test>", "250 ok"),
        ("RCPT TO:<c@elsewhere.test>", "250 ok"),
        ("DATA", "354 go ahead"),
    ]);
    assert!(dialogue.ask("x\r\n.").starts_with("250 ok "));
    assert_eq!(home.kept("envelope"), b"Fa@b.test\0Tc@elsewhere.test@fix\0\0");
}

/// Domains in a cdb as qmail-newmrh makes it: each a key without a value.
#[test]
fn more_domains_are_in_a_cdb() {
    let home = Home::new();
    // A rule that allows without variables is a key without a value too.
    let mut make = support::lamppost();
    make.current_dir(home.path().join("control"));
    make.args(["tcprules", "morercpthosts.cdb", "tmp"]).stdin(std::process::Stdio::piped());
    let mut make = make.spawn().unwrap();
    let rules = b"more.test:allow\n.suffix.test:allow\n";
    std::io::Write::write_all(&mut make.stdin.take().unwrap(), rules).unwrap();
    assert!(make.wait().unwrap().success());
    let mut dialogue = home.begin();
    dialogue.reply();
    let no = "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)";
    dialogue.expect(&[
        ("MAIL FROM:<a@b.test>", "250 ok"),
        ("RCPT TO:<c@More.test>", "250 ok"),
        ("RCPT TO:<c@a.b.suffix.test>", "250 ok"),
        ("RCPT TO:<c@suffix.test>", no),
    ]);
    home.control("morercpthosts.cdb", "garbage");
    dialogue.expect(&[("RCPT TO:<c@other.test>", "421 unable to read controls (#4.3.0)")]);
    let told = dialogue.end().told;
    assert!(told.contains("control/morercpthosts.cdb: protocol error"), "{told}");
}

#[test]
fn without_its_control_files_it_serves_nobody() {
    let home = Home::new();
    std::fs::remove_file(home.path().join("control/me")).unwrap();
    let end = home.begin().end();
    assert_eq!((&*end.said, end.code), ("421 unable to read controls (#4.3.0)\n", Some(1)));
    assert!(end.told.contains("control/me: file does not exist\n  help: "), "{}", end.told);
    let end = Dialogue::begin(home.smtpd(&[]).env("QMAILHOME", "/nonexistent")).end();
    assert_eq!((&*end.said, end.code), ("421 unable to read controls (#4.3.0)\n", Some(1)));
    assert!(end.told.contains("QMAILHOME"), "{}", end.told);
    // With a greeting there need be no name, and without rcpthosts everybody may relay, as there.
    home.control("smtpgreeting", "mail.here.test\n");
    std::fs::remove_file(home.path().join("control/rcpthosts")).unwrap();
    let mut dialogue = home.begin();
    dialogue.reply();
    dialogue
        .expect(&[("MAIL FROM:<a@b.test>", "250 ok"), ("RCPT TO:<c@elsewhere.test>", "250 ok")]);
}

#[test]
fn how_the_queue_ends_is_told() {
    let home = Home::new();
    for (code, expected) in [
        ("11", "554 envelope address too long for qq (#5.1.3)"),
        ("31", "554 mail server permanently rejected message (#5.3.0)"),
        ("33", "554 qq permanent problem (#5.3.0)"),
        ("53", "451 qq write error or disk full (#4.3.0)"),
        ("71", "451 mail server temporarily rejected message (#4.3.0)"),
        ("72", "451 connection to mail server timed out (#4.4.1)"),
        ("99", "451 qq temporary problem (#4.3.0)"),
    ] {
        std::fs::write(home.path().join("code"), code).unwrap();
        let mut dialogue = home.begin();
        dialogue.begin_message();
        assert_eq!(dialogue.ask("x\r\n."), expected, "{code}");
        // The client may go on.
        assert_eq!(dialogue.ask("NOOP"), "250 ok");
    }
}

/// Programs that do not do what they should, each within its time.
#[test]
fn a_queue_that_fails_is_told_and_held_against_nobody() {
    let home = Home::new();
    let begun = Instant::now();
    let deaf = home.script("deaf", "#!/bin/sh\nexec sleep 1000\n");
    let crashing = home.script("crashing", "#!/bin/sh\nkill -SEGV $$\n");
    let careless = home.script("careless", "#!/bin/sh\nexit 0\n");
    // More than any pipe holds.
    let large = "x".repeat(70) + "\r\n";
    let large = large.repeat(40_000);
    for (queue, message, expected) in [
        (deaf.as_path(), "x\r\n", "451 qq timeout (#4.3.0)"),
        (&deaf, &large, "451 qq timeout (#4.3.0)"),
        (&crashing, "x\r\n", "451 qq crashed (#4.3.0)"),
        (&careless, &large, "451 qq read error (#4.3.0)"),
    ] {
        let mut command = home.smtpd(&[]);
        command.env("QMAILQUEUE", queue).env("QMAILQUEUETIMEOUT", "1");
        let mut dialogue = Dialogue::begin(&mut command);
        dialogue.begin_message();
        dialogue.send(message.as_bytes());
        assert_eq!(dialogue.ask("."), expected, "{}", queue.display());
        assert_eq!(dialogue.ask("QUIT"), "221 mail.here.test");
        let told = dialogue.end().told;
        let is_told = told.starts_with(&format!("qmail-smtpd: warning: {}", queue.display()));
        assert!(is_told || queue == careless, "{told}");
    }
    let mut command = home.smtpd(&[]);
    let mut dialogue = Dialogue::begin(command.env("QMAILQUEUE", "/nonexistent/qmail-queue"));
    dialogue.reply();
    dialogue.expect(&[
        ("MAIL FROM:<a@b.test>", "250 ok"),
        ("RCPT TO:<c@here.test>", "250 ok"),
        ("DATA", "451 unable to exec qq (#4.3.0)"),
        ("MAIL FROM:<a@b.test>", "250 ok"),
    ]);
    assert!(begun.elapsed() < support::PATIENCE, "{:?}", begun.elapsed());
}

#[test]
fn a_full_disk_is_told() {
    let Some(disk) = Mounted::new(Kind::Tmpfs(1)) else { return };
    let home = Home::new();
    let queue = disk.point().join("queue");
    std::fs::copy(home.path().join("recorder"), &queue).unwrap();
    let mut command = home.smtpd(&[]);
    let mut dialogue = Dialogue::begin(command.env("QMAILQUEUE", &queue));
    dialogue.begin_message();
    dialogue.send(("x".repeat(70) + "\r\n").repeat(30_000).as_bytes());
    assert_eq!(dialogue.ask("."), "451 qq write error or disk full (#4.3.0)");
    assert_eq!(dialogue.ask("NOOP"), "250 ok");
}

#[test]
fn a_client_that_goes_in_the_middle_leaves_no_message() {
    let home = Home::new();
    // It keeps what it gets of the envelope, too.
    let mut dialogue = home.begin();
    dialogue.begin_message();
    dialogue.send(b"Subject: x\r\n\r\nhalf a mess");
    let end = dialogue.end();
    assert_eq!((end.code, &*end.said), (Some(1), ""));
    // Without its last NUL it is no envelope (qmail-queue(8)).
    assert!(until(|| home.path().join("envelope").exists()));
    assert_eq!(home.kept("envelope"), b"");
    // Nor does one that gives up, or sends too much.
    std::fs::remove_file(home.path().join("envelope")).unwrap();
    let mut dialogue = Dialogue::begin(home.smtpd(&[]).env("DATABYTES", "3"));
    dialogue.begin_message();
    let refused = dialogue.ask("too much\r\n.");
    assert_eq!(refused, "552 sorry, that message size exceeds my databytes limit (#5.3.4)");
    assert_eq!(home.kept("envelope"), b"");
}

#[test]
fn a_client_that_says_nothing_is_left() {
    let home = Home::new();
    home.control("timeoutsmtpd", "1\n");
    for content in [false, true] {
        let mut dialogue = home.begin();
        if content {
            dialogue.begin_message();
            dialogue.send(b"Subject: x\r\n");
        } else {
            assert_eq!(dialogue.reply(), "220 mail.here.test ESMTP");
        }
        assert_eq!(dialogue.reply(), "451 timeout (#4.4.2)");
        assert!(dialogue.ends());
        assert_eq!(dialogue.end().code, Some(1));
    }
}

#[test]
fn a_loop_is_broken() {
    let home = Home::new();
    for (hops, expected) in
        [(99, "250 ok "), (100, "554 too many hops, this message is looping (#5.4.6)")]
    {
        let mut dialogue = home.begin();
        dialogue.begin_message();
        dialogue.send("Received: x\r\n".repeat(hops - 1).as_bytes());
        dialogue.send(b"dElivered-to: y\r\n\r\nReceived: no\r\n");
        let reply = dialogue.ask(".");
        assert!(reply.starts_with(expected), "{hops}: {reply}");
    }
}

#[test]
fn a_bare_line_feed_in_a_message_ends_the_connection() {
    let home = Home::new();
    let mut dialogue = home.begin();
    dialogue.begin_message();
    dialogue.send(b"x\r\n.\nMAIL FROM:<evil@b.test>\r\n");
    assert_eq!(dialogue.reply(), "451 See http://pobox.com/~djb/docs/smtplf.html.");
    let end = dialogue.end();
    assert_eq!((end.code, &*end.said), (Some(1), ""));
    assert!(until(|| home.path().join("envelope").exists()));
    assert_eq!(home.kept("envelope"), b"");
}

#[cfg(feature = "peers")]
mod passwords {
    use super::*;

    /// `HMAC-MD5("open sesame", challenge)`, by a program of others.
    fn digest(challenge: &str) -> String {
        let script = "import hmac, sys; print(hmac.new(b'open sesame', sys.argv[1].encode(), 'md5').hexdigest())";
        let mut python = std::process::Command::new("python3");
        support::succeeded(&python.args(["-c", script, challenge]).output().unwrap()).trim().into()
    }

    fn base64(text: &str) -> String {
        let mut encode = std::process::Command::new("python3");
        let script = "import base64, sys; print(base64.b64encode(sys.argv[1].replace('|', '\\0').encode()).decode())";
        support::succeeded(&encode.args(["-c", script, text]).output().unwrap()).trim().into()
    }

    fn decoded(text: &str) -> String {
        let mut decode = std::process::Command::new("python3");
        let script = "import base64, sys; print(base64.b64decode(sys.argv[1]).decode())";
        support::succeeded(&decode.args(["-c", script, text]).output().unwrap()).trim().into()
    }

    fn begin(home: &Home) -> Dialogue {
        let mut dialogue = Dialogue::begin(&mut home.smtpd(&["./checker", "true"]));
        assert_eq!(dialogue.reply(), "220 mail.here.test ESMTP");
        dialogue
    }

    #[test]
    fn any_checkpassword_program_decides() {
        let home = Home::new();
        let mut dialogue = begin(&home);
        let hello = "250-mail.here.test\n250-PIPELINING\n250-8BITMIME\n250-SIZE 0\n250 AUTH LOGIN PLAIN CRAM-MD5";
        assert_eq!(dialogue.ask("EHLO client.test"), hello);
        let wrong = base64("|joe@here.test|sesame");
        dialogue.expect(&[
            (&format!("AUTH PLAIN {wrong}"), "535 authentication failed (#5.7.1)"),
            ("AUTH PLAIN ====", "501 malformed auth input (#5.5.4)"),
        ]);
        assert_eq!(home.kept("kept"), b"joe@here.test\0sesame\0\0");
        let right = base64("|joe@here.test|open sesame");
        dialogue.expect(&[
            ("MAIL FROM:<joe@here.test>", "250 ok"),
            (
                "RCPT TO:<a@elsewhere.test>",
                "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
            ),
            ("RSET", "250 flushed"),
            ("AUTH PLAIN", "334"),
            (&right, "235 ok, go ahead (#2.0.0)"),
            ("MAIL FROM:<joe@here.test>", "250 ok"),
            ("RCPT TO:<a@elsewhere.test>", "250 ok"),
            ("DATA", "354 go ahead"),
        ]);
        assert!(dialogue.ask("x\r\n.").starts_with("250 ok "));
        let message = home.kept_text("message");
        let field = "Received: from unknown (HELO client.test) (joe@here.test@192.0.2.1)\n";
        assert!(message.starts_with(field), "{message}");
        // A program behind it knows as well.
        let variables = home.kept_text("variables");
        assert!(
            variables.contains("TCPREMOTEINFO=joe@here.test\n")
                && variables.contains("RELAYCLIENT=\n")
        );
    }

    #[test]
    fn login_and_digests_do_too() {
        let home = Home::new();
        let mut dialogue = begin(&home);
        let (user, password) = (base64("joe@here.test"), base64("open sesame"));
        dialogue.expect(&[
            ("AUTH LOGIN", "334 VXNlcm5hbWU6"),
            (&user, "334 UGFzc3dvcmQ6"),
            (&password, "235 ok, go ahead (#2.0.0)"),
        ]);
        assert_eq!(home.kept("kept"), b"joe@here.test\0open sesame\0\0");
        let mut command = home.smtpd(&["./checker", "true"]);
        // The program would work it out for itself.
        command.env("DIGEST", "[0-9a-f]{32}");
        let mut dialogue = Dialogue::begin(&mut command);
        dialogue.reply();
        let challenge = decoded(&dialogue.ask("AUTH CRAM-MD5")["334 ".len()..]);
        let is_one = challenge.starts_with('<') && challenge.ends_with("@mx.here.test>");
        assert!(is_one, "{challenge}");
        let digest = digest(&challenge);
        let response = base64(&format!("joe@here.test {digest}"));
        dialogue.expect(&[(&response, "235 ok, go ahead (#2.0.0)")]);
        let told = format!("joe@here.test\0{digest}\0{challenge}\0");
        assert_eq!(home.kept_text("kept"), told);
    }

    /// Trouble is no wrong password, and nothing is waited for without end.
    #[test]
    fn a_program_in_trouble_is_told_from_a_wrong_password() {
        let home = Home::new();
        let auth = format!("AUTH PLAIN {}", base64("|joe|open sesame"));
        let child = "454 oops, problem with child and I can't auth (#4.3.0)";
        let begun = Instant::now();
        for (program, expected) in [
            ("exit 0", "235 ok, go ahead (#2.0.0)"),
            ("exit 3", "535 authentication failed (#5.7.1)"),
            ("exit 111", child),
            ("kill -SEGV $$", child),
            ("sleep 1000; exit 0", child),
        ] {
            let mut command = home.smtpd(&["sh", "-c", program]);
            let mut dialogue = Dialogue::begin(command.env("CHECKPASSWORDTIMEOUT", "1"));
            dialogue.reply();
            dialogue.expect(&[(&auth, expected), ("NOOP", "250 ok")]);
            let told = dialogue.end().told;
            assert_eq!(told.contains("qmail-smtpd: warning: sh "), expected == child, "{told}");
        }
        let mut dialogue = Dialogue::begin(&mut home.smtpd(&["/nonexistent/vchkpw", "true"]));
        dialogue.reply();
        let start = "454 oops, child won't start and I can't auth (#4.3.0)";
        dialogue.expect(&[(&auth, start), ("NOOP", "250 ok")]);
        assert!(dialogue.end().told.contains("/nonexistent/vchkpw does not start"));
        assert!(begun.elapsed() < support::PATIENCE, "{:?}", begun.elapsed());
        // What is longer than any such program reads is asked of none.
        let long = format!("AUTH PLAIN {}", base64(&format!("|joe|{}", "x".repeat(600))));
        let mut dialogue = Dialogue::begin(&mut home.smtpd(&["true"]));
        dialogue.reply();
        dialogue.expect(&[(&long, "535 authentication failed (#5.7.1)")]);
    }

    /// Whoever guesses waits, and not for ever.
    #[test]
    fn wrong_passwords_are_answered_late_and_some_times_only() {
        let home = Home::new();
        let wrong = format!("AUTH PLAIN {}", base64("|joe|sesame"));
        let mut command = home.smtpd(&["false"]);
        let mut dialogue = Dialogue::begin(command.env("AUTHSLEEP", "1"));
        dialogue.reply();
        let begun = Instant::now();
        dialogue.expect(&[(&wrong, "535 authentication failed (#5.7.1)")]);
        assert!(begun.elapsed() >= Duration::from_secs(1));
        let mut dialogue = Dialogue::begin(&mut home.smtpd(&["false"]));
        dialogue.reply();
        for _ in 0..10 {
            dialogue.expect(&[(&wrong, "535 authentication failed (#5.7.1)")]);
        }
        assert_eq!(dialogue.reply(), "421 too many failed authentications (#4.7.0)");
        assert_eq!(dialogue.end().code, Some(1));
    }
}

mod scanners {
    use super::*;

    const LATER: &str = "450 temporary envelope failure (#4.3.0)";
    const NEVER: &str = "550 sorry, permanent envelope failure (#5.7.1)";

    #[track_caller]
    fn check(home: &Home, more: &[(&str, &str)], expected: &str) -> String {
        let mut command = home.smtpd(&[]);
        let mut dialogue = Dialogue::begin(command.envs(more.iter().copied()));
        dialogue.reply();
        dialogue.expect(&[("MAIL FROM:<a@b.test>", "250 ok"), ("RCPT TO:<c@here.test>", expected)]);
        dialogue.end().told
    }

    #[test]
    fn the_scanner_is_asked_while_it_is_there() {
        let home = Home::new();
        assert_eq!(check(&home, &[], "250 ok"), "");
        home.script(
            "scanner",
            "#!/bin/sh\necho \"$1|$2|$TCPREMOTEIP|$GREYLISTING\" >> asked\nexit 101\n",
        );
        let grey = [("GREYLISTING", "")];
        assert_eq!(check(&home, &grey, LATER), "");
        assert_eq!(home.kept_text("asked"), "a@b.test|c@here.test|192.0.2.1|\n");
        // Not of a client that may relay, nor of one that a rule excepts.
        check(&home, &[("RELAYCLIENT", "")], "250 ok");
        check(&home, &[("GREYLISTING", "off")], "250 ok");
        assert_eq!(home.kept_text("asked").lines().count(), 1);
        home.script("scanner", "#!/bin/sh\nexit 100\n");
        check(&home, &[], NEVER);
        std::fs::remove_file(home.path().join("scanner")).unwrap();
        check(&home, &[], "250 ok");
    }

    #[test]
    fn a_scanner_in_trouble_refuses_nobody() {
        let home = Home::new();
        for (script, trouble) in [
            ("#!/bin/sh\nexit 111\n", ""),
            ("#!/bin/sh\nexit 1\n", ""),
            ("#!/bin/sh\nkill -SEGV $$\n", "was killed by signal 11"),
            ("#!/bin/sh\nsleep 1000\n", "took longer than 1 s"),
            ("no program", "does not start"),
        ] {
            home.script("scanner", script);
            let told = check(&home, &[("ENVELOPESCANNERTIMEOUT", "1")], "250 ok");
            assert!(
                told.contains(trouble) && told.is_empty() == trouble.is_empty(),
                "{script}: {told}"
            );
        }
    }
}

/// The paths of the recipe are what is so without variables.
#[cfg(feature = "peers")]
#[test]
fn the_recipes_paths_are_the_defaults() {
    let home = Home::new();
    let trace = home.path().join("trace");
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=chdir,execve", "-o"]).arg(&trace);
    let smtpd = home.smtpd(&[]);
    command.arg(smtpd.get_program()).args(smtpd.get_args());
    home.set(&mut command);
    command.env_remove("QMAILHOME");
    drop(Dialogue::begin(&mut command).end());
    let traced = std::fs::read_to_string(&trace).unwrap();
    assert!(traced.contains("chdir(\"/var/qmail\")"), "{traced}");
    if Path::new("/usr/sbin/qmail-envelope-scanner").exists() {
        return;
    }
    command.env("QMAILHOME", home.path()).env_remove("ENVELOPESCANNER");
    let mut dialogue = Dialogue::begin(&mut command);
    dialogue.reply();
    dialogue.expect(&[("MAIL FROM:<a@b.test>", "250 ok"), ("RCPT TO:<c@here.test>", "250 ok")]);
    drop(dialogue.end());
    let traced = std::fs::read_to_string(&trace).unwrap();
    assert!(traced.contains("execve(\"/usr/sbin/qmail-envelope-scanner\""), "{traced}");
}
