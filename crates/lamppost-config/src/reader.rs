//! Reads typed values out of a TOML tree and collects what is wrong on the way.
//!
//! Values that the file does not hold come from the defaults, which are read by the same code.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::Network;
use crate::problem::Problem;
use crate::unit::{ByteSize, format_duration, parse_duration};

/// What is wrong so far.
pub(crate) struct Findings<'a> {
    pub(crate) text: &'a str,
    pub(crate) problems: Vec<Problem>,
}

impl Findings<'_> {
    pub(crate) fn push(
        &mut self,
        span: Range<usize>,
        what: impl Into<String>,
        cure: Option<String>,
    ) {
        self.problems.push(Problem::new(self.text, span, what.into(), cure));
    }
}

/// A table of the file over the table of its defaults.
pub(crate) struct Section<'t, 'i> {
    /// Its name with dots, empty for the whole file.
    name: &'static str,
    table: Option<&'t DeTable<'i>>,
    defaults: &'t DeTable<'i>,
    /// The keys that were asked for: all others are unknown.
    known: BTreeSet<&'static str>,
    /// Where problems are shown that belong to no key.
    pub(crate) span: Range<usize>,
}

/// A value and where it stands; defaults stand at the section's head.
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
    pub(crate) is_default: bool,
    /// Whether the file has a value that cannot be read.
    pub(crate) is_wrong: bool,
}

impl<'t, 'i> Section<'t, 'i> {
    pub(crate) fn new(
        name: &'static str,
        table: Option<&'t DeTable<'i>>,
        defaults: &'t DeTable<'i>,
        span: Range<usize>,
    ) -> Self {
        Self { name, table, defaults, known: BTreeSet::new(), span }
    }

    /// The section of a key, which must be a table if it is there.
    pub(crate) fn section(
        &mut self,
        key: &'static str,
        name: &'static str,
        findings: &mut Findings<'_>,
    ) -> Self {
        self.known.insert(key);
        let found = self.table.and_then(|table| table.get(key));
        let span = found.map_or(self.span.clone(), Spanned::span);
        let table = found.and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                findings.push(
                    value.span(),
                    format!("`{name}` must be a section, not {}", kind(value)),
                    Some(format!("write `[{name}]` on a line of its own and its keys below")),
                );
            }
            table
        });
        let defaults = self.defaults.get(key).and_then(|value| value.get_ref().as_table());
        Self::new(name, table, defaults.unwrap_or(self.defaults), span)
    }

    /// The tables of an array of tables (`[[name]]`).
    pub(crate) fn tables(
        &mut self,
        key: &'static str,
        findings: &mut Findings<'_>,
    ) -> Vec<(&'t DeTable<'i>, Range<usize>)> {
        self.known.insert(key);
        let Some(value) = self.table.and_then(|table| table.get(key)) else {
            return Vec::new();
        };
        let cure = || Some(format!("write `[[{}.{key}]]` before each", self.name));
        let Some(array) = value.get_ref().as_array() else {
            let what = format!("`{key}` must be a list of sections, not {}", kind(value));
            findings.push(value.span(), what, cure());
            return Vec::new();
        };
        let mut tables = Vec::new();
        for entry in array {
            match entry.get_ref().as_table() {
                Some(table) => tables.push((table, entry.span())),
                None => findings.push(entry.span(), "a section is expected here", cure()),
            }
        }
        tables
    }

    /// A value by its reader; the default where the file has none or a wrong one.
    ///
    /// # Panics
    /// When the defaults lack the key or hold a wrong value, which a test rules out.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Spanned<DeValue<'i>>) -> Result<T, Wrong>,
        findings: &mut Findings<'_>,
    ) -> Placed<T> {
        self.known.insert(key);
        let mut is_wrong = false;
        if let Some(value) = self.table.and_then(|table| table.get(key)) {
            match read(value) {
                Ok(read) => {
                    return Placed {
                        value: read,
                        span: value.span(),
                        is_default: false,
                        is_wrong: false,
                    };
                }
                Err(wrong) => {
                    is_wrong = true;
                    for Wrong { what, cure, span, .. } in wrong.each() {
                        let what = format!("`{key}` {what}");
                        findings.push(span.unwrap_or(value.span()), what, cure);
                    }
                }
            }
        }
        let default = self.defaults.get(key).and_then(|value| read(value).ok());
        let value = default.expect("each key has a default of its type");
        Placed { value, span: self.span.clone(), is_default: true, is_wrong }
    }

    /// Reports the keys that nobody asked for.
    pub(crate) fn finish(self, findings: &mut Findings<'_>) {
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name: &str = key.get_ref();
            if self.known.contains(name) {
                continue;
            }
            let place =
                if self.name.is_empty() { "the file".into() } else { format!("`[{}]`", self.name) };
            let near = nearest(name, self.known.iter().copied());
            // What stands behind a name that is wrong itself may be anything.
            let before = findings.text.get(..key.span().start).unwrap_or_default();
            let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
            let kind = if line.starts_with('[') { "section" } else { "key" };
            let cure = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{place} knows {}", list(self.known.iter().copied())),
            };
            findings.push(key.span(), format!("unknown {kind} `{name}` in {place}"), Some(cure));
        }
    }
}

/// The name that was probably meant.
pub(crate) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Why a value is wrong; the sentence goes on after the key's name.
pub(crate) struct Wrong {
    pub(crate) what: String,
    cure: Option<String>,
    /// Where, when it is not all of the value.
    span: Option<Range<usize>>,
    /// What else is wrong with it.
    others: Vec<Self>,
}

impl Wrong {
    pub(crate) fn each(mut self) -> Vec<Self> {
        let others = std::mem::take(&mut self.others);
        std::iter::once(self).chain(others).collect()
    }

    pub(crate) fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: Some(cure.into()), span: None, others: Vec::new() }
    }
}

fn kind(value: &Spanned<DeValue<'_>>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

type Value<'i> = Spanned<DeValue<'i>>;

pub(crate) fn text(value: &Value<'_>) -> Result<String, Wrong> {
    value.get_ref().as_str().map(str::to_owned).ok_or_else(|| {
        Wrong::new(format!("must be a text, not {}", kind(value)), "put it in quotes")
    })
}

pub(crate) fn boolean(value: &Value<'_>) -> Result<bool, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("must be true or false, not {}", kind(value)),
            "write true or false, without quotes",
        )
    };
    value.get_ref().as_bool().ok_or_else(wrong)
}

/// A whole number within bounds.
pub(crate) fn number(value: &Value<'_>, least: u64, most: u64) -> Result<u64, Wrong> {
    let number = value.get_ref().as_integer().and_then(|number| {
        u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
    });
    number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        Wrong::new(
            "is not a number that it may be",
            format!("write a whole number from {least} to {most}, without quotes"),
        )
    })
}

pub(crate) fn duration(value: &Value<'_>) -> Result<Duration, Wrong> {
    let parsed = value.get_ref().as_str().and_then(parse_duration);
    parsed.ok_or_else(|| Wrong::new("is no duration", "write a number and a unit in quotes, such as \"250ms\", \"10s\", \"5m\", \"4h\" or \"36d\""))
}

pub(crate) fn size(value: &Value<'_>) -> Result<ByteSize, Wrong> {
    let parsed = value.get_ref().as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Wrong::new("is no size", "write a number and a unit in quotes, such as \"512B\", \"64KiB\", \"25MiB\" or \"1GiB\""))
}

/// A duration within bounds.
pub(crate) fn duration_within(
    value: &Value<'_>,
    (least, most): (Duration, Duration),
) -> Result<Duration, Wrong> {
    let duration = duration(value)?;
    let cure = || {
        format!(
            "write a duration from \"{}\" to \"{}\"",
            format_duration(least),
            format_duration(most)
        )
    };
    match duration {
        short if short < least => Err(Wrong::new("is too short", cure())),
        long if long > most => Err(Wrong::new("is too long", cure())),
        _ => Ok(duration),
    }
}

/// A size within bounds.
pub(crate) fn size_within(
    value: &Value<'_>,
    (least, most): (ByteSize, ByteSize),
) -> Result<ByteSize, Wrong> {
    let size = size(value)?;
    let cure = || format!("write a size from \"{least}\" to \"{most}\"");
    match size {
        small if small < least => Err(Wrong::new("is too small", cure())),
        large if large > most => Err(Wrong::new("is too large", cure())),
        _ => Ok(size),
    }
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(
    value: &Value<'_>,
    choices: &[(&'static str, T)],
) -> Result<T, Wrong> {
    let names = || choices.iter().map(|(name, _)| *name);
    let found =
        value.get_ref().as_str().and_then(|text| choices.iter().find(|(name, _)| *name == text));
    found.map(|&(_, choice)| choice).ok_or_else(|| {
        let near = value.get_ref().as_str().and_then(|text| nearest(text, names()));
        let words = names().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let cure = near.map_or(String::new(), |near| format!("did you mean \"{near}\"? "));
        Wrong::new("is not one of its words", format!("{cure}It may be {words}"))
    })
}

/// A list whose entries are all of one kind.
pub(crate) fn entries<T>(
    value: &Value<'_>,
    read: impl Fn(&Value<'_>) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    let Some(array) = value.get_ref().as_array() else {
        return Err(Wrong::new(
            format!("must be a list, not {}", kind(value)),
            "put it in brackets: [\"…\", \"…\"]",
        ));
    };
    let mut entries = Vec::new();
    let mut wrong: Option<Wrong> = None;
    for entry in array {
        match read(entry) {
            Ok(read) => entries.push(read),
            Err(one) => {
                let what = format!("has an entry that {}", one.what);
                let one = Wrong { what, span: Some(entry.span()), ..one };
                match &mut wrong {
                    Some(first) => first.others.push(one),
                    None => wrong = Some(one),
                }
            }
        }
    }
    wrong.map_or(Ok(entries), Err)
}

pub(crate) fn address(value: &Value<'_>) -> Result<SocketAddr, Wrong> {
    let text = value.get_ref().as_str().unwrap_or_default();
    text.parse().map_err(|_| {
        let cure = match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => format!("a port is missing: \"{ip}:25\""),
            Ok(IpAddr::V6(ip)) => format!("a port is missing: \"[{ip}]:25\""),
            Err(_) => "write an IP address and a port, such as \"192.0.2.1:25\" or \"[2001:db8::1]:25\"; names are not looked up, so that nothing else is ever bound".into(),
        };
        Wrong::new("is no address to listen on", cure)
    })
}

pub(crate) fn network(value: &Value<'_>) -> Result<Network, Wrong> {
    let text = value.get_ref().as_str().unwrap_or_default();
    let parsed = || {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix: &u8| *prefix <= most)?;
        Some(Network { address, prefix })
    };
    parsed().ok_or_else(|| {
        Wrong::new(
            "is no network",
            "write an address and a prefix length, such as \"192.0.2.0/24\" or \"2001:db8::/32\"",
        )
    })
}

/// A domain or host name of letters, digits, hyphens and dots.
pub(crate) fn domain(value: &Value<'_>) -> Result<String, Wrong> {
    let text = text(value)?;
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|letter| letter == '-' || letter.is_alphanumeric())
    };
    if text.len() <= 253 && text.split('.').all(label) {
        Ok(text.to_lowercase())
    } else {
        Err(Wrong::new(
            "is no domain name",
            "write it as in an address, such as \"example.org\", without @ and without a dot at its end",
        ))
    }
}
