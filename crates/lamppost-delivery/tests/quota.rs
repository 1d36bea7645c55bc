//! A mailbox over its quota, or on a full file system: its mail waits and says why, that of others
//! comes, and all comes when there is room.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamppost_delivery::{MaildirTemplate, Relay, Settings, Way, run};
use lamppost_disk::Blocking;
use lamppost_net::link::{Port, link};
use lamppost_roles::{
    Content, ContentAnswer, ContentRequest, DeliveryAnswer, DeliveryRequest, Outcome,
};
use lamppost_sim::SimulatedDisk;
use lamppost_smtp::Status;
use lamppost_telemetry::{Health, Metrics};
use support::job;

/// Bytes of a content that is read piece by piece.
const LARGE: u64 = 20_000;

fn role(disk: &SimulatedDisk, way: Way) -> Port<DeliveryRequest, DeliveryAnswer> {
    let settings = Settings {
        maildir: MaildirTemplate::new("/mail/{domain}/{local}".into()).unwrap(),
        hostname: "mail.lamppost.test".into(),
        writers_max: 4,
        blocking: Blocking::Inline,
        patience: Duration::from_secs(20),
        silent_max: 16,
        health: Health::default(),
        way: Some(way),
        relay: Relay::default(),
        owners: None,
    };
    let (content, mut contents) = link::<ContentRequest, ContentAnswer>();
    tokio::spawn(async move {
        while let Some((ContentRequest { offset, .. }, reply)) = contents.next().await {
            let length = (LARGE - offset).min(3000);
            let piece = vec![b'y'; usize::try_from(length).unwrap()];
            reply.send(ContentAnswer::Piece(piece.into()));
        }
    });
    let (port, inbox) = link();
    tokio::spawn(run(settings, Arc::new(disk.clone()), Metrics::new(), inbox, content));
    port
}

async fn has_no_room(way: Way, kind: ErrorKind, (status, words): (Status, &str)) {
    let full = PathBuf::from("/mail/lamppost.test/full");
    let disk = SimulatedDisk::with_mounts(Path::new("/mail"), std::slice::from_ref(&full));
    let port = role(&disk, way);
    disk.limit(&full, Some((5000, kind)));
    let inline = |length| Content::Inline(Bytes::from(vec![b'x'; length]));
    let jobs = [
        job(1, "full", inline(1000)),
        job(2, "full", inline(9000)),
        job(3, "other", inline(9000)),
        job(4, "full", Content::Aside { length: LARGE }),
        job(5, "other", Content::Aside { length: LARGE }),
    ];
    let prepare = async || port.ask(DeliveryRequest::Prepare(jobs.to_vec())).await.unwrap().0;
    let outcomes = prepare().await;
    for (place, outcome) in outcomes.iter().enumerate() {
        match (place, outcome) {
            (0 | 2 | 4, Outcome::Done) => {}
            (1 | 3, Outcome::Deferred(reason)) => {
                assert_eq!(reason.status, status, "{reason:?}");
                assert!(reason.text.contains(words), "{reason:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    disk.limit(&full, None);
    assert_eq!(prepare().await, vec![Outcome::Done; 5]);
    let placements = jobs.iter().map(|job| job.placement.clone()).collect();
    let outcomes = port.ask(DeliveryRequest::Publish(placements)).await.unwrap().0;
    assert_eq!(outcomes, vec![Outcome::Done; 5]);
    assert_eq!((disk.files("/full/new/").len(), disk.files("/other/new/").len()), (3, 2));
    assert_eq!(disk.files("/tmp/"), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_mailbox_without_room_waits_and_says_why() {
    for way in [Way::Each, Way::FileSystem] {
        let over = (Status::MAILBOX_FULL, "the mailbox is over its quota");
        has_no_room(way, ErrorKind::QuotaExceeded, over).await;
        let full = (Status::SYSTEM_FULL, "the file system of the mailbox is full");
        has_no_room(way, ErrorKind::StorageFull, full).await;
    }
}
