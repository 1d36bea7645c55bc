//! Which messages a command means: ids, or filters.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use lamppost_config::{ByteSize, parse_duration};
use lamppost_roles::{Filter, QueueId, StateFilter, Timestamp};

use super::super::encoded;
use super::out;

/// Where help lists the filters.
const HEADING: &str = "Filters (all that are named must hold)";

/// Messages for which all that is named holds.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Filters {
    /// From this address, `@domain`, or `<>` for bounces
    #[arg(long, help_heading = HEADING, value_name = "ADDRESS", value_parser = sender)]
    sender: Option<String>,
    /// To this address or `@domain`
    #[arg(long, help_heading = HEADING, value_name = "ADDRESS", value_parser = address)]
    recipient: Option<String>,
    /// From or to an address of this domain
    #[arg(long, help_heading = HEADING, value_parser = domain)]
    domain: Option<String>,
    /// In the queue for longer than this, such as 2h
    #[arg(long, help_heading = HEADING, value_name = "DURATION", value_parser = duration)]
    older: Option<Duration>,
    /// In the queue for less than this, such as 10m
    #[arg(long, help_heading = HEADING, value_name = "DURATION", value_parser = duration)]
    newer: Option<Duration>,
    /// At least so large, such as 1MiB
    #[arg(long, help_heading = HEADING, value_name = "SIZE", value_parser = size)]
    larger: Option<u64>,
    /// At most so large
    #[arg(long, help_heading = HEADING, value_name = "SIZE", value_parser = size)]
    smaller: Option<u64>,
    /// With a recipient in this state, or held
    #[arg(long, help_heading = HEADING, value_name = "STATE")]
    in_state: Option<StateName>,
}

/// A state that messages can be asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StateName {
    /// Waits for its first try
    New,
    /// Was tried in vain and waits for the next try
    Deferred,
    /// A try is under way
    Delivering,
    /// Has its mail, while others of the message have not
    Delivered,
    /// Failed for good
    Failed,
    /// Failed for good, and the sender was told
    Bounced,
    /// Held by an administrator
    Held,
}

impl StateName {
    /// The state as the queue knows it.
    fn filter(self) -> StateFilter {
        match self {
            Self::New => StateFilter::New,
            Self::Deferred => StateFilter::Deferred,
            Self::Delivering => StateFilter::Delivering,
            Self::Delivered => StateFilter::Delivered,
            Self::Failed => StateFilter::Failed,
            Self::Bounced => StateFilter::Bounced,
            Self::Held => StateFilter::Held,
        }
    }
}

/// Ids, filters, or all.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Which {
    /// Their ids
    #[arg(conflicts_with_all = [
        "sender", "recipient", "domain", "older", "newer", "larger", "smaller", "in_state",
    ])]
    pub(super) ids: Vec<QueueId>,
    #[command(flatten)]
    pub(super) filters: Filters,
}

impl Which {
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.filters.is_empty()
    }
}

impl Filters {
    pub(super) fn is_empty(&self) -> bool {
        self.filter() == Filter::default()
    }

    /// The filter as the queue knows it, counted from now.
    pub(super) fn filter(&self) -> Filter {
        let ago = |duration: Duration| {
            let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            Timestamp(out::now_ms().saturating_sub(ms))
        };
        Filter {
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            domain: self.domain.clone(),
            before: self.older.map(ago),
            since: self.newer.map(ago),
            larger: self.larger,
            smaller: self.smaller,
            state: self.in_state.map(StateName::filter),
        }
    }
}

/// A filter as part of an address of the control API, each field with `&` before it.
pub(super) fn query(filter: &Filter) -> String {
    let mut query = String::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _infallible = write!(query, "&{name}={}", encoded(&value));
        }
    };
    let Filter { sender, recipient, domain, before, since, larger, smaller, state } = filter;
    put("sender", sender.clone());
    put("recipient", recipient.clone());
    put("domain", domain.clone());
    put("before", before.map(|time| time.0.to_string()));
    put("since", since.map(|time| time.0.to_string()));
    put("larger", larger.map(|size| size.to_string()));
    put("smaller", smaller.map(|size| size.to_string()));
    let state = state.map(|state| match state {
        StateFilter::New => "new",
        StateFilter::Deferred => "deferred",
        StateFilter::Delivering => "delivering",
        StateFilter::Delivered => "delivered",
        StateFilter::Failed => "failed",
        StateFilter::Bounced => "bounced",
        StateFilter::Held => "held",
    });
    put("state", state.map(Into::into));
    query
}

fn sender(text: &str) -> Result<String, String> {
    if matches!(text, "" | "<>") { Ok("<>".into()) } else { address(text) }
}

/// What is no address would match nothing, silently.
fn address(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
    if text.contains('@') {
        Ok(text.to_owned())
    } else {
        Err("write a whole address, or @domain for all of a domain".into())
    }
}

fn domain(text: &str) -> Result<String, String> {
    let domain = text.strip_prefix('@').unwrap_or(text);
    if domain.is_empty() || domain.contains('@') {
        return Err("write a domain, such as example.org".into());
    }
    Ok(domain.to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a duration with its unit: 30s, 10m, 2h, 5d".into())
}

fn size(text: &str) -> Result<u64, String> {
    let size = text.parse::<ByteSize>();
    size.map(|size| size.0).map_err(|()| "write a size with its unit: 512B, 64KiB, 1MiB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_travels_whole() {
        let filter = Filter {
            sender: Some("a+b&c@d.test".into()),
            before: Some(Timestamp(5)),
            state: Some(StateFilter::Held),
            ..Filter::default()
        };
        assert_eq!(query(&filter), "&sender=a%2Bb%26c%40d.test&before=5&state=held");
        assert_eq!(query(&Filter::default()), "");
    }

    #[test]
    fn what_would_match_nothing_is_refused() {
        assert_eq!(sender(""), Ok("<>".into()));
        assert_eq!(address("<a@b>"), Ok("a@b".into()));
        assert!(address("b.test").is_err() && domain("a@b").is_err() && size("5").is_err());
        assert_eq!(domain("@b.test"), Ok("b.test".into()));
    }
}
