//! The figures that the metrics endpoint tells, in Prometheus' text format.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A figure that goes up and down; its copies are one.
pub use prometheus_client::metrics::gauge::Gauge;

/// A counter with one label.
type Labelled = Family<[(&'static str, String); 1], Counter>;

/// The program's figures.
///
/// Names are `lamppost_` and the field's name; counters end in `_total`.
#[derive(Debug)]
pub struct Metrics {
    smtp_sessions: Labelled,
    /// Connections that a rule denied.
    pub connections_denied: Counter,
    dns_list_answers: Family<[(&'static str, String); 2], Counter>,
    /// Lists in the DNS that are not asked for a while.
    pub dns_lists_out: Gauge,
    /// Sessions that are open now.
    pub smtp_sessions_open: Gauge,
    /// Messages that were acknowledged.
    pub messages_accepted: Counter,
    messages_refused: Labelled,
    recipients_refused: Labelled,
    recipients_deferred: Labelled,
    greylist_decisions: Labelled,
    /// Connections of mail servers that ask the greylist, open now.
    pub greylist_connections_open: Gauge,
    /// Tries to authenticate that were refused.
    pub auth_failures: Counter,
    deliveries: Labelled,
    delivery_syncs: Labelled,
    /// Whether the host of `relay-to` took the last connection: 1 or 0.
    pub relay_up: Gauge,
    /// Connections to it that are open now.
    pub relay_connections_open: Gauge,
    /// Recipients that wait for it now.
    pub relay_recipients_waiting: Gauge,
    /// Messages in the queue now.
    pub queue_messages: Gauge,
    /// Those of them that an administrator holds.
    pub queue_messages_held: Gauge,
    /// Recipients that wait for a try.
    pub queue_recipients_waiting: Gauge,
    /// Recipients that failed for good and whose senders are not told yet.
    pub queue_recipients_failed: Gauge,
    /// When the oldest message in the queue was acknowledged, in seconds since 1970; 0 without one.
    pub queue_oldest_timestamp_seconds: Gauge,
    /// Whether the spool takes no mail, or cannot be written: 1 or 0.
    pub spool_fault: Gauge,
    /// What was found damaged in the spool since the start.
    pub spool_damage: Gauge,
    /// Syncs of the spool's log.
    pub spool_syncs: Counter,
    /// How long a sync of the spool's log takes, in seconds.
    pub spool_sync_seconds: Histogram,
    /// Bytes of the spool on disk now.
    pub spool_bytes: Gauge,
    registry: Registry,
}

impl Metrics {
    /// Figures that all start at 0.
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            smtp_sessions: Family::default(),
            connections_denied: Counter::default(),
            dns_list_answers: Family::default(),
            dns_lists_out: Gauge::default(),
            smtp_sessions_open: Gauge::default(),
            messages_accepted: Counter::default(),
            messages_refused: Family::default(),
            recipients_refused: Family::default(),
            recipients_deferred: Family::default(),
            greylist_decisions: Family::default(),
            greylist_connections_open: Gauge::default(),
            auth_failures: Counter::default(),
            deliveries: Family::default(),
            delivery_syncs: Family::default(),
            relay_up: Gauge::default(),
            relay_connections_open: Gauge::default(),
            relay_recipients_waiting: Gauge::default(),
            queue_messages: Gauge::default(),
            queue_messages_held: Gauge::default(),
            queue_recipients_waiting: Gauge::default(),
            queue_recipients_failed: Gauge::default(),
            queue_oldest_timestamp_seconds: Gauge::default(),
            spool_fault: Gauge::default(),
            spool_damage: Gauge::default(),
            spool_syncs: Counter::default(),
            spool_sync_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            spool_bytes: Gauge::default(),
            registry: Registry::with_prefix("lamppost"),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        self.register_traffic();
        self.register_queue();
    }

    /// What comes in and goes out.
    fn register_traffic(&mut self) {
        let to = &mut self.registry;
        to.register("smtp_sessions", "SMTP sessions by listener", self.smtp_sessions.clone());
        let denied = self.connections_denied.clone();
        to.register("connections_denied", "Connections denied by a rule", denied);
        let help = "Answers about clients of lists in the DNS, by list and outcome";
        to.register("dns_list_answers", help, self.dns_list_answers.clone());
        let help = "Lists in the DNS that are not asked for a while";
        to.register("dns_lists_out", help, self.dns_lists_out.clone());
        let open = self.smtp_sessions_open.clone();
        to.register("smtp_sessions_open", "SMTP sessions open now", open);
        to.register("messages_accepted", "Messages acknowledged", self.messages_accepted.clone());
        let refused = self.messages_refused.clone();
        to.register("messages_refused", "Messages refused after DATA, by reason", refused);
        let refused = self.recipients_refused.clone();
        to.register("recipients_refused", "Recipients refused for good, by reason", refused);
        let deferred = self.recipients_deferred.clone();
        to.register("recipients_deferred", "Recipients told to come back, by reason", deferred);
        let decisions = self.greylist_decisions.clone();
        to.register(
            "greylist_decisions",
            "Attempts that the greylist decided, by reason",
            decisions,
        );
        let help = "Connections of mail servers that ask the greylist, open now";
        to.register("greylist_connections_open", help, self.greylist_connections_open.clone());
        to.register("auth_failures", "Authentications refused", self.auth_failures.clone());
        to.register("deliveries", "Tries to deliver, by outcome", self.deliveries.clone());
        let help = "Syncs of Maildirs, each by itself or all by a sync of their file system";
        to.register("delivery_syncs", help, self.delivery_syncs.clone());
        let help = "Whether the host of relay-to took the last connection: 1 or 0";
        to.register("relay_up", help, self.relay_up.clone());
        let help = "Connections to the host of relay-to open now";
        to.register("relay_connections_open", help, self.relay_connections_open.clone());
        let help = "Recipients waiting for the host of relay-to";
        to.register("relay_recipients_waiting", help, self.relay_recipients_waiting.clone());
    }

    /// What is in the queue, and how its spool is.
    fn register_queue(&mut self) {
        let to = &mut self.registry;
        to.register("queue_messages", "Messages in the queue", self.queue_messages.clone());
        let held = self.queue_messages_held.clone();
        to.register("queue_messages_held", "Messages that an administrator holds", held);
        let waiting = self.queue_recipients_waiting.clone();
        to.register("queue_recipients_waiting", "Recipients that wait for a try", waiting);
        let help = "Recipients that failed for good and whose senders are not told yet";
        to.register("queue_recipients_failed", help, self.queue_recipients_failed.clone());
        let help = "When the oldest message in the queue was acknowledged; 0 without one";
        let oldest = self.queue_oldest_timestamp_seconds.clone();
        to.register("queue_oldest_timestamp_seconds", help, oldest);
        let help = "Whether the spool takes no mail or cannot be written: 1 or 0";
        to.register("spool_fault", help, self.spool_fault.clone());
        let help = "What was found damaged in the spool since the start";
        to.register("spool_damage", help, self.spool_damage.clone());
        to.register("spool_syncs", "Syncs of the spool's log", self.spool_syncs.clone());
        let seconds = self.spool_sync_seconds.clone();
        to.register("spool_sync_seconds", "Duration of a sync of the spool's log", seconds);
        to.register("spool_bytes", "Bytes of the spool on disk", self.spool_bytes.clone());
    }

    /// Counts a session of a listener.
    pub fn smtp_session(&self, listener: &str) {
        self.smtp_sessions.get_or_create(&[("listener", listener.to_owned())]).inc();
    }

    /// Counts what a list in the DNS said of a client.
    pub fn dns_list_answer(&self, list: &str, outcome: &'static str) {
        let labels = [("list", list.to_owned()), ("outcome", outcome.to_owned())];
        self.dns_list_answers.get_or_create(&labels).inc();
    }

    /// Counts a message that was refused after its content had come.
    pub fn message_refused(&self, reason: &'static str) {
        self.messages_refused.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    /// Counts a recipient that was refused for good.
    pub fn recipient_refused(&self, reason: &'static str) {
        self.recipients_refused.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    /// Counts a recipient that was told to come back later.
    pub fn recipient_deferred(&self, reason: &'static str) {
        self.recipients_deferred.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    /// Counts an attempt that the greylist decided.
    pub fn greylist_decision(&self, reason: &'static str) {
        self.greylist_decisions.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    /// Counts a try to deliver.
    pub fn delivery(&self, outcome: &'static str) {
        self.deliveries.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// Counts a Maildir that was made durable.
    pub fn delivery_sync(&self, way: &'static str) {
        self.delivery_syncs.get_or_create(&[("way", way.to_owned())]).inc();
    }

    /// The figures in Prometheus' text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail, and the registry's own encoders do not.
        let encoded = encode(&mut text, &self.registry);
        debug_assert!(encoded.is_ok());
        text
    }
}

/// The figures of several processes as those of one: series of the same name are added up.
///
/// Every process has all families, each counts its own part of them.
pub fn merged(texts: &[String]) -> String {
    let mut lines: Vec<(&str, Option<f64>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    // Series of a family must stay together: those of later texts go behind the family's head.
    let mut heads: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut family = "";
    for text in texts {
        for line in text.lines() {
            if line == "# EOF" {
                continue;
            }
            if let Some(head) = line.strip_prefix("# ") {
                if let Some(name) =
                    head.strip_prefix("HELP ").and_then(|head| head.split(' ').next())
                {
                    family = name;
                }
                if !places.contains_key(line) {
                    places.insert(line, lines.len());
                    heads.entry(family).or_default().push(lines.len());
                    lines.push((line, None));
                }
                continue;
            }
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let value = value.parse().unwrap_or(0.0);
            if let Some(&place) = places.get(series) {
                lines[place].1 = lines[place].1.map(|sum| sum + value);
            } else {
                places.insert(series, lines.len());
                heads.entry(family).or_default().push(lines.len());
                lines.push((series, Some(value)));
            }
        }
    }
    let mut order: Vec<_> = heads.into_values().collect();
    order.sort();
    let mut text = String::new();
    for (line, value) in order.into_iter().flatten().map(|place| lines[place]) {
        let _infallible = match value {
            Some(value) => writeln!(text, "{line} {value}"),
            None => writeln!(text, "{line}"),
        };
    }
    text.push_str("# EOF\n");
    text
}

/// Those figures of a process that only grow: what one has counted that ended stays counted.
pub fn counters(text: &str) -> String {
    let gauges: HashSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"))
        .collect();
    let mut family = "";
    let mut kept = String::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# ") {
            family = head.split(' ').nth(1).unwrap_or_default();
        }
        if !gauges.contains(family) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_counted_that_ended_stays_and_what_it_had_does_not() {
        let (ended, other) = (Metrics::new(), Metrics::new());
        ended.smtp_session("127.0.0.1:25");
        ended.messages_accepted.inc();
        ended.spool_sync_seconds.observe(0.001);
        ended.smtp_sessions_open.inc();
        ended.queue_messages.set(5);
        other.smtp_sessions_open.inc();
        let text = merged(&[counters(&ended.encode()), other.encode()]);
        for line in [
            "lamppost_smtp_sessions_total{listener=\"127.0.0.1:25\"} 1",
            "lamppost_messages_accepted_total 1",
            "lamppost_spool_sync_seconds_count 1",
            "lamppost_smtp_sessions_open 1",
            "lamppost_queue_messages 0",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
        }
    }

    #[test]
    fn figures_of_several_processes_are_one() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.messages_accepted.inc();
        one.smtp_session("127.0.0.1:25");
        other.messages_accepted.inc();
        other.smtp_session("[::1]:25");
        other.spool_sync_seconds.observe(0.001);
        let text = merged(&[one.encode(), other.encode()]);
        assert!(text.contains("lamppost_messages_accepted_total 2\n"), "{text}");
        assert!(text.contains("{listener=\"127.0.0.1:25\"} 1\n"), "{text}");
        assert!(text.contains("{listener=\"[::1]:25\"} 1\n"), "{text}");
        assert!(text.contains("lamppost_spool_sync_seconds_sum 0.001\n"), "{text}");
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
        let heads = text.matches("# TYPE lamppost_smtp_sessions counter").count();
        assert_eq!(heads, 1, "{text}");
        assert_eq!(merged(&[merged(&[one.encode()])]), merged(&[one.encode()]));
    }

    #[test]
    fn the_document_has_every_figure_and_no_other() {
        let document = include_str!("../../../docs/reference/metrics.md");
        let metrics = Metrics::new();
        // A figure with labels is told once it has a value.
        metrics.smtp_session("127.0.0.1:25");
        metrics.message_refused("x");
        metrics.dns_list_answer("x", "x");
        metrics.recipient_refused("x");
        metrics.recipient_deferred("x");
        metrics.greylist_decision("x");
        metrics.delivery("x");
        metrics.delivery_sync("x");
        let text = metrics.encode();
        let has = |line: &str| line.strip_prefix("# TYPE ").map(str::to_owned);
        let figures: Vec<_> = text.lines().filter_map(has).collect();
        for figure in &figures {
            let (name, kind) = figure.split_once(' ').unwrap();
            let suffix = if kind == "counter" { "_total" } else { "" };
            assert!(document.contains(&format!("| `{name}{suffix}` | {kind} |")), "{figure}");
        }
        assert_eq!(document.matches("| `lamppost_").count(), figures.len());
    }

    #[test]
    fn figures_come_out_in_the_text_format() {
        let metrics = Metrics::new();
        metrics.messages_accepted.inc();
        metrics.delivery("delivered");
        let text = metrics.encode();
        assert!(text.contains("lamppost_messages_accepted_total 1\n"), "{text}");
        assert!(text.contains("lamppost_deliveries_total{outcome=\"delivered\"} 1\n"), "{text}");
    }
}
