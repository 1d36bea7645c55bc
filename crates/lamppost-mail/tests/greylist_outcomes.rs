//! What becomes of messages counts for the greylist: the front tells policy of their ends.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use lamppost_accounts::Accounts;
use lamppost_database::{Database, Survives};
use lamppost_greylist::{Greylist, MemoryStore, Policy as GreylistPolicy};
use lamppost_mail::policy::{Elsewhere, LocalSettings, Policy, PolicySettings, StoreFailure};
use lamppost_net::SystemClock;
use lamppost_net::link::{Port, link};
use lamppost_roles::{Passage, PolicyAnswer, PolicyRequest, Route};
use lamppost_smtp::{Address, Refusal, ReversePath, Secret};

const TO: &str = "demo@lamppost.test";

struct Asked {
    policy: Port<PolicyRequest, PolicyAnswer>,
    _folder: tempfile::TempDir,
}

async fn policy(delay: Duration) -> Asked {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("state.db"), Survives::Kill).unwrap();
    let accounts = Accounts::open(database, lamppost_accounts::Settings::default()).await.unwrap();
    accounts.add(&TO.parse().unwrap(), &Secret::new("x".into())).await.unwrap();
    let hour = Duration::from_secs(3600);
    let greylist = GreylistPolicy::by_address(delay, hour, hour * 24);
    let greylist = Arc::new(Greylist::new(greylist, Box::new(MemoryStore::default())));
    let settings = PolicySettings {
        hostname: "mail.lamppost.test".into(),
        domains: vec!["lamppost.test".into()],
        user_domains: Vec::new(),
        postmaster: None,
        when_store_fails: StoreFailure::Defer,
        observes: false,
        logs_to_store: false,
        elsewhere: Elsewhere::Nowhere,
        local: LocalSettings::default(),
    };
    let policy = Policy::new(settings, accounts, greylist, Arc::new(SystemClock));
    let (port, inbox) = link();
    tokio::spawn(policy.run(inbox));
    Asked { policy: port, _folder: folder }
}

impl Asked {
    async fn recipient(&self, sender: &ReversePath) -> PolicyAnswer {
        let asked = PolicyRequest::Recipient {
            peer: "192.0.2.1".parse().unwrap(),
            helo: "mx.elsewhere.test".into(),
            sender: sender.clone(),
            recipient: TO.parse().unwrap(),
            account: None,
            relay: false,
            greylisting: None,
        };
        self.policy.ask(asked).await.unwrap()
    }

    async fn ends(&self, sender: &ReversePath, passage: Passage, accepted: bool) {
        let told = PolicyRequest::Outcome {
            peer: "192.0.2.1".parse().unwrap(),
            sender: sender.clone(),
            recipients: vec![(TO.parse().unwrap(), Some(passage))],
            accepted,
        };
        assert_eq!(self.policy.ask(told).await, Ok(PolicyAnswer::Allowed));
    }
}

fn first() -> PolicyAnswer {
    let passage = Passage { networks: vec!["192.0.2.0".into()], promoted: vec![], is_first: true };
    let route = Route::Mailbox(TO.parse().unwrap());
    PolicyAnswer::Minded { route, hold: None, passage: Some(passage) }
}

#[tokio::test]
async fn a_triplet_is_known_once_a_message_of_it_was_taken() {
    let asked = policy(Duration::ZERO).await;
    let from = ReversePath::Mailbox("a@elsewhere.test".parse::<Address>().unwrap());
    let answer = asked.recipient(&from).await;
    assert_eq!(answer, first());
    // It went away, and came again.
    assert_eq!(asked.recipient(&from).await, first());
    let PolicyAnswer::Minded { passage: Some(passage), .. } = answer else { return };
    asked.ends(&from, passage.clone(), false).await;
    assert_eq!(asked.recipient(&from).await, first());
    asked.ends(&from, passage, true).await;
    let known = PolicyAnswer::Route(Route::Mailbox(TO.parse().unwrap()));
    assert_eq!(asked.recipient(&from).await, known);
}

#[tokio::test]
async fn a_null_sender_is_held_until_its_message() {
    let asked = policy(Duration::from_secs(300)).await;
    let answer = asked.recipient(&ReversePath::Null).await;
    let PolicyAnswer::Minded { hold: Some(hold), passage: None, .. } = answer else {
        unreachable!("{answer:?}")
    };
    assert!(matches!(&hold, Refusal::Greylisted { reason, .. } if reason == "new"), "{hold:?}");
    let from = ReversePath::Mailbox("a@elsewhere.test".parse::<Address>().unwrap());
    let refused = asked.recipient(&from).await;
    assert!(matches!(refused, PolicyAnswer::Refused(Refusal::Greylisted { .. })), "{refused:?}");
}
