//! Names in records, with the macros in them (RFC 7208 §7).

use std::fmt::Write as _;
use std::net::IpAddr;

use super::Malformed;

/// Letters of a name in the DNS; of a longer one labels are left off in front (RFC 7208 §7.3).
const NAME_LETTERS_MAX: usize = 253;
/// What may separate parts of a value.
const DELIMITERS: &str = ".-+,/_=";

/// A name that depends on who is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Macro(Macro),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Macro {
    letter: u8,
    is_escaped: bool,
    /// How many parts of the value are taken, from the right.
    parts_max: usize,
    is_reversed: bool,
    delimiters: String,
}

/// What macros stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    pub(super) ip: IpAddr,
    pub(super) helo: &'a str,
    /// Never empty: for the null sender it is the postmaster of HELO's domain.
    pub(super) sender: &'a str,
    /// The domain whose record it is.
    pub(super) domain: &'a str,
    /// The validated name of the client, where it is asked for.
    pub(super) name: &'a str,
}

impl Spec {
    /// Reads a name (`domain-spec`).
    pub(super) fn name(text: &str) -> Result<Self, Malformed> {
        let spec = Self::text(text)?;
        let is_ended = match spec.0.last() {
            Some(Part::Macro(_)) => true,
            Some(Part::Literal(end)) => {
                let end = end.strip_suffix('.').unwrap_or(end);
                end.rsplit_once('.').is_some_and(|(_, label)| is_top_label(label))
            }
            None => false,
        };
        is_ended.then_some(spec).ok_or(Malformed)
    }

    /// Reads any text with macros (`macro-string`).
    pub(super) fn text(text: &str) -> Result<Self, Malformed> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            if letter != '%' {
                if !letter.is_ascii_graphic() {
                    return Err(Malformed);
                }
                literal.push(letter);
                continue;
            }
            let next = rest.chars().next().ok_or(Malformed)?;
            rest = &rest[next.len_utf8()..];
            match next {
                '%' => literal.push('%'),
                '_' => literal.push(' '),
                '-' => literal.push_str("%20"),
                '{' => {
                    let (inside, behind) = rest.split_once('}').ok_or(Malformed)?;
                    rest = behind;
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Macro(Macro::read(inside)?));
                }
                _ => return Err(Malformed),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    /// Whether it takes the validated name of the client.
    pub(super) fn takes_name(&self) -> bool {
        self.macros().any(|one| one.letter == b'p')
    }

    /// Whether it may be another name for another client, or another sender of the same domain.
    pub(super) fn is_changing(&self) -> bool {
        self.macros().any(|one| !b"do".contains(&one.letter))
    }

    fn macros(&self) -> impl Iterator<Item = &Macro> {
        self.0.iter().filter_map(|part| match part {
            Part::Macro(one) => Some(one),
            Part::Literal(_) => None,
        })
    }

    /// The name as it is for these values.
    pub(super) fn expand(&self, values: &Values<'_>) -> String {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => name.push_str(text),
                Part::Macro(one) => name.push_str(&one.expand(values)),
            }
        }
        if name.ends_with('.') {
            name.pop();
        }
        while name.len() > NAME_LETTERS_MAX {
            let Some((_, shorter)) = name.split_once('.') else { break };
            name = shorter.to_owned();
        }
        name
    }
}

/// Whether it may be the last label of a name (`toplabel`).
fn is_top_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && !bytes.iter().all(u8::is_ascii_digit)
}

impl Macro {
    fn read(inside: &str) -> Result<Self, Malformed> {
        let letter = inside.bytes().next().ok_or(Malformed)?;
        // The others are for explanations only.
        if !b"slodiphv".contains(&letter.to_ascii_lowercase()) {
            return Err(Malformed);
        }
        let rest = &inside[1..];
        let digits =
            rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let (digits, rest) = rest.split_at(digits);
        let parts_max = match digits {
            "" => usize::MAX,
            digits => digits.parse().unwrap_or(usize::MAX),
        };
        let reversed = rest.strip_prefix(['r', 'R']);
        let delimiters = reversed.unwrap_or(rest);
        if parts_max == 0 || !delimiters.chars().all(|letter| DELIMITERS.contains(letter)) {
            return Err(Malformed);
        }
        let delimiters = if delimiters.is_empty() { "." } else { delimiters };
        Ok(Self {
            letter: letter.to_ascii_lowercase(),
            is_escaped: letter.is_ascii_uppercase(),
            parts_max,
            is_reversed: reversed.is_some(),
            delimiters: delimiters.to_owned(),
        })
    }

    fn expand(&self, values: &Values<'_>) -> String {
        let (local, domain) = values.sender.rsplit_once('@').unwrap_or(("", values.sender));
        let value = match self.letter {
            b's' => values.sender.to_owned(),
            b'l' => local.to_owned(),
            b'o' => domain.to_owned(),
            b'd' => values.domain.to_owned(),
            b'i' => dotted(values.ip),
            b'p' => values.name.to_owned(),
            b'h' => values.helo.to_owned(),
            _ => (if values.ip.is_ipv4() { "in-addr" } else { "ip6" }).to_owned(),
        };
        let mut parts: Vec<_> = value.split(|letter| self.delimiters.contains(letter)).collect();
        if self.is_reversed {
            parts.reverse();
        }
        let taken = parts[parts.len().saturating_sub(self.parts_max)..].join(".");
        if self.is_escaped { escaped(&taken) } else { taken }
    }
}

/// An address with dots, for IPv6 between half bytes (RFC 7208 §7.3).
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let digits = format!("{:032x}", v6.to_bits());
            digits.chars().map(String::from).collect::<Vec<_>>().join(".")
        }
    }
}

/// A text as it may stand in a URL (RFC 3986 §2.3).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _infallible = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALUES: Values<'_> = Values {
        ip: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3)),
        helo: "mx.example.org",
        sender: "strong-bad@email.example.com",
        domain: "email.example.com",
        name: "mx.example.org",
    };

    /// The examples of RFC 7208 §7.4.
    #[test]
    fn macros_are_those_of_the_standard() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Spec::text(text).unwrap().expand(&VALUES), expected, "{text}");
        };
        check("%{s}", "strong-bad@email.example.com");
        check("%{o}", "email.example.com");
        check("%{d}", "email.example.com");
        check("%{d4}", "email.example.com");
        check("%{d3}", "email.example.com");
        check("%{d2}", "example.com");
        check("%{d1}", "com");
        check("%{dr}", "com.example.email");
        check("%{d2r}", "example.email");
        check("%{l}", "strong-bad");
        check("%{l-}", "strong.bad");
        check("%{lr}", "strong-bad");
        check("%{lr-}", "bad.strong");
        check("%{l1r-}", "strong");
        check("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com");
        check("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com");
        check(
            "%{lr-}.lp.%{ir}.%{v}._spf.%{d2}",
            "bad.strong.lp.3.2.0.192.in-addr._spf.example.com",
        );
        check("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com");
        check("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net");
        check("%%%_%-%{h}%{p}", "% %20mx.example.orgmx.example.org");
        check("%{S}", "strong-bad%40email.example.com");
        check("a.%{d}.", "a.email.example.com");
        let v6 = Values { ip: "2001:db8::cb01".parse().unwrap(), ..VALUES };
        let name = Spec::name("%{ir}.%{v}._spf.%{d2}").unwrap().expand(&v6);
        assert_eq!(
            name,
            "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
        );
        let long = "x".repeat(60);
        let sender = format!("{}@{}", long, [long.as_str(); 4].join("."));
        let name = Spec::text("%{s}.%{o}").unwrap().expand(&Values { sender: &sender, ..VALUES });
        assert_eq!(name.len(), 243);
    }

    #[test]
    fn names_end_as_names_do() {
        for name in ["a.b", "a.b.", "_spf.a.b-c", "%{d}", "x.%{d}", "%{l}.a.4b", "a./%%b.com"] {
            assert!(Spec::name(name).is_ok(), "{name}");
        }
        for text in [
            "",
            "a",
            "com.",
            "a.b_c",
            "a.4",
            "a.-b",
            "a.b-",
            "a..",
            "a.b/",
            "%",
            "%(d)",
            "%{d",
            "%{}",
            "%{x}",
            "%{c}",
            "%{t}",
            "%{d0}",
            "%{d2r1}",
            "%{d!}",
            "%{dr-x}",
            "a b.c",
            "a.\u{f6}",
            "%{\u{f6}}",
            "%\u{f6}",
        ] {
            assert!(Spec::name(text).is_err(), "{text}");
        }
        let is_changing = |text| Spec::name(text).unwrap().is_changing();
        assert!(!is_changing("_spf.%{d}") && !is_changing("%{o2}.a.b") && is_changing("%{i}.a.b"));
        assert!(Spec::name("%{P}").unwrap().takes_name());
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_expanded_or_refused(
            text in "(%?[{][slodiphvcrtx]?[0-9]{0,3}r?[-.+]{0,2}[}]|%[%_-]|\\PC){0,12}",
            sender in "\\PC*",
        ) {
            if let Ok(spec) = Spec::text(&text) {
                let _name = spec.expand(&Values { sender: &sender, ..VALUES });
            }
        }
    }
}
