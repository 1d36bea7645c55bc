//! What `sendmail` takes and how it ends, in words: for its help and its manual page. The guide says the same.

use std::fmt::Write as _;

/// The options, each group with what it does.
pub const OPTIONS: [(&str, &str); 8] = [
    ("-t", "take recipients from To, Cc and Bcc (or Resent-To, …), with those on the command line"),
    ("-i, -oi", "a line with a dot alone does not end the message"),
    ("-f ADDRESS, -r ADDRESS", "the sender; `-f \"\"` for none"),
    ("-F NAME", "the name in From, where the message has no From"),
    ("-bs", "SMTP on standard input and output"),
    ("-bp, mailq", "`lamppost queue`"),
    (
        "-q, -bi, newaliases",
        "nothing, with success: the queue runs by itself, and there is no table of aliases",
    ),
    ("-v", "tell the id under which the message is stored"),
];

/// The exit codes of sysexits.h, and when it ends with each.
pub const EXIT_CODES: [(&str, &str); 7] = [
    ("0", "taken"),
    ("64", "the command line is wrong, or there is no recipient"),
    ("65", "an address is none, or the message is too large or not as mail must be"),
    ("67", "there is no such mailbox here"),
    ("69", "refused for good"),
    ("75", "not now: Lamppost does not run, its disk is full, or the quota is used up. Try again"),
    ("77", "the user may not send under this address; or the program was made setuid"),
];

/// What `sendmail --help` prints.
pub(super) fn help() -> String {
    let mut text = String::from(
        "Hands the message on standard input to Lamppost.\n\n\
         Usage: sendmail [OPTION …] [RECIPIENT …]\n\n",
    );
    for (names, does) in OPTIONS {
        let _infallible = writeln!(text, "  {names}\n      {does}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_says_the_same() {
        let guide = include_str!("../../../../docs/guides/sendmail.md");
        for (names, does) in OPTIONS {
            let names: Vec<_> = names.split(", ").map(|name| format!("`{name}`")).collect();
            let row = format!("| {} | {does} |\n", names.join(", "));
            assert!(guide.contains(&row), "no row {row}");
        }
        for (code, when) in EXIT_CODES {
            let row = format!("| {code} | {when} |\n");
            assert!(guide.contains(&row), "no row {row}");
        }
    }
}
