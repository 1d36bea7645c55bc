//! From bytes to questions, bounded whatever comes.

use std::net::IpAddr;

/// What the environment of qmail's envelope scanner may say, so that it can be held against what holds here:
/// where its rows are, and for how long (in minutes, the last in days).
pub const RECIPE: [&str; 5] =
    ["MYSQLHOST", "MYSQLDB", "BLOCK_EXPIRE", "RECORD_EXPIRE", "RECORD_EXPIRE_GOOD"];
/// What the name of an attribute begins with that is one of those.
pub(crate) const RECIPE_PREFIX: &str = "recipe_";

/// What a mail server wants to know about an attempt to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// How far the client's dialogue is: `RCPT`, `DATA`, `END-OF-MESSAGE`, …
    pub stage: String,
    /// The client's address; nothing where the mail server does not know it.
    pub client: Option<IpAddr>,
    /// What the client calls itself; empty where that is not told.
    pub helo: String,
    /// The address in MAIL FROM; empty for the null sender.
    pub sender: String,
    /// The address in RCPT TO; empty when there are several at once.
    pub recipient: String,
    /// What tells one message from the next; empty where the mail server tells none.
    pub instance: String,
    /// The name by which the client authenticated; empty when it did not.
    pub login: String,
    /// What the environment of who asks says, by the names of [`RECIPE`]; mail servers have none.
    pub recipe: Vec<(&'static str, String)>,
}

/// Why bytes are no question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It does not end where it must.
    #[error("the question has more than {bytes_max} bytes (request-size-max)")]
    TooLong {
        /// The bytes that it may have.
        bytes_max: usize,
    },
    /// A line is no attribute.
    #[error("line {line} of the question is not of the form name=value")]
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// It asks for something else.
    #[error("the question is not one of request=smtpd_access_policy")]
    Request,
}

/// Takes bytes in any pieces and gives whole questions.
#[derive(Debug)]
pub struct Decoder {
    waiting: Vec<u8>,
    /// Bytes at the start that hold no end of a question.
    searched: usize,
    bytes_max: usize,
}

impl Decoder {
    /// A decoder of questions that have at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { waiting: Vec::new(), searched: 0, bytes_max }
    }

    /// Takes more bytes. As many may wait as a question may have, and those of one read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Whether a question has begun and did not end.
    pub fn is_within(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next whole question, if it is there.
    ///
    /// # Errors
    /// When it is none; nothing that follows can be understood then.
    pub fn next_question(&mut self) -> Result<Option<Question>, Problem> {
        let Some(end) = self.end() else {
            self.searched = self.waiting.len();
            let is_too_long = self.waiting.len() > self.bytes_max;
            return if is_too_long { Err(self.too_long()) } else { Ok(None) };
        };
        if end > self.bytes_max {
            return Err(self.too_long());
        }
        let question = read(&self.waiting[..end]);
        self.waiting.drain(..end);
        self.searched = 0;
        question.map(Some)
    }

    fn too_long(&self) -> Problem {
        Problem::TooLong { bytes_max: self.bytes_max }
    }

    /// Where the first question ends, behind its empty line.
    fn end(&self) -> Option<usize> {
        let rest = &self.waiting[self.searched..];
        memchr::memchr_iter(b'\n', rest).map(|at| self.searched + at).find_map(|at| {
            let before = &self.waiting[..at];
            let before = before.strip_suffix(b"\r").unwrap_or(before);
            let is_empty_line = before.is_empty() || before.ends_with(b"\n");
            is_empty_line.then_some(at + 1)
        })
    }
}

/// Reads a question with its empty line.
fn read(bytes: &[u8]) -> Result<Question, Problem> {
    let mut question = Question::default();
    let mut is_known = None;
    let mut seen = Vec::new();
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let equals = memchr::memchr(b'=', line).ok_or(Problem::Line { line: number + 1 })?;
        let (name, value) = (&line[..equals], &line[equals + 1..]);
        // Of a name that comes again the first value is meant: a later one cannot change it.
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        // Addresses that are no UTF-8 are rare, and alike enough to themselves afterwards.
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            b"request" => is_known = Some(value == b"smtpd_access_policy"),
            b"protocol_state" => question.stage = text(),
            b"client_address" => question.client = text().parse().ok(),
            b"helo_name" => question.helo = text(),
            b"sender" => question.sender = text(),
            b"recipient" => question.recipient = text(),
            b"instance" => question.instance = text(),
            b"sasl_username" => question.login = text(),
            _ => match of_recipe(name) {
                Some(known) => question.recipe.push((known, text())),
                // What else mail servers tell, and will tell one day, does not matter here.
                None => drop(seen.pop()),
            },
        }
    }
    if is_known == Some(true) { Ok(question) } else { Err(Problem::Request) }
}

/// The variable of the recipe that an attribute is.
fn of_recipe(name: &[u8]) -> Option<&'static str> {
    let name = name.strip_prefix(RECIPE_PREFIX.as_bytes())?;
    RECIPE.into_iter().find(|known| known.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Postfix 3.7 asks.
    const ASKED: &str = "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n\
        client_address=192.0.2.1\nclient_name=mail.elsewhere.test\nhelo_name=mail.elsewhere.test\n\
        sender=a=b@elsewhere.test\nrecipient=demo@lamppost.test\nrecipient_count=0\nqueue_id=\n\
        instance=6b5f.65.0\nsize=0\nsasl_method=\nsasl_username=\nsasl_sender=\n\n";

    fn question() -> Question {
        Question {
            stage: "RCPT".into(),
            client: Some("192.0.2.1".parse().unwrap()),
            helo: "mail.elsewhere.test".into(),
            sender: "a=b@elsewhere.test".into(),
            recipient: "demo@lamppost.test".into(),
            instance: "6b5f.65.0".into(),
            ..Question::default()
        }
    }

    /// Gives bytes in one piece; returns what comes of them.
    fn all(bytes: &[u8]) -> Vec<Result<Question, Problem>> {
        let mut decoder = Decoder::new(1024);
        decoder.push(bytes);
        let mut all = Vec::new();
        loop {
            match decoder.next_question() {
                Ok(Some(question)) => all.push(Ok(question)),
                Ok(None) => return all,
                Err(problem) => {
                    all.push(Err(problem));
                    return all;
                }
            }
        }
    }

    #[test]
    fn questions_are_read_whatever_the_line_ends() {
        let again = ASKED.replace('\n', "\r\n");
        let expected = vec![Ok(question()), Ok(question())];
        assert_eq!(all(format!("{ASKED}{again}request=").as_bytes()), expected);
    }

    #[test]
    fn what_the_mail_server_does_not_know_is_nothing() {
        let asked = ASKED.replace("192.0.2.1", "unknown").replace("a=b@elsewhere.test", "");
        let expected = Question { client: None, sender: String::new(), ..question() };
        assert_eq!(all(asked.as_bytes()), [Ok(expected)]);
    }

    #[test]
    fn a_name_that_comes_again_changes_nothing() {
        let asked = ASKED.replace("size=0\n", "client_address=127.0.0.1\nsasl_username=root\n");
        let asked = asked.replace("sasl_username=root", "sender=\nrequest=other");
        assert_eq!(all(asked.as_bytes()), [Ok(question())]);
    }

    #[test]
    fn what_a_recipe_says_is_kept_by_its_names() {
        let more = "recipe_BLOCK_EXPIRE=5\nrecipe_BLOCK_EXPIRE=6\nrecipe_MYSQLPASS=x\nsize=0\n";
        let expected = Question { recipe: vec![("BLOCK_EXPIRE", "5".into())], ..question() };
        assert_eq!(all(ASKED.replace("size=0\n", more).as_bytes()), [Ok(expected)]);
    }

    #[track_caller]
    fn wrong(bytes: &[u8], problem: Problem) {
        assert_eq!(all(bytes), [Err(problem)]);
    }

    #[test]
    fn what_is_no_question_is_told() {
        wrong(b"\n", Problem::Request);
        wrong(b"sender=\n\n", Problem::Request);
        wrong(b"request=junk_policy\n\n", Problem::Request);
        wrong(b"request=smtpd_access_policy\nEHLO x\n\n", Problem::Line { line: 2 });
        let long = format!("request=smtpd_access_policy\nhelo_name={}", "x".repeat(1024));
        wrong(long.as_bytes(), Problem::TooLong { bytes_max: 1024 });
        wrong(format!("{long}\n\n").as_bytes(), Problem::TooLong { bytes_max: 1024 });
    }

    proptest! {
        /// Any bytes, in any pieces, give the same questions, and no more waits than was allowed.
        #[test]
        fn pieces_do_not_matter(
            lines in proptest::collection::vec("(request=smtpd_access_policy|sender=[^\n]{0,9}|\r?|[a-z]{0,3})\r?\n", 0..40),
            cuts in proptest::collection::vec(1_usize..60, 1..60),
        ) {
            let text = lines.concat();
            let whole = all(text.as_bytes());
            let mut decoder = Decoder::new(1024);
            let (mut pieces, mut rest) = (Vec::new(), text.as_bytes());
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() || matches!(pieces.last(), Some(Err(_))) {
                    break;
                }
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                decoder.push(piece);
                loop {
                    match decoder.next_question() {
                        Ok(Some(question)) => pieces.push(Ok(question)),
                        Ok(None) => break,
                        Err(problem) => {
                            pieces.push(Err(problem));
                            break;
                        }
                    }
                }
                prop_assert!(matches!(pieces.last(), Some(Err(_))) || decoder.waiting.len() <= 1024);
            }
            prop_assert_eq!(pieces, whole);
        }

        /// What is told of an attempt is what was asked about.
        #[test]
        fn values_come_through(sender in "[^\r\n]{0,40}", recipient in "[^\r\n]{0,40}") {
            let asked = format!("request=smtpd_access_policy\nsender={sender}\nrecipient={recipient}\n\n");
            let expected = Question { sender, recipient, ..Question::default() };
            prop_assert_eq!(all(asked.as_bytes()), [Ok(expected)]);
        }
    }
}
