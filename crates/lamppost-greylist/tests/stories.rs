//! The greylist over whole stories: scenario tables, relaydelay's rules against a model of them, and
//! lookups that fail.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use lamppost_database::{Database, Survives};
use lamppost_evidence::{
    Client, ConfirmedName, Evidence, Investigator, ReverseName, Spf, SpfResult,
};
use lamppost_greylist::replay::{Answer, Delivery, Replay, Word};
use lamppost_greylist::{
    Adaptive, Algorithm, Attempt, Greylist, MemoryStore, Outcome, Policy, SqliteStore, Stage,
    Store, Terms,
};
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn adaptive() -> Policy {
    Policy {
        algorithm: Algorithm::Adaptive(Adaptive {
            good_delay: Duration::ZERO,
            good_domains: vec!["good.example".into()],
            suspect_delay: 30 * MINUTE,
            promote_after: 3,
            promote_within: 7 * DAY,
            demote_after: 3,
            answer_window: 30 * DAY,
        }),
        ..Policy::by_address(5 * MINUTE, 600 * MINUTE, 36 * DAY)
    }
}

fn relaydelay() -> Policy {
    Policy { algorithm: Algorithm::Relaydelay, ..adaptive() }
}

/// Decides lines of JSON; returns what each was told in short.
fn told(policy: Policy, lines: &str) -> String {
    let mut replay = Replay::new(policy, vec!["here.test".into()]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut text = String::new();
    for line in lines.lines() {
        let delivery = Delivery::of_json(line).unwrap();
        let Answer { to, data } = runtime.block_on(replay.decide(&delivery)).unwrap();
        for told in to {
            write!(text, "{:?} {}", told.decision, told.reason).unwrap();
            if let Some(wait) = told.retry_in {
                write!(text, " {wait}").unwrap();
            }
            text.push_str(", ");
        }
        writeln!(text, "{data:?}").unwrap();
    }
    text
}

/// A line with the members that matter; the others are usual ones.
fn line(t: u64, ip: &str, from: &str, to: &[&str], more: &str) -> String {
    let to = serde_json::to_string(to).unwrap();
    format!(r#"{{"t":{t},"ip":"{ip}","from":"{from}","to":{to}{more}}}"#)
}

#[test]
fn relaydelay_decides_as_it_did() {
    let (a, b) = (&["x@here.test"][..], &["x@here.test", "y@here.test"][..]);
    let lines = [
        line(1000, "192.0.2.1", "s@a.test", a, ""),
        line(1300, "192.0.2.9", "S@A.test", a, ""),
        // As old as its wait, and not older.
        line(1301, "192.0.2.9", "s@a.test", a, r#","data":false"#),
        // It left before its message was sent: nothing is counted.
        line(36_999, "192.0.2.9", "s@a.test", a, ""),
        line(900_000, "192.0.2.9", "s@a.test", a, ""),
        // Null senders wait in reply to DATA, and each bounce anew.
        line(1_000_000, "192.0.2.1", "", a, ""),
        line(1_000_400, "192.0.2.1", "", b, ""),
        line(1_000_701, "192.0.2.1", "", b, ""),
        line(1_000_702, "192.0.2.1", "", a, ""),
        line(1_000_800, "192.0.2.1", "postmaster@a.test", a, ""),
        // Whose first message is refused starts over.
        line(1_100_000, "192.0.2.1", "r@a.test", a, ""),
        line(1_100_301, "192.0.2.1", "r@a.test", a, r#","data":"reject""#),
        line(1_100_302, "192.0.2.1", "r@a.test", a, ""),
    ];
    insta::assert_snapshot!(told(relaydelay(), &lines.join("\n")), @r"
    Defer new 301, None
    Defer early 1, None
    Accept waited, None
    Accept waited, Some(Accept)
    Accept known, Some(Accept)
    Accept new 301, Some(Defer)
    Accept waited, Accept new 301, Some(Defer)
    Accept waited, Accept waited, Some(Accept)
    Accept new 301, Some(Defer)
    Accept new 301, Some(Defer)
    Defer new 301, None
    Accept waited, Some(Reject)
    Defer new 301, None
    ");
}

#[test]
fn adaptive_goes_by_evidence_and_learns() {
    let a = &["x@here.test"][..];
    let spf = r#","spf":"pass""#;
    let mut lines = vec![
        // A provider's other address, a failing lookup between, and the first one's neighbour.
        line(1000, "192.0.2.1", "s@big.example", a, spf),
        line(1299, "198.51.100.1", "s@big.example", a, spf),
        line(1300, "192.0.2.1", "s@big.example", a, ""),
        line(1301, "203.0.113.1", "s@big.example", a, spf),
        line(2000, "203.0.113.99", "q@b.test", a, r#","host":"203-0-113-99.dyn.isp.example""#),
        line(2000, "203.0.114.1", "q@b.test", a, r#","listed":true"#),
        line(2000, "203.0.115.1", "q@good.example", a, spf),
        line(2000, "203.0.115.9", "q@b.test", a, r#","host":"mx.good.example""#),
        line(2001, "198.18.0.1", "x@here.test", &["you@mail.friend.example"], r#","auth":true"#),
        line(2002, "198.18.1.1", "me@friend.example", a, ""),
        line(2002, "198.18.2.1", "other@friend.example", &["y@here.test"], ""),
        line(2002, "198.18.2.1", "forged@friend.example", a, r#","spf":"fail""#),
    ];
    for (number, at) in
        [(1, 3000), (2, 3000), (3, 3000), (1, 3300), (2, 3300), (3, 3300), (4, 3301)]
    {
        lines.push(line(at, "198.51.7.1", &format!("s{number}@c.test"), a, ""));
    }
    // Refused for what is in it, again and again.
    for (number, at) in (5..10).zip(4000..) {
        let refused = r#","data":"reject""#;
        lines.push(line(at, "198.51.7.1", &format!("s{number}@c.test"), a, refused));
    }
    lines.push(line(4010, "198.51.7.1", "s10@c.test", a, ""));
    lines.push(line(4011, "198.51.7.1", "s11@c.test", a, ""));
    insta::assert_snapshot!(told(adaptive(), &lines.join("\n")), @r"
    Defer new 300, None
    Defer early 1, None
    Accept waited, Some(Accept)
    Accept waited, Some(Accept)
    Defer new 1800, None
    Defer new 1800, None
    Accept good-domain, Some(Accept)
    Accept good-domain, Some(Accept)
    Accept authenticated, Some(Accept)
    Accept answer, Some(Accept)
    Defer new 300, None
    Defer new 300, None
    Defer new 300, None
    Defer new 300, None
    Defer new 300, None
    Accept waited, Some(Accept)
    Accept waited, Some(Accept)
    Accept waited, Some(Accept)
    Accept promoted, Some(Accept)
    Accept promoted, Some(Reject)
    Accept promoted, Some(Reject)
    Accept promoted, Some(Reject)
    Accept promoted, Some(Reject)
    Accept promoted, Some(Reject)
    Defer new 1800, None
    Defer new 1800, None
    ");
}

#[test]
fn recipients_have_terms_of_their_own_and_stages_matter() {
    let mut policy = adaptive();
    let terms = |enabled, delay| Terms { enabled, delay };
    policy.terms.insert("@out.test".into(), terms(false, None));
    policy.terms.insert("in@out.test".into(), terms(true, Some(MINUTE)));
    let to = &["a@out.test", "In@out.test", "x@here.test"][..];
    let lines =
        [line(1000, "192.0.2.1", "s@a.test", to, ""), line(1060, "192.0.2.1", "s@a.test", to, "")];
    insta::assert_snapshot!(told(policy.clone(), &lines.join("\n")), @r"
    Accept opted-out, Defer new 60, Defer new 300, Some(Accept)
    Accept opted-out, Accept waited, Defer early 240, Some(Accept)
    ");
    policy.stage = Stage::Data;
    insta::assert_snapshot!(told(policy, &lines.join("\n")), @r"
    Accept opted-out, Accept new 60, Accept new 300, Some(Defer)
    Accept opted-out, Accept waited, Accept early 240, Some(Defer)
    ");
}

/// What lookups tell at one time.
struct Found(Evidence);

impl Investigator for Found {
    fn investigate<'a>(&'a self, _: Client<'a>) -> futures_util::future::BoxFuture<'a, Evidence> {
        Box::pin(std::future::ready(self.0.clone()))
    }
}

fn found(spf: bool, name: bool) -> Found {
    let mut evidence = Evidence::default();
    if spf {
        let domain = "big.example".to_owned();
        evidence.spf = Spf { result: SpfResult::Pass, domain, is_narrow: true };
    }
    if name {
        evidence.name = ReverseName::Confirmed(ConfirmedName::of("mx.big.example"));
    }
    Found(evidence)
}

async fn stores(folder: &tempfile::TempDir) -> [Box<dyn Store>; 2] {
    let database = Database::open(&folder.path().join("greylist.db"), Survives::Kill).unwrap();
    [Box::new(MemoryStore::default()), Box::new(SqliteStore::open(database).await.unwrap())]
}

/// One sender's attempts, at times and with lookups of which any fail; nobody is new twice, and whoever waited
/// out the longest delay passes.
async fn story(store: Box<dyn Store>, attempts: &[(u64, bool, bool)]) -> Result<(), String> {
    let greylist = Greylist::new(adaptive(), store);
    let mut now = 1_000_000 * MINUTE;
    let first = now;
    let mut was_deferred = false;
    for &(pause, spf, name) in attempts {
        now += Duration::from_secs(pause);
        let attempt = Attempt {
            peer: "192.0.2.1".parse().unwrap(),
            helo: "",
            sender: "s@big.example",
            recipient: "x@here.test",
            although_off: false,
        };
        let ruling = greylist.check(&attempt, Some(&found(spf, name)), now).await.unwrap();
        if ruling.decision.reason() == "new" {
            if was_deferred {
                return Err(format!("new again after {:?}", now.saturating_sub(first)));
            }
            was_deferred = true;
        }
        if let Some(wait) = ruling.decision.retry_in()
            && now + wait > first + 5 * MINUTE + Duration::from_secs(attempts[0].0)
        {
            return Err(format!("waits {wait:?} at {:?}", now.saturating_sub(first)));
        }
        if let Some(passage) = &ruling.passage {
            greylist.settle(passage, (attempt.sender, attempt.recipient), Outcome::Accepted, now);
        }
        greylist.write().await.unwrap();
    }
    Ok(())
}

/// relaydelay's rules (0.04) for one recipient after the other, written down once more: rows by /24, sender
/// and recipient.
#[derive(Default)]
struct Model {
    rows: HashMap<(String, String, String), Row>,
}

#[derive(Clone, Copy)]
struct Row {
    block_expires: u64,
    record_expires: u64,
    passed: u64,
}

impl Model {
    /// What the recipients and DATA are told; `true` is yes.
    fn decide(
        &mut self,
        now: u64,
        ip: &str,
        from: &str,
        to: &[String],
        end: u8,
    ) -> (Vec<bool>, Option<bool>) {
        let network = ip.rsplit_once('.').unwrap().0.to_owned();
        let is_late = from.is_empty() || from.starts_with("postmaster@");
        let keys: Vec<_> =
            to.iter().map(|to| (network.clone(), from.to_owned(), to.clone())).collect();
        let mut passes = Vec::new();
        for key in &keys {
            let live = self.rows.get(key).copied().filter(|row| row.record_expires > now);
            let row = live.unwrap_or(Row {
                block_expires: now + 300,
                record_expires: now + 36_000,
                passed: 0,
            });
            self.rows.insert(key.clone(), row);
            passes.push(now > row.block_expires);
        }
        let replies: Vec<_> = passes.iter().map(|passes| *passes || is_late).collect();
        if end == 0 || !replies.contains(&true) {
            return (replies, None);
        }
        if is_late && passes.contains(&false) {
            return (replies, Some(false));
        }
        for (key, _) in keys.iter().zip(&passes).filter(|(_, passes)| **passes) {
            let row = self.rows.get_mut(key).unwrap();
            match end {
                1 if from.is_empty() => row.record_expires = now,
                1 => row.record_expires = now + 36 * 86_400,
                _ if row.passed == 0 => row.record_expires = now,
                _ => {}
            }
            row.passed += u64::from(end == 1);
        }
        (replies, Some(end == 1))
    }
}

proptest! {
    #[test]
    fn failing_lookups_greylist_nobody_twice(
        attempts in proptest::collection::vec((0_u64..400, any::<bool>(), any::<bool>()), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            for store in stores(&folder).await {
                story(store, &attempts).await.map_err(TestCaseError::fail)?;
            }
            Ok::<_, TestCaseError>(())
        })?;
    }

    #[test]
    fn relaydelay_is_as_its_rules_say(
        attempts in proptest::collection::vec(
            (0_u64..40_000, 0_usize..3, 0_usize..4, proptest::sample::subsequence(vec!["x@here.test", "y@here.test"], 1..3), 0_u8..3, any::<bool>()),
            1..60,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut replay = Replay::new(relaydelay(), Vec::new());
        let mut model = Model::default();
        let mut now = 1_000_000;
        for (pause, ip, from, to, end, soon) in attempts {
            now += if soon { pause % 700 } else { pause };
            let ip = ["192.0.2.1", "192.0.2.77", "198.51.100.1"][ip];
            let from = ["", "s@a.test", "t@a.test", "postmaster@a.test"][from];
            let end_word = ["false", "true", "\"reject\""][usize::from(end)];
            let line = line(now, ip, from, &to, &format!(",\"data\":{end_word}"));
            let answer = runtime.block_on(replay.decide(&Delivery::of_json(&line).unwrap())).unwrap();
            let told: Vec<_> = answer.to.iter().map(|told| told.decision == Word::Accept).collect();
            let data = answer.data.map(|word| word == Word::Accept);
            let to: Vec<_> = to.iter().map(|to| (*to).to_owned()).collect();
            prop_assert_eq!((told, data), model.decide(now, ip, from, &to, end), "at {}", now);
        }
    }

    /// Whatever is found out about a client: nobody waits longer than the longest of the delays.
    #[test]
    fn waiting_is_bounded(
        attempts in proptest::collection::vec((0_u64..3000, 0_u8..6, any::<bool>()), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut replay = Replay::new(adaptive(), Vec::new());
        let (mut now, mut first) = (1_000_000, None);
        for (pause, evidence, _) in attempts {
            now += pause;
            let more = [
                "", r#","listed":true"#, r#","host":"192-0-2-1.dyn.isp.example""#, r#","spf":"pass""#,
                r#","host":null"#, r#","host":"mx.a.test""#,
            ][usize::from(evidence)];
            let line = line(now, "192.0.2.1", "s@a.test", &["x@here.test"], more);
            let answer = runtime.block_on(replay.decide(&Delivery::of_json(&line).unwrap())).unwrap();
            let first = *first.get_or_insert(now);
            match answer.to[0].retry_in {
                Some(wait) => prop_assert!(now + wait <= first + 1800 && now < first + 1800),
                None => prop_assert!(answer.to[0].reason != "new"),
            }
        }
    }
}
