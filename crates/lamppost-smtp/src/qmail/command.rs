//! Command lines as qmail-smtpd reads them: hardly anything is wrong (notqmail: commands.c, qmail-smtpd.c).

use crate::{Command, SyntaxError};

/// Bytes of an address with the NUL that ends it there.
const ADDRESS_MAX: usize = 900;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum QmailCommand {
    /// MAIL.
    Mail {
        sender: Vec<u8>,
        /// The size that the client announces, in bytes.
        size: u64,
    },
    /// What both manners have in common.
    Other(Result<Command, SyntaxError>),
    /// RCPT.
    Rcpt(Vec<u8>),
}

/// Reads a command line without its end.
pub(crate) fn parse(line: &[u8]) -> QmailCommand {
    let verb_end = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
    let (verb, rest) = line.split_at(verb_end);
    let arguments = without_blanks(rest);
    let text = || String::from_utf8_lossy(arguments).into_owned();
    let other = match verb.to_ascii_uppercase().as_slice() {
        b"MAIL" => {
            return match address(arguments) {
                Some(sender) => QmailCommand::Mail { sender, size: size(arguments) },
                None => QmailCommand::Other(Err(SyntaxError::Arguments)),
            };
        }
        b"RCPT" => {
            return address(arguments)
                .map_or(QmailCommand::Other(Err(SyntaxError::Arguments)), QmailCommand::Rcpt);
        }
        b"AUTH" => Ok(auth(&text())),
        b"DATA" => Ok(Command::Data),
        b"EHLO" => Ok(Command::Ehlo(text())),
        b"HELO" => Ok(Command::Helo(text())),
        b"HELP" => Ok(Command::Help),
        b"NOOP" => Ok(Command::Noop),
        b"QUIT" => Ok(Command::Quit),
        b"RSET" => Ok(Command::Rset),
        b"VRFY" => Ok(Command::Vrfy),
        _ => Err(SyntaxError::Unknown),
    };
    QmailCommand::Other(other)
}

fn without_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&byte| byte == b' ').count();
    &text[blanks..]
}

fn auth(arguments: &str) -> Command {
    let (mechanism, initial) = arguments.split_once(' ').unwrap_or((arguments, ""));
    let initial = Some(initial.trim_matches(' ')).filter(|initial| !initial.is_empty());
    Command::Auth {
        mechanism: mechanism.to_ascii_uppercase(),
        initial: initial.map(ToOwned::to_owned),
    }
}

/// The address in a path: what is behind `<` up to `>`, or else behind `:` up to a blank, without a
/// source route, quotes and backslashes; nothing when it is too long.
///
/// A line end in it, which a NUL stands for there, is refused, as no queue could tell it from its own.
fn address(arguments: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, end) = match arguments.iter().position(|&byte| byte == b'<') {
        Some(open) => (&arguments[open + 1..], b'>'),
        None => match arguments.iter().position(|&byte| byte == b':') {
            Some(colon) => (without_blanks(&arguments[colon + 1..]), b' '),
            None => (&arguments[arguments.len()..], b' '),
        },
    };
    if rest.first() == Some(&b'@') {
        let route =
            rest.iter().position(|&byte| byte == b':').map_or(rest.len(), |colon| colon + 1);
        rest = &rest[route..];
    }
    let (mut address, mut is_escaped, mut is_quoted) = (Vec::new(), false, false);
    for &byte in rest {
        match byte {
            _ if is_escaped => {
                address.push(byte);
                is_escaped = false;
            }
            _ if byte == end && !is_quoted => break,
            b'\\' => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ => address.push(byte),
        }
    }
    let is_line = !address.iter().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n'));
    (is_line && address.len() < ADDRESS_MAX).then_some(address)
}

/// SIZE= among the parameters behind the path (RFC 1870); all others are passed over.
fn size(arguments: &[u8]) -> u64 {
    let path_end = arguments.iter().position(|&byte| byte == b'>').map_or(0, |end| end + 1);
    let parameters = arguments[path_end..].split(|&byte| byte == b' ');
    let named = parameters.filter_map(|parameter| {
        let (keyword, value) = parameter.split_at_checked(5)?;
        keyword.eq_ignore_ascii_case(b"SIZE=").then_some(value)
    });
    // A number that nobody can hold is too large for everybody.
    let is_number = |value: &&[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = |value| str::from_utf8(value).ok().map(|text| text.parse().unwrap_or(u64::MAX));
    named.filter(is_number).find_map(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn sender(line: &str, expected: &str) {
        let QmailCommand::Mail { sender, .. } = parse(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(String::from_utf8(sender).unwrap(), expected, "{line}");
    }

    #[test]
    fn any_path_has_an_address() {
        sender("MAIL FROM:<a@b.test>", "a@b.test");
        sender("mail from: <a@b.test> BODY=8BITMIME", "a@b.test");
        sender("MAIL FROM:a@b.test SIZE=1", "a@b.test");
        sender("MAIL FROM:   a@b.test", "a@b.test");
        sender("MAIL FROM:<>", "");
        sender("MAIL", "");
        sender("MAIL FROM:<@hop.test,@other.test:a@b.test>", "a@b.test");
        sender("MAIL FROM:<\"a b>\"@b.test>", "a b>@b.test");
        sender("MAIL FROM:<a\\\"\\>b@b.test>", "a\">b@b.test");
        sender("MAIL FROM:<root>", "root");
        sender("MAIL FROM:<a@b.test", "a@b.test");
    }

    #[test]
    fn an_address_has_its_length_and_no_line_ends() {
        let long = |length: usize| format!("RCPT TO:<{}>", "a".repeat(length));
        assert_eq!(parse(long(899).as_bytes()), QmailCommand::Rcpt(vec![b'a'; 899]));
        let wrong = QmailCommand::Other(Err(SyntaxError::Arguments));
        assert_eq!(parse(long(900).as_bytes()), wrong);
        assert_eq!(parse(b"RCPT TO:<a\0b@c.test>"), wrong);
        assert_eq!(parse(b"RCPT TO:<a\rb@c.test>"), wrong);
    }

    #[test]
    fn sizes_are_found_among_parameters() {
        for (line, expected) in [
            ("MAIL FROM:<a@b.test> SIZE=10", 10),
            ("MAIL FROM:<a@b.test> BODY=8BITMIME size=7 AUTH=<>", 7),
            ("MAIL FROM:<a@b.test> SIZE=99999999999999999999", u64::MAX),
            ("MAIL FROM:<a@b.test> SIZE=x", 0),
            ("MAIL FROM:<SIZE=5@b.test>", 0),
        ] {
            let QmailCommand::Mail { size, .. } = parse(line.as_bytes()) else { panic!("{line}") };
            assert_eq!(size, expected, "{line}");
        }
    }

    #[test]
    fn arguments_that_are_not_wanted_are_passed_over() {
        assert_eq!(parse(b"data now"), QmailCommand::Other(Ok(Command::Data)));
        assert_eq!(parse(b"EHLO"), QmailCommand::Other(Ok(Command::Ehlo(String::new()))));
        assert_eq!(parse(b"STARTTLS"), QmailCommand::Other(Err(SyntaxError::Unknown)));
        let initial = Some("AGE=".to_owned());
        let auth = Command::Auth { mechanism: "PLAIN".into(), initial };
        assert_eq!(parse(b"auth plain  AGE="), QmailCommand::Other(Ok(auth)));
    }

    proptest! {
        #[test]
        fn any_line_is_read(line: Vec<u8>, path: Vec<u8>) {
            drop(parse(&line));
            drop(parse(&[b"RCPT TO:<", &path[..]].concat()));
        }
    }
}
