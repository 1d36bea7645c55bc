//! The way to a recipient: mailboxes here, and out by the relay for those who may.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use lamppost_accounts::Accounts;
use lamppost_database::{Database, Survives};
use lamppost_greylist::{Greylist, MemoryStore, Policy as GreylistPolicy};
use lamppost_mail::policy::{Elsewhere, LocalSettings, Policy, PolicySettings, StoreFailure};
use lamppost_net::SystemClock;
use lamppost_net::link::{Inbox, Port, link};
use lamppost_roles::{
    PolicyAnswer, PolicyRequest, Route, RouteAnswer, RouteRequest, SystemUser, UserAnswer,
    UserMailbox, UserRequest,
};
use lamppost_smtp::{Address, Refusal, ReversePath, Secret};

struct Asked {
    front: Port<PolicyRequest, PolicyAnswer>,
    queue: Port<RouteRequest, RouteAnswer>,
    _folder: tempfile::TempDir,
}

async fn policy(elsewhere: Elsewhere) -> Asked {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("state.db"), Survives::Kill).unwrap();
    let accounts = Accounts::open(database, lamppost_accounts::Settings::default()).await.unwrap();
    accounts.add(&address("demo@lamppost.test"), &Secret::new("x".into())).await.unwrap();
    let greylist = GreylistPolicy {
        enabled: true,
        ..GreylistPolicy::by_address(
            Duration::from_secs(60),
            Duration::from_secs(600),
            Duration::from_secs(6000),
        )
    };
    let greylist = Arc::new(Greylist::new(greylist, Box::new(MemoryStore::default())));
    let settings = PolicySettings {
        hostname: "mail.lamppost.test".into(),
        domains: vec!["lamppost.test".into()],
        user_domains: vec!["users.test".into()],
        postmaster: Some(address("demo@lamppost.test")),
        when_store_fails: StoreFailure::Defer,
        observes: false,
        logs_to_store: false,
        elsewhere,
        local: LocalSettings::default(),
    };
    let policy = Policy::new(settings, accounts, greylist, Arc::new(SystemClock));
    let (users, asked) = link();
    tokio::spawn(tell_users(asked));
    let policy = policy.asking(users);
    let (front, front_inbox) = link();
    let (queue, queue_inbox) = link();
    tokio::spawn(policy.clone().run(front_inbox));
    tokio::spawn(policy.run_routes(queue_inbox));
    Asked { front, queue, _folder: folder }
}

/// A machine with two users: alice, whose home is there, and bob, whose home is away.
async fn tell_users(mut asked: Inbox<UserRequest, UserAnswer>) {
    while let Some((question, reply)) = asked.next().await {
        reply.send(match question {
            UserRequest::Name(_) => UserAnswer::Name(None),
            UserRequest::Mailbox(name) => UserAnswer::Mailbox(match name.as_str() {
                "alice" => UserMailbox::Here(SystemUser { uid: 1000, listed: 1 }),
                "bob" => UserMailbox::Away("the home is away".into()),
                _ => UserMailbox::Unknown,
            }),
        });
    }
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

impl Asked {
    #[track_caller]
    fn queue_hears(&self, to: &str, expected: RouteAnswer) -> impl Future<Output = ()> {
        let asked = self.queue.ask(RouteRequest { address: address(to) });
        async move { assert_eq!(asked.await, Ok(expected)) }
    }

    async fn admit(&self, to: &str, account: Option<&str>) -> PolicyAnswer {
        let question = PolicyRequest::Recipient {
            peer: "192.0.2.1".parse().unwrap(),
            helo: String::new(),
            sender: ReversePath::Mailbox(address("demo@lamppost.test")),
            recipient: address(to),
            account: account.map(address),
            relay: false,
            greylisting: None,
        };
        self.front.ask(question).await.unwrap()
    }
}

#[tokio::test]
async fn the_queue_is_told_the_way_of_a_bounce() {
    let mailbox = || RouteAnswer::Route(Route::Mailbox(address("demo@lamppost.test")));
    for (elsewhere, out) in [
        (Elsewhere::Nowhere, RouteAnswer::Nowhere),
        (Elsewhere::Relay, RouteAnswer::Route(Route::Relay)),
    ] {
        let policy = policy(elsewhere).await;
        policy.queue_hears("Demo@lamppost.test", mailbox()).await;
        policy.queue_hears("postmaster@lamppost.test", mailbox()).await;
        policy.queue_hears("postmaster@mail.lamppost.test", mailbox()).await;
        policy.queue_hears("nobody@lamppost.test", RouteAnswer::Unknown).await;
        policy.queue_hears("someone@elsewhere.test", out).await;
    }
}

#[tokio::test]
async fn only_accounts_send_elsewhere_and_only_where_a_way_leads_out() {
    let to = "someone@elsewhere.test";
    let demo = Some("demo@lamppost.test");
    let closed = policy(Elsewhere::Nowhere).await;
    let no_way = Refusal::NoWayOut { domain: "elsewhere.test".into() };
    assert_eq!(closed.admit(to, demo).await, PolicyAnswer::Refused(no_way));
    assert_eq!(closed.admit(to, None).await, PolicyAnswer::Refused(Refusal::RelayDenied));
    let open = policy(Elsewhere::Relay).await;
    assert_eq!(open.admit(to, demo).await, PolicyAnswer::Route(Route::Relay));
    assert_eq!(open.admit(to, None).await, PolicyAnswer::Refused(Refusal::RelayDenied));
}

#[tokio::test]
async fn users_of_the_machine_have_mailboxes_as_long_as_their_homes_are_there() {
    let policy = policy(Elsewhere::Nowhere).await;
    let demo = Some("demo@lamppost.test");
    let alice = Route::Mailbox(address("alice@users.test"));
    assert_eq!(policy.admit("Alice@Users.test", demo).await, PolicyAnswer::Route(alice.clone()));
    policy.queue_hears("alice@users.test", RouteAnswer::Route(alice)).await;
    let away = PolicyAnswer::Refused(Refusal::MailboxAway);
    assert_eq!(policy.admit("bob@users.test", None).await, away);
    policy.queue_hears("bob@users.test", RouteAnswer::Unavailable).await;
    // An account is none of the machine's users, and no user has a mailbox in the domain of accounts.
    for nobody in ["demo@users.test", "al/ice@users.test", "alice@lamppost.test"] {
        let unknown = PolicyAnswer::Refused(Refusal::UnknownMailbox);
        assert_eq!(policy.admit(nobody, None).await, unknown, "{nobody}");
    }
    let postmaster = Route::Mailbox(address("demo@lamppost.test"));
    let admitted = policy.admit("postmaster@users.test", demo).await;
    assert_eq!(admitted, PolicyAnswer::Route(postmaster));
}
