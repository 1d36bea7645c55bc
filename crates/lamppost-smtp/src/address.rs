//! Mail addresses as they travel in envelopes (RFC 5321 §4.1.2, RFC 6531 §3.3).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of a local part (RFC 5321 §4.5.3.1.1).
const LOCAL_MAX: usize = 64;
/// Bytes of a domain (RFC 5321 §4.5.3.1.2).
const DOMAIN_MAX: usize = 255;
/// Bytes of an address: a path of 256 without its angle brackets (RFC 5321 §4.5.3.1.3).
const ADDRESS_MAX: usize = 254;
/// Bytes of a label of a domain (RFC 1035 §2.3.4).
const LABEL_MAX: usize = 63;

/// A mailbox: a local part and a domain, in the form in which it travelled.
///
/// Quotes of a quoted local part are kept, so that printing gives back what was parsed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    text: String,
    at: usize,
}

impl Address {
    /// The local part as it travelled, with its quotes if it had any.
    pub fn local(&self) -> &str {
        &self.text[..self.at]
    }

    /// The domain or address literal as it travelled.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The whole address as it travelled.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it needs SMTPUTF8 to travel (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > ADDRESS_MAX {
            return Err(AddressError::TooLong);
        }
        let at = local_part_length(text)?;
        let Some(domain) = text[at..].strip_prefix('@') else {
            return Err(AddressError::Syntax);
        };
        if at > LOCAL_MAX {
            return Err(AddressError::TooLong);
        }
        check_domain(domain)?;
        Ok(Self { text: text.to_owned(), at })
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.text
    }
}

/// Why a text is no mail address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text does not follow the grammar.
    #[error("not a mail address of the form local-part@domain")]
    Syntax,
    /// The local part, the domain or the whole is longer than RFC 5321 §4.5.3.1 allows.
    #[error(
        "the address is too long (local part {LOCAL_MAX} bytes, domain {DOMAIN_MAX}, label {LABEL_MAX}, all {ADDRESS_MAX})"
    )]
    TooLong,
}

/// How many bytes at the start of the text are a local part.
fn local_part_length(text: &str) -> Result<usize, AddressError> {
    if text.starts_with('"') {
        return quoted_length(text);
    }
    let end = text.find('@').ok_or(AddressError::Syntax)?;
    let dot_string =
        text[..end].split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext));
    if dot_string { Ok(end) } else { Err(AddressError::Syntax) }
}

/// The length of the quoted string that the text begins with, quotes included.
fn quoted_length(text: &str) -> Result<usize, AddressError> {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if !is_printable(letter) => return Err(AddressError::Syntax),
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok(at + 1),
            _ => {}
        }
    }
    Err(AddressError::Syntax)
}

/// RFC 5322 §3.2.3, extended by RFC 6531 §3.3.
fn is_atext(letter: char) -> bool {
    letter.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(letter)
        || (!letter.is_ascii() && is_printable(letter))
}

/// A space, a printable ASCII character, or a letter beyond ASCII that is neither control nor space.
fn is_printable(letter: char) -> bool {
    if letter.is_ascii() {
        letter == ' ' || letter.is_ascii_graphic()
    } else {
        !letter.is_control() && !letter.is_whitespace()
    }
}

fn check_domain(domain: &str) -> Result<(), AddressError> {
    if domain.len() > DOMAIN_MAX {
        return Err(AddressError::TooLong);
    }
    if let Some(literal) = domain.strip_prefix('[') {
        let literal = literal.strip_suffix(']').ok_or(AddressError::Syntax)?;
        return check_literal(literal);
    }
    for label in domain.split('.') {
        if label.len() > LABEL_MAX {
            return Err(AddressError::TooLong);
        }
        let letters = label.chars().all(|letter| letter == '-' || is_label_letter(letter));
        if label.is_empty() || !letters || label.starts_with('-') || label.ends_with('-') {
            return Err(AddressError::Syntax);
        }
    }
    Ok(())
}

fn is_label_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || (!letter.is_ascii() && is_printable(letter))
}

/// `192.0.2.1` or `IPv6:2001:db8::1` (RFC 5321 §4.1.3).
fn check_literal(literal: &str) -> Result<(), AddressError> {
    let is_v6 = literal.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    let good = if is_v6 {
        literal[5..].parse::<Ipv6Addr>().is_ok()
    } else {
        literal.parse::<Ipv4Addr>().is_ok()
    };
    if good { Ok(()) } else { Err(AddressError::Syntax) }
}

/// How many bytes at the start of the text are a path's inside, up to its closing angle bracket,
/// which may stand within quotes before.
pub(crate) fn path_length(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// The mailbox of a path without the source route before it, which is obsolete and ignored
/// (RFC 5321 §4.1.2, A-d-l; appendix C).
pub(crate) fn without_route(path: &str) -> Result<&str, AddressError> {
    if !path.starts_with('@') {
        return Ok(path);
    }
    let (route, mailbox) = path.split_once(':').ok_or(AddressError::Syntax)?;
    for hop in route.split(',') {
        check_domain(hop.strip_prefix('@').ok_or(AddressError::Syntax)?)?;
    }
    Ok(mailbox)
}

/// The address that bounces go to (RFC 5321 §4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ReversePath {
    /// `<>`: nobody wants a bounce.
    Null,
    /// An ordinary sender.
    Mailbox(Address),
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(address) => address.fmt(f),
        }
    }
}

impl FromStr for ReversePath {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() { Ok(Self::Null) } else { text.parse().map(Self::Mailbox) }
    }
}

impl TryFrom<String> for ReversePath {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<ReversePath> for String {
    fn from(path: ReversePath) -> Self {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn good(text: &str, local: &str, domain: &str) {
        let address: Address = text.parse().unwrap();
        assert_eq!((address.local(), address.domain()), (local, domain));
        assert_eq!(address.to_string(), text);
    }

    #[track_caller]
    fn bad(text: &str, error: AddressError) {
        assert_eq!(text.parse::<Address>(), Err(error), "{text:?}");
    }

    #[test]
    fn addresses_of_all_forms_are_read() {
        good("a@b", "a", "b");
        good("first.last+tag@mail.example.com", "first.last+tag", "mail.example.com");
        good("\"a b\"@example.com", "\"a b\"", "example.com");
        good("\"a\\\"@\\\\b\"@example.com", "\"a\\\"@\\\\b\"", "example.com");
        good("\"\"@example.com", "\"\"", "example.com");
        good("a@[192.0.2.1]", "a", "[192.0.2.1]");
        good("a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]");
        good("grün@bücher.example", "grün", "bücher.example");
        good("!#$%&'*/=?^_`{|}~-@x-1.y", "!#$%&'*/=?^_`{|}~-", "x-1.y");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "@",
            "a",
            "a@",
            "@b",
            "a@@b",
            "a b@c",
            ".a@b",
            "a.@b",
            "a..b@c",
            "a@b.",
            "a@.b",
            "a@b..c",
            "a@-b",
            "a@b-",
            "a@b_c",
            "\"a@b",
            "\"a\"b@c",
            "\"a\u{7}\"@b",
            "a@[192.0.2]",
            "a@[2001:db8::1]",
            "a@[IPv6:192.0.2.1]",
            "a@[x:y]",
            "a@b c",
            "<a@b>",
            "a@b\r\n",
            "a\u{a0}b@c",
            "a@b\u{85}",
        ] {
            bad(text, AddressError::Syntax);
        }
    }

    #[test]
    fn long_addresses_are_refused() {
        let label = "x".repeat(63);
        let domain = format!("{label}.{label}.{label}");
        good(&format!("a@{domain}"), "a", &domain);
        bad(&format!("{}@b", "a".repeat(65)), AddressError::TooLong);
        bad(&format!("a@{label}x"), AddressError::TooLong);
        bad(&format!("{}@{domain}", "a".repeat(64)), AddressError::TooLong);
    }

    #[test]
    fn source_routes_are_ignored() {
        assert_eq!(without_route("@a,@b.c:d@e"), Ok("d@e"));
        assert_eq!(without_route("d@e"), Ok("d@e"));
        assert_eq!(without_route("@a,b:d@e"), Err(AddressError::Syntax));
    }

    #[test]
    fn a_path_ends_at_the_bracket_outside_quotes() {
        assert_eq!(path_length("a@b> SIZE=1"), Some(3));
        assert_eq!(path_length("\">\\\"\"@b>"), Some(7));
        assert_eq!(path_length("\"a@b>"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string(), text);
            }
        }

        #[test]
        fn printing_gives_back_what_was_parsed(
            local in "[a-z0-9!#$+=]{1,20}(\\.[a-z0-9]{1,20})?|\"([ !#-\\[\\]-~]|\\\\[ -~]){0,20}\"",
            domain in "[a-z0-9]{1,20}(\\.[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?){0,3}",
        ) {
            let text = format!("{local}@{domain}");
            let address: Address = text.parse().unwrap();
            prop_assert_eq!(address.local(), local);
            prop_assert_eq!(address.domain(), domain);
            prop_assert_eq!(address.to_string(), text);
        }
    }
}
