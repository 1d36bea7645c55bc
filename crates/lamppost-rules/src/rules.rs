//! The rules of a file, text or cdb, and what they say of a client.

use std::net::IpAddr;

use crate::cdb::{Cdb, Damaged, HEADER_BYTES};
use crate::compile::{Compiled, Remark, Unusable, compile};
use crate::line::Grammar;
use crate::lookup::{Client, Effect, Keys, look_up};

/// Which kind of file rules are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// What tcprules made.
    Cdb,
    /// Text.
    Text,
}

/// Rules that are in force as a whole.
#[derive(Clone, Debug)]
pub struct Rules {
    cdb: Vec<u8>,
    form: Form,
    remarks: Vec<Remark>,
    have_names: bool,
}

/// What rules say of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The key of the rule; nothing where none is met.
    pub key: Option<String>,
    /// Whether the client is denied.
    pub denied: bool,
    /// Variables and their values, each once, with the last value that was set.
    pub variables: Vec<(String, String)>,
}

/// Why a file holds no rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is no text, and no whole cdb either.
    #[error("line 1, column {column}: it is no text, and {damaged}")]
    Neither {
        /// The column of the first byte that is in no text, from 1.
        column: usize,
        /// Why it is no cdb.
        damaged: Damaged,
    },
    /// It is a text without any rule, as one that was cut off.
    #[error("line 1, column 1: there is no rule in it")]
    Empty,
    /// A line of the text cannot be used.
    #[error("{0}")]
    Text(Unusable),
}

impl ReadError {
    /// What to do about it.
    pub fn cure(&self) -> String {
        match self {
            Self::Neither { .. } => {
                "name a text of rules, or have tcprules make the cdb again".into()
            }
            Self::Empty => "write `:allow` for a rule that lets everybody connect".into(),
            Self::Text(unusable) => unusable.why.cure(),
        }
    }
}

impl Rules {
    /// The largest file, and the largest cdb that a text may become.
    pub const SIZE_MAX: u32 = 8 * 1024 * 1024;

    /// Reads what a file holds: a zero byte tells a cdb from text.
    ///
    /// # Errors
    /// What is wrong with it, by line and column where it is text.
    pub fn read(bytes: Vec<u8>) -> Result<Self, ReadError> {
        let begin = &bytes[..bytes.len().min(HEADER_BYTES)];
        let Some(zero) = begin.iter().position(|&byte| byte == 0) else {
            let compiled = compile(&bytes, Grammar::Extended, Self::SIZE_MAX);
            let Compiled { cdb, records, remarks } = compiled.map_err(ReadError::Text)?;
            if records == 0 {
                return Err(ReadError::Empty);
            }
            let have_names = have_names(&cdb).unwrap_or(false);
            return Ok(Self { cdb, form: Form::Text, remarks, have_names });
        };
        let have_names = have_names(&bytes)
            .map_err(|damaged| ReadError::Neither { column: zero + 1, damaged })?;
        Ok(Self { cdb: bytes, form: Form::Cdb, remarks: Vec::new(), have_names })
    }

    /// Which kind of file they were in.
    pub fn form(&self) -> Form {
        self.form
    }

    /// What was probably not meant so.
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// Whether any rule is about the names of clients: without one nobody needs to know them.
    pub fn have_names(&self) -> bool {
        self.have_names
    }

    /// The cdb, made of the text where they were one.
    pub fn cdb(&self) -> Cdb<'_> {
        Cdb::new(&self.cdb)
    }

    /// What they say of a client. `host` is its name, of which the address was found again.
    pub fn verdict(&self, address: IpAddr, host: Option<&str>) -> Verdict {
        let ip = address.to_canonical().to_string();
        let client = Client { ip: ip.as_bytes(), host: host.map(str::as_bytes), info: None };
        let mut verdict = Verdict::default();
        // What was read is whole: no search leaves it.
        let Ok(Some(found)) = look_up(&self.cdb(), &client, Keys::Networks) else {
            return verdict;
        };
        for effect in found.effects() {
            match effect {
                Effect::Deny => verdict.denied = true,
                Effect::Set(variable) => {
                    let text = String::from_utf8_lossy(variable);
                    let Some((name, value)) = text.split_once('=') else { continue };
                    verdict.variables.retain(|(known, _)| known != name);
                    verdict.variables.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        verdict.key = Some(String::from_utf8_lossy(&found.key).into_owned());
        verdict
    }
}

/// Whether any key of a whole cdb is about names.
fn have_names(cdb: &[u8]) -> Result<bool, Damaged> {
    let mut have_names = false;
    Cdb::new(cdb).look_through(|key| have_names |= key.starts_with(b"="))?;
    Ok(have_names)
}

impl Verdict {
    /// Whether it is by the client's name.
    pub fn is_by_name(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.starts_with('='))
    }

    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| &value[..])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
        127.:allow,RELAYCLIENT=\"\"\n\
        192.0.2.0/24:allow,A=\"1\",B=\"x\",A=\"2\" # the office\n\
        192.0.2.66:deny\n\
        =mail.example.org:allow,RELAYCLIENT=\"@x\"\n\
        2001:db8::/32:deny,A=\"b\"\n\
        :allow,RBLSMTPD=\"-no\"\n";

    fn told(rules: &Rules, address: &str, host: Option<&str>) -> String {
        let Verdict { key, denied, variables } = rules.verdict(address.parse().unwrap(), host);
        format!("{key:?} {denied} {variables:?}")
    }

    #[test]
    fn text_and_cdb_say_the_same() {
        let text = Rules::read(TEXT.into()).unwrap();
        let cdb = compile(TEXT.as_bytes(), Grammar::Extended, u32::MAX).unwrap().cdb;
        let cdb = Rules::read(cdb).unwrap();
        assert_eq!((text.form(), cdb.form()), (Form::Text, Form::Cdb));
        let check = |address: &str, host: Option<&str>, expected: &str| {
            assert_eq!(told(&text, address, host), expected);
            assert_eq!(told(&cdb, address, host), expected);
        };
        check("127.1.2.3", None, r#"Some("127.") false [("RELAYCLIENT", "")]"#);
        check("::ffff:127.1.2.3", None, r#"Some("127.") false [("RELAYCLIENT", "")]"#);
        check("192.0.2.1", None, r#"Some("192.0.2.0/24") false [("B", "x"), ("A", "2")]"#);
        check("192.0.2.66", Some("mail.example.org"), r#"Some("192.0.2.66") true []"#);
        check(
            "192.0.2.1",
            Some("mail.example.org"),
            r#"Some("=mail.example.org") false [("RELAYCLIENT", "@x")]"#,
        );
        check("2001:db8:1::1", None, r#"Some("2001:db8::/32") true [("A", "b")]"#);
        check("2001:db9::1", None, r#"Some("") false [("RBLSMTPD", "-no")]"#);
        assert!(text.have_names() && cdb.have_names());
        let named = text.verdict("192.0.2.1".parse().unwrap(), Some("mail.example.org"));
        assert!(named.is_by_name());
        let few = Rules::read(b"10.:deny\nx@=a.b:deny\n".to_vec()).unwrap();
        assert!(
            !few.have_names()
                && !few.verdict("10.0.0.1".parse().unwrap(), Some("a.b")).is_by_name()
        );
        assert_eq!(told(&few, "192.0.2.1", None), "None false []");
    }

    #[test]
    fn what_is_neither_is_told() {
        let error = Rules::read(b"\x7fELF\x02\x01\x01\0\0".to_vec()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 1, column 8: it is no text, and it is no whole cdb: what should be at byte 1179403647 is not there"
        );
        for empty in ["", "\n\n", "# 10.:allow\n"] {
            assert_eq!(Rules::read(empty.into()).unwrap_err(), ReadError::Empty);
        }
        let error = Rules::read(vec![0xff; 4096]).unwrap_err();
        assert!(error.to_string().starts_with("line 1, column 1: a rule has a colon"), "{error}");
        let error = Rules::read(b"127.:allow\nno way:out\n".to_vec()).unwrap_err();
        assert!(error.to_string().starts_with("line 2, column 8: "), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, address: IpAddr) {
            if let Ok(rules) = Rules::read(bytes) {
                drop(rules.verdict(address, Some("a.b")));
            }
        }

        #[test]
        fn texts_are_read_or_refused_in_their_place(
            text in "([0-9./:=@-]{0,6}(:|,)(allow|deny|a)?(,[A-C]=[\"/][x,:]{0,2}[\"/])?[ #]{0,2}\r?\n){0,6}"
        ) {
            let lines = text.matches('\n').count();
            match Rules::read(text.clone().into_bytes()) {
                Ok(rules) => prop_assert!(rules.remarks().iter().all(|one| one.line <= lines)),
                Err(ReadError::Text(wrong)) => {
                    let line = text.lines().nth(wrong.line - 1).unwrap();
                    prop_assert!(wrong.column <= line.chars().count() + 1);
                }
                Err(ReadError::Empty) => {}
                Err(ReadError::Neither { .. }) => prop_assert!(false),
            }
        }

        /// What tcprules takes, and holds no slash, means the same in the extended grammar.
        #[test]
        fn the_extended_grammar_takes_what_the_exact_one_does(
            text in "([0-9.:=@# -]{0,6}:(allow|deny)?(,[A-C]=[\"/#][x ,:]{0,2}[\"/#])?[ \t]{0,2}\n){0,6}"
        ) {
            let exact = compile(text.as_bytes(), Grammar::Exact, u32::MAX);
            let extended = compile(text.as_bytes(), Grammar::Extended, u32::MAX);
            if let Ok(exact) = exact {
                // A comment may begin later in its line; as a key it would match nobody.
                let is_comment = |line: &str| line.starts_with(' ') && line.trim_start().starts_with('#');
                prop_assume!(!text.lines().any(is_comment));
                prop_assert_eq!(extended.unwrap().cdb, exact.cdb);
            }
        }
    }
}
