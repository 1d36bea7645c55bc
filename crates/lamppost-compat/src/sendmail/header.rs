//! The header section as sendmail changes it: who gets the message, and what is left out and added.

use super::addresses::{BadList, addresses};

/// The fields before the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Each with its name in lower case and all its lines.
    fields: Vec<(String, Vec<u8>)>,
    /// Where the text begins, behind the empty line if there is one.
    pub(super) end: usize,
}

/// Fields that are not for others to read, or that hosts on the way write.
const LEFT_OUT: [&str; 4] = ["bcc", "resent-bcc", "return-path", "content-length"];

impl Header {
    /// Reads from the start of a message with LF line ends.
    pub(super) fn read(message: &[u8]) -> Self {
        let mut header = Self::default();
        // Mailbox files begin messages so.
        if message.starts_with(b"From ") || message.starts_with(b">From ") {
            header.end = line(message).len();
        }
        loop {
            let line = line(&message[header.end..]);
            if line == b"\n" {
                header.end += 1;
                return header;
            }
            let folded = line.starts_with(b" ") || line.starts_with(b"\t");
            match (name(line), header.fields.last_mut()) {
                (_, Some((_, lines))) if folded => lines.extend_from_slice(line),
                (Some(name), _) if !folded => header.fields.push((name, line.to_vec())),
                _ => return header,
            }
            header.end += line.len();
        }
    }

    /// Whether there is such a field.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }

    /// Everybody whom the fields name; those of a message that is sent on are told apart from those it
    /// was first sent to (RFC 5322 §3.6.6).
    pub(super) fn recipients(&self) -> Result<Vec<String>, BadList> {
        let plain = ["to", "cc", "bcc"];
        let resent = ["resent-to", "resent-cc", "resent-bcc"];
        let names = if resent.iter().any(|name| self.has(name)) { resent } else { plain };
        let mut found = Vec::new();
        for (name, lines) in &self.fields {
            if names.contains(&name.as_str()) {
                let text = String::from_utf8_lossy(lines);
                let value = text.split_once(':').map_or("", |(_, value)| value);
                found.extend(addresses(value)?);
            }
        }
        Ok(found)
    }

    /// The section as it is sent, up to and with the empty line.
    pub(super) fn to_bytes(&self, from: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, lines) in &self.fields {
            if !LEFT_OUT.contains(&name.as_str()) {
                bytes.extend_from_slice(lines);
                if !lines.ends_with(b"\n") {
                    bytes.push(b'\n');
                }
            }
        }
        if let Some(from) = from {
            bytes.extend_from_slice(format!("From: {from}\n").as_bytes());
        }
        bytes.push(b'\n');
        bytes
    }
}

/// The value of a From field.
pub(super) fn from(address: &str, full_name: Option<&str>) -> String {
    match full_name.map(str::trim) {
        None | Some("") => address.to_owned(),
        Some(name) if name.chars().all(|l| l == ' ' || l.is_ascii_graphic()) => {
            let name = name.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{name}\" <{address}>")
        }
        Some(name) => format!("{} <{address}>", encoded(name)),
    }
}

/// A name beyond ASCII (RFC 2047 §4.2), in words of at most 75 letters.
fn encoded(name: &str) -> String {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        let code = match letter {
            ' ' => "_".into(),
            _ if letter.is_ascii_alphanumeric() => letter.to_string(),
            _ => letter
                .encode_utf8(&mut [0; 4])
                .bytes()
                .fold(String::new(), |code, byte| format!("{code}={byte:02X}")),
        };
        if words.last().is_none_or(|word| word.len() + code.len() > 60) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push_str(&code);
        }
    }
    let words: Vec<_> = words.iter().map(|word| format!("=?UTF-8?Q?{word}?=")).collect();
    words.join("\n ")
}

fn line(text: &[u8]) -> &[u8] {
    text.split_inclusive(|&byte| byte == b'\n').next().unwrap_or_default()
}

/// The name of the field that begins on this line (RFC 5322 §2.2), in lower case.
fn name(line: &[u8]) -> Option<String> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    Some(String::from_utf8_lossy(name).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn sent(message: &str, from: Option<&str>) -> String {
        let header = Header::read(message.as_bytes());
        let mut bytes = header.to_bytes(from);
        bytes.extend_from_slice(&message.as_bytes()[header.end..]);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn secret_recipients_are_found_and_left_out() {
        let message = "To: a@b.test\nBCC: c@d.test,\n\te@f.test\nSubject: x\n\nText\n";
        let found = Header::read(message.as_bytes()).recipients().unwrap();
        assert_eq!(found, ["a@b.test", "c@d.test", "e@f.test"]);
        assert_eq!(sent(message, None), "To: a@b.test\nSubject: x\n\nText\n");
    }

    #[test]
    fn a_message_that_is_sent_on_goes_to_its_new_recipients() {
        let message = "To: a@b.test\nResent-To: c@d.test\n\n";
        assert_eq!(Header::read(message.as_bytes()).recipients().unwrap(), ["c@d.test"]);
    }

    #[test]
    fn a_text_without_header_gets_one() {
        assert_eq!(
            sent("Hello: it is me\n", Some("a@b.test")),
            "Hello: it is me\nFrom: a@b.test\n\n"
        );
        assert_eq!(sent("Hello\nyou\n", Some("a@b.test")), "From: a@b.test\n\nHello\nyou\n");
        assert_eq!(sent("\nHello\n", None), "\nHello\n");
        assert_eq!(sent("From me Mon Jan 1\nSubject: x\n\nHello\n", None), "Subject: x\n\nHello\n");
        assert_eq!(sent("", None), "\n");
        assert_eq!(sent("Subject: x", None), "Subject: x\n\n");
    }

    proptest! {
        #[test]
        fn any_message_has_a_header_and_a_text(message in "([ \t:>\nA-Za-z@,<é]|From |Bcc:|To:){0,60}") {
            let header = Header::read(message.as_bytes());
            prop_assert!(header.end <= message.len());
            drop(header.recipients());
            let sent = header.to_bytes(None);
            prop_assert!(sent.ends_with(b"\n"));
            // What is secret is not found again in what others get.
            let again = Header::read(&sent);
            prop_assert!(LEFT_OUT.iter().all(|name| !again.has(name)));
        }
    }

    #[test]
    fn names_are_written_as_a_field_may_hold_them() {
        assert_eq!(from("a@b.test", None), "a@b.test");
        assert_eq!(from("a@b.test", Some("Cron \"x\"")), "\"Cron \\\"x\\\"\" <a@b.test>");
        assert_eq!(from("a@b.test", Some("Jürgen M")), "=?UTF-8?Q?J=C3=BCrgen_M?= <a@b.test>");
        assert!(!from("a@b.test", Some("x\nBcc: y")).contains("\nBcc"));
    }
}
