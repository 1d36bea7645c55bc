//! A text of rules becomes a cdb, or what is wrong with it is told by line and column.

use std::fmt;

use crate::line::{self, Fault, Grammar, Line, Rule, Wrong};
use crate::writer::{CdbWriter, TooLarge};

/// Rules as a cdb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The cdb.
    pub cdb: Vec<u8>,
    /// How many records it has.
    pub records: usize,
    /// What was probably not meant so.
    pub remarks: Vec<Remark>,
}

/// Something that was probably not meant so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The line, from 1.
    pub line: usize,
    /// What is the matter.
    pub what: &'static str,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Remarks that are kept of one text.
const REMARKS_MAX: usize = 20;

/// The first line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {why}")]
pub struct Unusable {
    /// The line, from 1.
    pub line: usize,
    /// The column in letters, from 1.
    pub column: usize,
    /// Why.
    pub why: Why,
    /// The line without its end.
    pub text: Vec<u8>,
}

/// Why a line cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It is no rule.
    #[error("{0}")]
    Wrong(Wrong),
    /// With it the rules are too large.
    #[error("{0}")]
    TooLarge(TooLarge),
}

impl Why {
    /// What to do about it.
    pub fn cure(&self) -> String {
        match self {
            Self::Wrong(wrong) => wrong.cure(),
            Self::TooLarge(_) => "name fewer addresses, or networks instead of each address".into(),
        }
    }
}

/// Compiles a text to a cdb of at most `size_max` bytes. With the exact grammar it is, byte for byte, what
/// tcprules writes.
///
/// # Errors
/// The first line that cannot be used.
pub fn compile(text: &[u8], grammar: Grammar, size_max: u32) -> Result<Compiled, Unusable> {
    let mut writer = CdbWriter::new(size_max);
    let mut remarks = Vec::new();
    let mut number = 0;
    for whole in text.split_inclusive(|&byte| byte == b'\n') {
        number += 1;
        let line = line::trimmed(whole, grammar);
        let added = match line::read(line, grammar) {
            Ok(Line::Nothing) => Ok(()),
            Ok(Line::Rule(rule)) => {
                remarks.extend(remark(&rule).map(|what| Remark { line: number, what }));
                add(&mut writer, &rule, grammar)
            }
            Err((at, wrong)) => Err((at, Why::Wrong(wrong))),
        };
        added.map_err(|(at, why)| unusable(number, line, at, why))?;
        remarks.truncate(REMARKS_MAX);
    }
    let records = writer.records();
    let finished = writer.finish();
    let cdb = finished.map_err(|error| unusable(number, b"", 0, Why::TooLarge(error)))?;
    Ok(Compiled { cdb, records, remarks })
}

fn unusable(line: usize, text: &[u8], at: usize, why: Why) -> Unusable {
    let before = text.get(..at).unwrap_or(text);
    let column = String::from_utf8_lossy(before).chars().count() + 1;
    Unusable { line, column, why, text: text.to_vec() }
}

fn add(writer: &mut CdbWriter, rule: &Rule<'_>, grammar: Grammar) -> Result<(), (usize, Why)> {
    let wrong = |(at, wrong): Fault| (at, Why::Wrong(wrong));
    for key in rule.keys(grammar).map_err(wrong)? {
        writer.add(&key, &rule.record).map_err(|error| (0, Why::TooLarge(error)))?;
    }
    Ok(())
}

/// What is strange about a rule that is one.
fn remark(rule: &Rule<'_>) -> Option<&'static str> {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace();
    rule.key.iter().any(is_blank).then_some("its key has a blank, and no client matches it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cdb;

    fn keys(text: &str, grammar: Grammar) -> Result<Vec<String>, String> {
        let mut keys = Vec::new();
        for line in text.lines() {
            let line = line::trimmed(line.as_bytes(), grammar);
            let shown = |(at, wrong): Fault| format!("{at}: {wrong}");
            if let Line::Rule(rule) = line::read(line, grammar).map_err(shown)? {
                let found = rule.keys(grammar).map_err(shown)?;
                keys.extend(found.into_iter().map(|key| String::from_utf8(key).unwrap()));
            }
        }
        Ok(keys)
    }

    #[test]
    fn ranges_are_those_of_tcprules() {
        let check = |key: &str, expected: &[&str]| {
            let found = keys(&format!("{key}:allow"), Grammar::Exact).unwrap();
            assert_eq!(found, expected, "{key}");
        };
        check("1.2.3.37-39", &["1.2.3.37", "1.2.3.38", "1.2.3.39"]);
        check("10.2-3.", &["10.2.", "10.3."]);
        check("1-2.", &["1.", "2."]);
        check("1.2-3.4-5", &["1.2.4-5", "1.3.4-5"]);
        check("1.254-999", &["1.254", "1.255"]);
        check("1.5-3", &[]);
        check("1.-1", &["1.0", "1.1"]);
        check("1.007-8", &["1.7", "1.8"]);
        check("=my-host", &["=my-host"]);
        check("a-b@1.2.3.4", &["a-b@1.2.3.4"]);
        check("1.18446744073709551617-2", &["1.1", "1.2"]);
    }

    #[test]
    fn the_first_of_two_wins() {
        let text = b"1.2.3.4:allow,A=\"1\"\n1.2.3.4:deny\n";
        let Compiled { cdb, .. } = compile(text, Grammar::Exact, u32::MAX).unwrap();
        assert_eq!(Cdb::new(&cdb).find(b"1.2.3.4"), Ok(Some(&b"+A=1\0"[..])));
    }

    #[test]
    fn more_is_understood_where_tcprules_would_not() {
        let text = "  # office: all\r\n192.0.2.0/24:allow,A=\"x\" # ours\n\n2001:db8::/32:deny\t#\n10.1-2.0.0/16:allow\r\n";
        let found = keys(text, Grammar::Extended).unwrap();
        assert_eq!(found, ["192.0.2.0/24", "2001:db8::/32", "10.1.0.0/16", "10.2.0.0/16"]);
        for line in text.lines().filter(|line| line.contains(" #") || line.ends_with('\r')) {
            assert!(keys(line, Grammar::Exact).is_err() || !line.contains(':'), "{line}");
        }
        // A mark of a value may be anything, and what is in it too.
        let found = keys("1.2.3.4:allow,A=# x#,B=/ #/", Grammar::Extended);
        assert_eq!(found.unwrap(), ["1.2.3.4"]);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_place() {
        let wrong = [
            "1.2.3.4 allow",
            "1.2.3.4:alow",
            "1.2.3.4:ALLOW",
            "2001:db8::1",
            "1.2.3.4:allow:",
            "1.2.3.4:allow,RELAYCLIENT",
            "1.2.3.4:allow,RELAYCLIENT=",
            "1.2.3.4:allow,RBLSMTPD=\"-no",
            "my-host:deny",
            "1.2.3.4-b:deny",
            "192.0.2.1/24:deny",
            "é:alow",
        ];
        let mut told = String::new();
        for line in wrong {
            let text = format!("# first\n{line}\n");
            let error = compile(text.as_bytes(), Grammar::Extended, u32::MAX).unwrap_err();
            told.extend([line, "\n  ", &error.to_string(), "\n  ", &error.why.cure(), "\n"]);
        }
        insta::assert_snapshot!(told, @r#"
        1.2.3.4 allow
          line 2, column 1: a rule has a colon, with `allow` or `deny` behind it
          write ADDRESS:allow or ADDRESS:deny, or begin a comment with #
        1.2.3.4:alow
          line 2, column 9: `allow` or `deny` must follow the colon, in small letters
          write ADDRESS:allow or ADDRESS:deny
        1.2.3.4:ALLOW
          line 2, column 9: `allow` or `deny` must follow the colon, in small letters
          write ADDRESS:allow or ADDRESS:deny
        2001:db8::1
          line 2, column 6: `allow` or `deny` must follow the colon, in small letters
          write ADDRESS:allow or ADDRESS:deny
        1.2.3.4:allow:
          line 2, column 14: the rule should end here, or go on with a comma and a variable
          remove the rest; a comment begins with ` #`
        1.2.3.4:allow,RELAYCLIENT
          line 2, column 15: a variable needs a name, `=` and a value in quotes, as in `,RELAYCLIENT=""`
          write NAME="VALUE", without blanks around
        1.2.3.4:allow,RELAYCLIENT=
          line 2, column 15: a variable needs a name, `=` and a value in quotes, as in `,RELAYCLIENT=""`
          write NAME="VALUE", without blanks around
        1.2.3.4:allow,RBLSMTPD="-no
          line 2, column 24: the value does not end: the mark that it begins with, '"', must come again
          end the value with "
        my-host:deny
          line 2, column 1: a range is of numbers, as in `192.0.2.10-20`; names with `-` begin with `=`
          write FIRST-LAST, or the name as =NAME
        1.2.3.4-b:deny
          line 2, column 9: a range is of numbers, as in `192.0.2.10-20`; names with `-` begin with `=`
          write FIRST-LAST, or the name as =NAME
        192.0.2.1/24:deny
          line 2, column 1: the address is not the first of its network, which is 192.0.2.0/24
          write 192.0.2.0/24
        é:alow
          line 2, column 3: `allow` or `deny` must follow the colon, in small letters
          write ADDRESS:allow or ADDRESS:deny
        "#);
    }

    #[test]
    fn what_was_hardly_meant_so_is_remarked_on() {
        let text = b"10.0.0.1:allow\n 10.0.0.2:deny\n10.0.0.3:deny\n";
        let Compiled { remarks, .. } = compile(text, Grammar::Extended, u32::MAX).unwrap();
        let told: Vec<_> = remarks.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["line 2: its key has a blank, and no client matches it"]);
    }

    #[test]
    fn too_many_addresses_are_refused() {
        let text = b"1.0-255:allow,A=\"long enough\"\n".repeat(100);
        let error = compile(&text, Grammar::Exact, 64 * 1024).unwrap_err();
        assert!(error.to_string().contains("larger than 65536 bytes"), "{error}");
    }
}
