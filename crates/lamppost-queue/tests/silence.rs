//! The queue and its deliveries when a Maildir does not answer: everybody else's mail goes on, that
//! which shared a batch with it is tried again, and its own comes once it answers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lamppost_delivery::{MaildirTemplate, Relay};
use lamppost_disk::Blocking;
use lamppost_queue::Settings;
use lamppost_roles::RecipientState;
use lamppost_sim::{SilentDisk, SimulatedDisk};
use lamppost_telemetry::{Health, Metrics, State};
use support::{Around, listed, show, start, stored, submit, until, world};

/// Mailboxes that share a batch with the one that does not answer.
const OTHERS: [&str; 5] = ["ada", "bob", "cyd", "dan", "eve"];

fn settings(settings: &mut Settings) {
    settings.segment_size = 1024 * 1024;
    settings.delivery_lag = Duration::from_millis(20);
    settings.retry_first = Duration::from_millis(50);
    settings.retry_max = Duration::from_millis(200);
    settings.deliveries_at_once_max = 2;
}

async fn submit_to_all(around: &Around) {
    for mailbox in OTHERS.iter().chain(&["deaf"]) {
        stored(&submit(around, mailbox, "Subject: x\n\nx\n").await);
    }
}

#[tokio::test]
async fn a_silent_maildir_keeps_its_own_mail_waiting_and_nobody_elses() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), settings).await;
    let maildirs = SimulatedDisk::new(Path::new("/mail"));
    let silent = SilentDisk::new(Arc::new(maildirs.clone()));
    let health = Health::default();
    let delivery = lamppost_delivery::Settings {
        maildir: MaildirTemplate::new("/mail/{domain}/{local}".into()).unwrap(),
        hostname: "mail.lamppost.test".into(),
        writers_max: 4,
        blocking: Blocking::Threads,
        patience: Duration::from_secs(1),
        silent_max: 16,
        health: health.clone(),
        way: None,
        relay: Relay::default(),
        owners: None,
    };
    let (_, idle) = lamppost_net::link::link();
    let inbox = std::mem::replace(&mut around.delivery, idle);
    let content = around.content.clone();
    let disk = Arc::new(silent.clone());
    tokio::spawn(lamppost_delivery::run(delivery, disk, Metrics::new(), inbox, content));
    let quiet = silent.silence("/deaf");
    let came = |mailbox: &str| maildirs.files(&format!("/{mailbox}/new/")).len();
    // More rounds than there are places for batches.
    for round in 1..=6 {
        submit_to_all(&around).await;
        until(async || OTHERS.iter().all(|mailbox| came(mailbox) == round)).await;
        until(async || listed(&around).await.len() == round).await;
    }
    assert_eq!((silent.waiting(), came("deaf")), (1, 0));
    // It is told once patience is at an end.
    until(async || !health.facts().is_empty()).await;
    let fact = health.facts().pop().unwrap();
    assert!(fact.state == State::Fail && fact.text.contains("deaf@lamppost.test"), "{fact:?}");
    for id in listed(&around).await {
        until(async || {
            let view = show(&around, id).await.unwrap();
            let recipient = &view.recipients[0];
            let reason = recipient.last.as_ref().map(|last| last.reason.text.clone());
            assert_eq!(recipient.address, "deaf@lamppost.test");
            assert!(!matches!(recipient.state, RecipientState::Failed), "{view:?}");
            reason.is_some_and(|reason| reason.contains("does not answer"))
        })
        .await;
    }
    drop(quiet);
    until(async || listed(&around).await.is_empty()).await;
    assert_eq!(came("deaf"), 6);
    assert!(OTHERS.iter().all(|mailbox| came(mailbox) == 6));
    assert_eq!(maildirs.files("/tmp/"), Vec::<std::path::PathBuf>::new());
    assert_eq!(health.facts()[0].state, State::Ok);
}
