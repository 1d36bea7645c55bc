//! The reference of all keys, drawn from the comments of the built-in files.

use std::collections::BTreeSet;

use toml::de::{DeTable, DeValue};

use crate::Config;
use crate::config::greylist_database;
use crate::reader::nearest;

/// Defaults of all sections.
pub(crate) const DEFAULTS: &str = include_str!("defaults.toml");
/// Defaults of a `[[mail.listen]]`.
pub(crate) const LISTEN: &str = include_str!("listen.toml");
/// Defaults of a `[[mail.dns-list]]`.
pub(crate) const DNS_LIST: &str = include_str!("dns_list.toml");
/// Defaults of a `[[mail.greylist.for]]`.
pub(crate) const GREYLIST_FOR: &str = include_str!("greylist_for.toml");
/// What the program uses when there is no file.
pub(crate) const DEMO: &str = include_str!("demo.toml");

/// A key of `lamppost.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name with its section, such as `mail.limits.sessions-max`.
    pub name: String,
    /// Its default, as it would stand in the file.
    pub default: String,
    /// What it means.
    pub text: String,
}

/// A key with the value that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name with its section; listeners have their number in it.
    pub key: String,
    /// The value, as it would stand in the file.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is built in.
    Default,
    /// It stands on this line of the file.
    File {
        /// The line, from 1.
        line: usize,
    },
}

impl Entry {
    /// The value as it is meant, for formats other than TOML.
    pub fn parsed(&self) -> Option<toml::Value> {
        let mut table: toml::Table = toml::from_str(&format!("value = {}", self.value)).ok()?;
        table.remove("value")
    }
}

/// All keys in the order of the sections.
pub fn reference() -> Vec<Key> {
    let mut keys = keys_of(DEFAULTS, "");
    keys.extend(keys_of(DNS_LIST, "mail."));
    keys.extend(keys_of(GREYLIST_FOR, "mail.greylist."));
    keys.extend(keys_of(LISTEN, "mail."));
    keys
}

fn keys_of(text: &str, prefix: &str) -> Vec<Key> {
    let mut section = String::new();
    let mut comment = Vec::new();
    let mut keys = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{prefix}{}.", name.trim_end_matches(']'));
        } else if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some((name, default)) = line.split_once(" = ") {
            keys.push(Key {
                name: format!("{section}{name}"),
                default: default.to_owned(),
                text: std::mem::take(&mut comment).join(" "),
            });
        }
    }
    keys
}

/// What a key means; its section may be left out where that leaves no doubt.
pub fn explain(name: &str) -> Option<Key> {
    let keys = reference();
    let exact = keys.iter().find(|key| key.name == name).cloned();
    let short = || {
        let suffix = format!(".{name}");
        let mut found = keys.iter().filter(|key| key.name.ends_with(&suffix));
        found.next().filter(|_| found.next().is_none()).cloned()
    };
    exact.or_else(short)
}

/// The keys of a section and of those below it; none when there is no such section.
pub fn explain_section(name: &str) -> Vec<Key> {
    let prefix = format!("{}.", name.trim_matches(['[', ']']));
    reference().into_iter().filter(|key| key.name.starts_with(&prefix)).collect()
}

/// The key or the section that was probably meant.
pub fn similar_key(name: &str) -> Option<String> {
    let keys = reference();
    let short = |key: &Key| key.name.rsplit('.').next().unwrap_or_default().to_owned();
    let shorts: Vec<_> = keys.iter().map(short).collect();
    let sections: BTreeSet<_> =
        keys.iter().filter_map(|key| Some(key.name.rsplit_once('.')?.0)).collect();
    let names = keys.iter().map(|key| key.name.as_str());
    let full = nearest(name, names.chain(sections));
    full.or_else(|| {
        let near = nearest(name.rsplit('.').next()?, shorts.iter().map(String::as_str))?;
        keys.iter().find(|key| short(key) == near).map(|key| key.name.as_str())
    })
    .map(str::to_owned)
}

/// All defaults with their comments, as a file.
pub fn defaults_text() -> String {
    let listen =
        LISTEN.replace("[listen]", "# Each listener is a section of its own.\n[[mail.listen]]");
    let lists = DNS_LIST.replace(
        "[dns-list]",
        "# Each list in the DNS is a section of its own.\n[[mail.dns-list]]",
    );
    let exceptions = GREYLIST_FOR.replace(
        "[for]",
        "# Recipients for whom the greylist decides otherwise are sections of their own.\n\
         [[mail.greylist.for]]",
    );
    format!("{DEFAULTS}\n{lists}\n{exceptions}\n{listen}")
}

/// A file to begin with: a small host's settings, and all other keys as comments.
pub fn init_text() -> String {
    let mut text = String::from(
        "# Lamppost's settings. `lamppost check FILE` checks them, `lamppost explain KEY` explains a key.\n\
         # A key that is missing or commented out has the value shown here.\n\n",
    );
    for line in DEFAULTS.lines() {
        let is_key = line.contains(" = ") && !line.starts_with('#');
        text.push_str(if is_key { "#" } else { "" });
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(
        "\n# Lists in the DNS that clients are looked up in are sections of their own, [[mail.dns-list]]:\n\
         # `lamppost explain mail.dns-list` tells their keys. So are recipients for whom the greylist decides\n\
         # otherwise, [[mail.greylist.for]].\n",
    );
    text.push_str(
        "\n# Each listener is a section of its own. This one is for trying out: loopback, no TLS.\n\
         [[mail.listen]]\n",
    );
    for line in LISTEN.lines().skip(1) {
        let chosen = match line.split(" = ").next() {
            Some("address") => "address = [\"127.0.0.1:2525\"]".to_owned(),
            Some("tls") => "tls = \"off\"".to_owned(),
            _ if line.starts_with('#') || line.is_empty() => line.to_owned(),
            _ => format!("#{line}"),
        };
        text.push_str(&chosen);
        text.push('\n');
    }
    text
}

impl Config {
    /// Every key with its value and source; only those of the file if `changed`. The text must be
    /// one that [`Config::parse`] takes.
    pub fn show(text: &str, changed: bool) -> Vec<Entry> {
        let (root, _) = DeTable::parse_recoverable(text);
        let mut entries = Vec::new();
        for key in keys_of(DEFAULTS, "") {
            let found = lookup(root.get_ref(), &key.name);
            entries.push(entry(text, key.name, key.default, found));
        }
        let repeated = [
            ("mail.dns-list", DNS_LIST),
            ("mail.greylist.for", GREYLIST_FOR),
            ("mail.listen", LISTEN),
        ];
        for (section, defaults) in repeated {
            let tables =
                lookup(root.get_ref(), section).and_then(|value| value.get_ref().as_array());
            for (number, table) in tables.into_iter().flat_map(|array| array.iter()).enumerate() {
                for key in keys_of(defaults, "mail.") {
                    let short = key.name.rsplit('.').next().unwrap_or_default();
                    let found = table.get_ref().as_table().and_then(|table| table.get(short));
                    let name = format!("{section}[{number}].{short}");
                    entries.push(entry(text, name, key.default, found));
                }
            }
        }
        entries.retain(|entry| !changed || entry.source != Source::Default);
        entries
    }
}

fn entry(
    text: &str,
    key: String,
    default: String,
    found: Option<&toml::Spanned<DeValue<'_>>>,
) -> Entry {
    match found.map(toml::Spanned::span).filter(|span| span.end <= text.len()) {
        Some(span) => {
            let line = text[..span.start].matches('\n').count() + 1;
            let value = match key.as_str() {
                "mail.greylist.database" => greylist_database::shown(&text[span]),
                _ => text[span].to_owned(),
            };
            Entry { key, value, source: Source::File { line } }
        }
        None => Entry { key, value: default, source: Source::Default },
    }
}

/// The value of a key with dots in its name.
fn lookup<'t, 'i>(root: &'t DeTable<'i>, name: &str) -> Option<&'t toml::Spanned<DeValue<'i>>> {
    let mut parts = name.split('.');
    let mut value = root.get(parts.next()?)?;
    for part in parts {
        value = value.get_ref().as_table()?.get(part)?;
    }
    Some(value)
}

/// What the program uses when there is no file, as a file.
pub fn demo_text() -> &'static str {
    DEMO
}
