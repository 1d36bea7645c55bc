//! A Maildir that does not answer holds up nobody else's mail, and gets its own when it answers again.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamppost_delivery::{MaildirTemplate, Relay, Settings, Way, run};
use lamppost_disk::Blocking;
use lamppost_net::link::{Port, link};
use lamppost_roles::{
    Content, ContentAnswer, ContentRequest, DeliveryAnswer, DeliveryJob, DeliveryRequest, Outcome,
};
use lamppost_sim::{SilentDisk, SimulatedDisk};
use lamppost_telemetry::{Health, Metrics, State};
use support::job;

struct Role {
    port: Port<DeliveryRequest, DeliveryAnswer>,
    disk: SilentDisk,
    files: SimulatedDisk,
    health: Health,
}

impl Role {
    fn start(way: Way) -> Self {
        let health = Health::default();
        let settings = Settings {
            maildir: MaildirTemplate::new("/mail/{domain}/{local}".into()).unwrap(),
            hostname: "mail.lamppost.test".into(),
            writers_max: 32,
            blocking: Blocking::Threads,
            patience: Duration::from_secs(1),
            silent_max: 16,
            health: health.clone(),
            way: Some(way),
            relay: Relay::default(),
            owners: None,
        };
        let (port, inbox) = link();
        let (content, mut contents) = link::<ContentRequest, ContentAnswer>();
        tokio::spawn(async move {
            while let Some((ContentRequest { offset, length_max, .. }, reply)) =
                contents.next().await
            {
                let rest = &LARGE[usize::try_from(offset).unwrap().min(LARGE.len())..];
                let piece = &rest[..rest.len().min(length_max as usize)];
                reply.send(ContentAnswer::Piece(Bytes::from_static(piece)));
            }
        });
        let files = SimulatedDisk::new(Path::new("/mail"));
        let disk = SilentDisk::new(Arc::new(files.clone()));
        tokio::spawn(run(settings, Arc::new(disk.clone()), Metrics::new(), inbox, content));
        Self { port, disk, files, health }
    }

    async fn ask(&self, request: DeliveryRequest) -> Vec<Outcome> {
        self.port.ask(request).await.unwrap().0
    }

    async fn prepare(&self, jobs: &[DeliveryJob]) -> Vec<Outcome> {
        self.ask(DeliveryRequest::Prepare(jobs.to_vec())).await
    }

    async fn publish(&self, jobs: &[DeliveryJob]) -> Vec<Outcome> {
        let placements = jobs.iter().map(|job| job.placement.clone()).collect();
        self.ask(DeliveryRequest::Publish(placements)).await
    }

    /// Tries again, as the queue does, until all is done.
    async fn persist(&self, jobs: &[DeliveryJob]) {
        for step in [false, true] {
            let mut left = jobs.to_vec();
            while !left.is_empty() {
                let outcomes =
                    if step { self.publish(&left).await } else { self.prepare(&left).await };
                let mut outcomes = outcomes.into_iter();
                left.retain(|_| outcomes.next().unwrap() != Outcome::Done);
            }
        }
    }

    fn came(&self, local: &str) -> usize {
        self.files.files(&format!("/{local}/new/")).len()
    }

    fn tmp(&self, local: &str) -> usize {
        self.files.files(&format!("/{local}/tmp/")).len()
    }

    fn told(&self) -> Option<(State, String)> {
        self.health.facts().pop().map(|fact| (fact.state, fact.text))
    }

    async fn until_told(&self, state: State) {
        while self.told().map(|(told, _)| told) != Some(state) {
            tokio::task::yield_now().await;
        }
    }
}

static LARGE: [u8; 300_000] = [b'x'; 300_000];

fn small() -> Content {
    Content::Inline(Bytes::from_static(b"Subject: x\n\nx\n"))
}

fn is_put_off(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deferred(reason) if reason.text.contains("does not answer"))
}

/// Mail for `deaf` waits, that for others comes, and that for `deaf` when it answers again.
async fn goes_around(way: Way, silent: &'static str, content: Content) {
    let role = Role::start(way);
    // The folders are there, so that any step may be the one that hangs.
    role.persist(&[job(1, "deaf", small()), job(2, "other", small())]).await;
    let quiet = role.disk.silence(silent);
    let mine = [job(3, "deaf", content)];
    let others = [job(4, "other", small()), job(5, "third", small())];
    let all = [&mine[..], &others[..]].concat();
    let mut outcomes = role.prepare(&all).await;
    if !is_put_off(&outcomes[0]) {
        assert_eq!(outcomes, [Outcome::Done, Outcome::Done, Outcome::Done]);
        outcomes = role.publish(&all).await;
    }
    assert!(is_put_off(&outcomes[0]), "{outcomes:?}");
    let (state, text) = role.told().unwrap();
    assert!(state == State::Fail && text.contains("deaf@lamppost.test"), "{text}");
    assert_eq!(role.disk.waiting(), 1);
    // Whatever was put off with it needs but another try.
    role.persist(&others).await;
    assert_eq!((role.came("other"), role.came("third")), (2, 1));
    // More mail for it is put off at once, and no more threads wait for it.
    for id in 10..20 {
        let more = [job(id, "deaf", small()), job(100 + id, "other", small())];
        let outcomes = role.prepare(&more).await;
        assert!(is_put_off(&outcomes[0]) && outcomes[1] == Outcome::Done, "{outcomes:?}");
        role.persist(&more[1..]).await;
    }
    assert_eq!((role.disk.waiting(), role.came("other")), (1, 12));
    drop(quiet);
    role.until_told(State::Ok).await;
    role.persist(&mine).await;
    assert_eq!((role.came("deaf"), role.came("other"), role.came("third")), (2, 12, 1));
    assert_eq!((role.tmp("deaf"), role.tmp("other"), role.tmp("third")), (0, 0, 0));
}

#[tokio::test]
async fn a_maildir_that_does_not_answer_holds_up_no_other() {
    let large = || Content::Aside { length: LARGE.len() as u64 };
    let stories = [
        (Way::Each, "/deaf/tmp", small()),
        (Way::Each, "/deaf/", large()),
        // The folder of what is new is synced by itself in this way only.
        (Way::Each, "/deaf/new", small()),
        (Way::FileSystem, "/deaf/tmp", small()),
        (Way::FileSystem, "/deaf/", large()),
    ];
    let running =
        stories.map(|(way, silent, content)| tokio::spawn(goes_around(way, silent, content)));
    for story in running {
        story.await.unwrap();
    }
}

#[tokio::test]
async fn only_so_many_threads_wait() {
    let role = Role::start(Way::Each);
    let quiet = role.disk.silence("/deaf");
    let role = Arc::new(role);
    let asking: Vec<_> = (0..16)
        .map(|id| {
            let (role, jobs) = (role.clone(), [job(id, &format!("deaf{id}"), small())]);
            tokio::spawn(async move { role.prepare(&jobs).await })
        })
        .collect();
    for outcomes in asking {
        let outcomes = outcomes.await.unwrap();
        assert!(is_put_off(&outcomes[0]), "{outcomes:?}");
    }
    assert_eq!(role.disk.waiting(), 16);
    let (_, text) = role.told().unwrap();
    assert!(text.contains("and 15 others"), "{text}");
    // One more keeps whoever asks waiting, and its thread; all goes on when they answer.
    let seventeenth = [job(16, "deaf16", small())];
    let waits = role.prepare(&seventeenth);
    tokio::pin!(waits);
    while role.disk.waiting() < 17 {
        tokio::select! {
            biased;
            outcomes = &mut waits => unreachable!("{outcomes:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(quiet);
    assert_eq!(waits.await, [Outcome::Done]);
    role.until_told(State::Ok).await;
}
