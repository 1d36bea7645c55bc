//! Command lines to commands (RFC 5321 §4.1.1 and the extensions that are offered).

use crate::address::{path_length, without_route};
use crate::{Address, AddressError, ReversePath};

/// Bytes of the name that a client gives itself.
const HELO_MAX: usize = 255;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// AUTH, with the initial response if there is one (RFC 4954).
    Auth {
        /// The mechanism in upper case.
        mechanism: String,
        /// In base64; `=` stands for an empty one.
        initial: Option<String>,
    },
    /// BDAT (RFC 3030).
    Bdat {
        /// Bytes that follow at once.
        length: u64,
        /// Whether they are the last of the message.
        last: bool,
    },
    /// DATA.
    Data,
    /// EHLO, with the client's name.
    Ehlo(String),
    /// HELO, with the client's name.
    Helo(String),
    /// HELP.
    Help,
    /// MAIL, with its parameters.
    Mail(Mail),
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// RCPT.
    Rcpt(Forward),
    /// RSET.
    Rset,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// EXPN, ETRN and others that are known and not offered.
    Unsupported,
    /// VRFY.
    Vrfy,
}

/// What MAIL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The sender.
    pub sender: ReversePath,
    /// The size that the client announces, in bytes (RFC 1870).
    pub size: Option<u64>,
    /// Whether addresses and header may be UTF-8 (RFC 6531).
    pub smtputf8: bool,
    /// Whether AUTH= was given (RFC 4954 §5).
    pub auth: bool,
}

/// Whom RCPT names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// An address.
    Mailbox(Address),
    /// The postmaster of this host, without a domain (RFC 5321 §4.1.1.3).
    Postmaster,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntaxError {
    /// The arguments do not fit the command.
    Arguments,
    /// BODY=BINARYMIME or another body type that is not offered.
    BodyType,
    /// A byte that no command may hold: NUL, a CR alone, or what is not UTF-8.
    Byte,
    /// A parameter that is not offered.
    Parameter,
    /// The recipient's address.
    Recipient(AddressError),
    /// The sender's address.
    Sender(AddressError),
    /// A word that is no command.
    Unknown,
}

/// Reads a command line without its CRLF.
///
/// # Errors
/// What is wrong with it.
pub fn parse_command(line: &[u8]) -> Result<Command, SyntaxError> {
    let line = std::str::from_utf8(line).map_err(|_| SyntaxError::Byte)?;
    if line.chars().any(|letter| letter.is_control() && letter != '\t') {
        return Err(SyntaxError::Byte);
    }
    let (verb, rest) = line.split_at(line.find(' ').unwrap_or(line.len()));
    let arguments = rest.trim_matches(' ');
    match verb.to_ascii_uppercase().as_str() {
        "AUTH" => auth(arguments),
        "BDAT" => bdat(arguments),
        "DATA" => alone(arguments, Command::Data),
        "EHLO" => name(arguments).map(Command::Ehlo),
        "HELO" => name(arguments).map(Command::Helo),
        "HELP" => Ok(Command::Help),
        "MAIL" => mail(rest),
        "NOOP" => Ok(Command::Noop),
        "QUIT" => alone(arguments, Command::Quit),
        "RCPT" => rcpt(rest),
        "RSET" => alone(arguments, Command::Rset),
        "STARTTLS" => alone(arguments, Command::StartTls),
        "VRFY" if arguments.is_empty() => Err(SyntaxError::Arguments),
        "VRFY" => Ok(Command::Vrfy),
        "EXPN" | "ETRN" | "SEND" | "SOML" | "SAML" | "TURN" | "XCLIENT" | "XFORWARD" => {
            Ok(Command::Unsupported)
        }
        _ => Err(SyntaxError::Unknown),
    }
}

fn alone(arguments: &str, command: Command) -> Result<Command, SyntaxError> {
    if arguments.is_empty() { Ok(command) } else { Err(SyntaxError::Arguments) }
}

/// One word of graphic letters: clients call themselves all kinds of things.
fn name(arguments: &str) -> Result<String, SyntaxError> {
    let good = !arguments.is_empty()
        && arguments.len() <= HELO_MAX
        && !arguments.contains(char::is_whitespace);
    if good { Ok(arguments.to_owned()) } else { Err(SyntaxError::Arguments) }
}

fn auth(arguments: &str) -> Result<Command, SyntaxError> {
    let mut words = arguments.split(' ');
    let mechanism = words.next().filter(|word| !word.is_empty()).ok_or(SyntaxError::Arguments)?;
    let initial = words.next().map(str::to_owned);
    if words.next().is_some() || initial.as_deref() == Some("") {
        return Err(SyntaxError::Arguments);
    }
    Ok(Command::Auth { mechanism: mechanism.to_ascii_uppercase(), initial })
}

fn bdat(arguments: &str) -> Result<Command, SyntaxError> {
    let (length, last) = match arguments.split_once(' ') {
        None => (arguments, false),
        Some((length, last)) if last.eq_ignore_ascii_case("LAST") => (length, true),
        Some(_) => return Err(SyntaxError::Arguments),
    };
    number(length).map(|length| Command::Bdat { length, last }).ok_or(SyntaxError::Arguments)
}

/// Up to 20 digits; more than 64 bits hold counts as the most that they hold.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The inside of the path after `FROM:` or `TO:`, and the parameters behind it.
fn path<'a>(rest: &'a str, keyword: &str) -> Result<(&'a str, &'a str), SyntaxError> {
    let rest = rest.strip_prefix(' ').ok_or(SyntaxError::Arguments)?;
    let (word, rest) = rest.split_at_checked(keyword.len()).ok_or(SyntaxError::Arguments)?;
    if !word.eq_ignore_ascii_case(keyword) {
        return Err(SyntaxError::Arguments);
    }
    let rest = rest.strip_prefix('<').ok_or(SyntaxError::Arguments)?;
    let length = path_length(rest).ok_or(SyntaxError::Arguments)?;
    let (path, rest) = (&rest[..length], &rest[length + 1..]);
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(SyntaxError::Arguments);
    }
    Ok((path, rest.trim_matches(' ')))
}

fn mail(rest: &str) -> Result<Command, SyntaxError> {
    let (path, parameters) = path(rest, "FROM:")?;
    let sender = without_route(path).and_then(str::parse).map_err(SyntaxError::Sender)?;
    let mut mail = Mail { sender, size: None, smtputf8: false, auth: false };
    for parameter in parameters.split(' ').filter(|parameter| !parameter.is_empty()) {
        mail.take(parameter)?;
    }
    Ok(Command::Mail(mail))
}

impl Mail {
    fn take(&mut self, parameter: &str) -> Result<(), SyntaxError> {
        let (keyword, value) = match parameter.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (parameter, None),
        };
        match (keyword.to_ascii_uppercase().as_str(), value) {
            ("SIZE", Some(value)) if self.size.is_none() => {
                self.size = Some(number(value).ok_or(SyntaxError::Arguments)?);
            }
            ("BODY", Some(value)) => {
                let offered =
                    ["7BIT", "8BITMIME"].iter().any(|body| value.eq_ignore_ascii_case(body));
                if !offered {
                    return Err(SyntaxError::BodyType);
                }
            }
            ("SMTPUTF8", None) => self.smtputf8 = true,
            ("AUTH", Some(value)) if is_xtext(value) => self.auth = true,
            ("SIZE" | "BODY" | "SMTPUTF8" | "AUTH", _) => return Err(SyntaxError::Arguments),
            _ => return Err(SyntaxError::Parameter),
        }
        Ok(())
    }
}

/// RFC 3461 §4: printable ASCII but `+` and `=`, which are written `+2B` and `+3D`.
fn is_xtext(value: &str) -> bool {
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        let good = match byte {
            b'+' => [bytes.next(), bytes.next()].iter().all(|hex| {
                hex.is_some_and(|hex| hex.is_ascii_digit() || (b'A'..=b'F').contains(&hex))
            }),
            b'=' => false,
            byte => byte.is_ascii_graphic(),
        };
        if !good {
            return false;
        }
    }
    !value.is_empty()
}

fn rcpt(rest: &str) -> Result<Command, SyntaxError> {
    let (path, parameters) = path(rest, "TO:")?;
    if !parameters.is_empty() {
        return Err(SyntaxError::Parameter);
    }
    if path.eq_ignore_ascii_case("postmaster") {
        return Ok(Command::Rcpt(Forward::Postmaster));
    }
    let mailbox = without_route(path).and_then(str::parse).map_err(SyntaxError::Recipient)?;
    Ok(Command::Rcpt(Forward::Mailbox(mailbox)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn good(line: &str, command: Command) {
        assert_eq!(parse_command(line.as_bytes()), Ok(command), "{line:?}");
    }

    #[track_caller]
    fn bad(line: impl AsRef<[u8]>, error: SyntaxError) {
        assert_eq!(parse_command(line.as_ref()), Err(error), "{:?}", line.as_ref());
    }

    fn mail(sender: &str) -> Mail {
        Mail { sender: sender.parse().unwrap(), size: None, smtputf8: false, auth: false }
    }

    fn to(recipient: &str) -> Command {
        Command::Rcpt(Forward::Mailbox(recipient.parse().unwrap()))
    }

    #[test]
    fn commands_are_read_in_any_case() {
        good("EHLO client.test", Command::Ehlo("client.test".into()));
        good("helo [192.0.2.1]", Command::Helo("[192.0.2.1]".into()));
        good("dAtA", Command::Data);
        good("QUIT ", Command::Quit);
        good("NOOP whatever it says", Command::Noop);
        good("VRFY someone", Command::Vrfy);
        good("EXPN list", Command::Unsupported);
        good("BDAT 0 last", Command::Bdat { length: 0, last: true });
        good("BDAT 99999999999999999999", Command::Bdat { length: u64::MAX, last: false });
    }

    #[test]
    fn senders_come_with_parameters() {
        good("MAIL FROM:<>", Command::Mail(mail("")));
        good("mail from:<@hop.test:a@b.test>", Command::Mail(mail("a@b.test")));
        let parameters = "MAIL FROM:<a@b.test> SIZE=1000 BODY=8bitmime SMTPUTF8 AUTH=<>";
        let all = Mail { size: Some(1000), smtputf8: true, auth: true, ..mail("a@b.test") };
        good(parameters, Command::Mail(all));
        bad("MAIL FROM:<a@b.test> BODY=BINARYMIME", SyntaxError::BodyType);
        bad("MAIL FROM:<a@b.test> RET=FULL", SyntaxError::Parameter);
        bad("MAIL FROM:<a@b.test> SIZE", SyntaxError::Arguments);
        bad("MAIL FROM:<a@b.test> SIZE=-1", SyntaxError::Arguments);
        bad("MAIL FROM:<a@b.test> SIZE=1 SIZE=2", SyntaxError::Arguments);
        bad("MAIL FROM:<a@b.test> AUTH=+2", SyntaxError::Arguments);
    }

    #[test]
    fn recipients_may_be_quoted_or_the_postmaster() {
        good("RCPT TO:<a@b.test>", to("a@b.test"));
        good("RCPT TO:<\"a>b c\"@d.test>", to("\"a>b c\"@d.test"));
        good("RCPT TO:<PostMaster>", Command::Rcpt(Forward::Postmaster));
        bad("RCPT TO:<a@b.test> NOTIFY=NEVER", SyntaxError::Parameter);
        bad("RCPT TO:<>", SyntaxError::Recipient(AddressError::Syntax));
        bad("RCPT TO:<a>", SyntaxError::Recipient(AddressError::Syntax));
    }

    #[test]
    fn paths_are_read_strictly() {
        for line in [
            "MAIL FROM: <a@b.test>",
            "MAIL FROM:a@b.test",
            "MAIL FROM:<a@b.test",
            "MAIL <a@b.test>",
            "MAIL FROM:<a@b.test>SIZE=1",
            "MAILFROM:<a@b.test>",
            "MAIL",
        ] {
            assert!(parse_command(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn bytes_that_no_command_holds_are_refused() {
        bad(b"NOOP \0", SyntaxError::Byte);
        bad(b"NOOP \rx", SyntaxError::Byte);
        bad(b"NOOP \xff", SyntaxError::Byte);
        bad("", SyntaxError::Unknown);
        bad(" EHLO x", SyntaxError::Unknown);
        bad("EHLO", SyntaxError::Arguments);
        bad("EHLO a b", SyntaxError::Arguments);
        bad("STARTTLS now", SyntaxError::Arguments);
        bad("AUTH", SyntaxError::Arguments);
        bad("BDAT x", SyntaxError::Arguments);
        bad("BDAT 1 FIRST", SyntaxError::Arguments);
    }

    proptest! {
        #[test]
        fn any_line_is_a_command_or_an_error(line: Vec<u8>) {
            drop(parse_command(&line));
        }

        #[test]
        fn any_path_is_read_or_refused(path: String, verb in "MAIL FROM:<|RCPT TO:<") {
            drop(parse_command(format!("{verb}{path}>").as_bytes()));
        }
    }
}
