//! Lamppost's log: what its greylist decided of each attempt, without those who were known.

use std::collections::HashMap;
use std::time::Duration;

use lamppost_evidence::{Spf, SpfResult};
use serde_json::Value;

use super::delivery::Delivery;
use super::log::Shown;
use super::stamp::Stamps;

/// What its lines say of an attempt.
const MESSAGES: [&str; 3] = ["greylist defers", "greylist passes", "greylist would defer"];

#[derive(Debug)]
pub(super) struct Own;

impl Own {
    #[expect(clippy::unused_self, reason = "the other logs' readers remember something")]
    pub(super) fn read(&mut self, line: &str, stamps: &mut Stamps) -> Option<Delivery> {
        if line.starts_with('{') {
            return of_json(line);
        }
        let (at, rest) = stamps.split(line)?;
        let (at_message, message) =
            MESSAGES.iter().find_map(|message| Some((rest.find(message)?, message)))?;
        let fields = fields(&rest[at_message + message.len()..]);
        told(at, |name| fields.get(name).map(|value| &value[..]))
    }
}

/// A line of `log.format = "json"`, or of `journalctl -o json`.
fn of_json(line: &str) -> Option<Delivery> {
    let value: Value = serde_json::from_str(line).ok()?;
    let object = value.as_object()?;
    let text = |name: &str| {
        let found = object.get(name).or_else(|| object.get(&name.to_uppercase()));
        found.and_then(Value::as_str)
    };
    if !MESSAGES.contains(&text("message")?) {
        return None;
    }
    let at = match text("timestamp") {
        Some(stamp) => Stamps::default().split(&format!("{stamp} "))?.0,
        None => Duration::from_micros(text("__REALTIME_TIMESTAMP")?.parse().ok()?),
    };
    told(at, text)
}

fn told<'t>(at: Duration, field: impl Fn(&str) -> Option<&'t str>) -> Option<Delivery> {
    let ip = field("peer")?.parse().ok()?;
    // Which networks it counted as tells what was found out about it.
    let networks = field("networks").unwrap_or_default();
    let of = |kind: &str| networks.split(' ').find_map(|network| network.strip_prefix(kind));
    let names = of("name:").map(|name| vec![name.to_owned()]);
    let mut delivery =
        Delivery::of_log(at, Shown { ip, names, helo: String::new() }, field("from")?);
    if let Some(domain) = of("spf:") {
        let domain = domain.to_owned();
        delivery.spf = Spf { result: SpfResult::Pass, domain, is_narrow: true };
    }
    delivery.is_listed = field("rule") == Some("dns-listed");
    Some(delivery.to(field("to")?))
}

/// `name=value` and `name="value"` with spaces between.
fn fields(text: &str) -> HashMap<&str, String> {
    let mut fields = HashMap::new();
    let mut rest = text.trim_start();
    while let Some((name, value)) = rest.split_once('=') {
        let plain = || {
            let (value, behind) = value.split_once(' ').unwrap_or((value, ""));
            (value.to_owned(), behind)
        };
        let (value, behind) = value.strip_prefix('"').map_or_else(plain, unquoted);
        fields.insert(name, value);
        rest = behind.trim_start();
    }
    fields
}

/// A text up to its closing quote, and what is behind.
fn unquoted(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}
