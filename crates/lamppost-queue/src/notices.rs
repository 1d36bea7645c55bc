//! Tells senders: a bounce when recipients failed for good, a notice when it takes long.
//!
//! A notice and what it settles are one record: a crash leaves both or neither.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use lamppost_roles::{Attempt, Envelope, Origin, QueueId, Recipient, Route, Timestamp};
use lamppost_smtp::{Address, ReversePath};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::bounce::{Kind, Notice};
use crate::committer::CommitFailed;
use crate::index::Message;
use crate::load::is_lost;
use crate::log::Purpose;
use crate::record::{Draft, MessageRecord, Progress, RecipientRecord, Record, Settles};
use crate::salvage::is_unreadable;
use crate::schedule::given_up_at;
use crate::spool::Spool;

/// Messages that are looked at under one lock.
const LOOK_MAX: usize = 1000;
/// Bytes of a content that are searched for its header.
const HEADER_MAX: u32 = 128 * 1024;

/// Tells senders until told to stop.
pub(crate) async fn run(spool: Arc<Spool>, stop: CancellationToken) {
    let mut look = tokio::time::interval(spool.settings.notice_every);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = spool.notices.notified() => tell_failures(&spool).await,
            _ = look.tick() => {
                spool.look_for_room();
                tell_failures(&spool).await;
                look_at_undeliverable(&spool).await;
                tell_delays(&spool).await;
            }
        }
    }
}

/// What is to be done about a message with recipients that failed.
enum Failure {
    /// Nothing any more.
    Over,
    /// Others of its recipients are still under way.
    Later,
    Bounce,
    /// There is no sender to tell.
    Keep,
    /// There is no sender to tell, and an administrator has had time to look.
    Discard,
}

async fn tell_failures(spool: &Arc<Spool>) {
    // Taken out before they are looked at: whatever fails meanwhile is for the next look.
    let ids = std::mem::take(&mut *spool.failures.lock());
    for id in ids {
        match failure(spool, id) {
            Failure::Over => {}
            Failure::Keep | Failure::Discard => drop(spool.undeliverable.lock().insert(id)),
            Failure::Bounce if bounce(spool, id).await => {}
            Failure::Bounce | Failure::Later => drop(spool.failures.lock().insert(id)),
        }
    }
}

/// Messages without a sender stay for an administrator, and not for ever.
async fn look_at_undeliverable(spool: &Arc<Spool>) {
    let ids: Vec<_> = spool.undeliverable.lock().iter().copied().collect();
    for id in ids {
        let over = match failure(spool, id) {
            Failure::Over => true,
            Failure::Discard => discard(spool, id).await,
            Failure::Keep | Failure::Later | Failure::Bounce => false,
        };
        if over {
            spool.undeliverable.lock().remove(&id);
        }
    }
}

fn failure(spool: &Spool, id: QueueId) -> Failure {
    let index = spool.index.lock();
    let Some(message) = index.message(id) else { return Failure::Over };
    let mut failed = message.recipients.iter().filter(|one| one.progress == Progress::Failed);
    let Some(first) = failed.next() else { return Failure::Over };
    if message.wants_bounce() {
        return Failure::Bounce;
    }
    let since = first.last.map_or(id.received(), |(at, _)| at);
    let is_only_failed = message
        .recipients
        .iter()
        .all(|one| one.progress == Progress::Failed || one.progress.is_final());
    let is_old = spool.now() > given_up_at(spool, since);
    match (message.is_null_sender, is_only_failed && is_old && !message.held) {
        (true, true) => Failure::Discard,
        (true, false) => Failure::Keep,
        (false, _) => Failure::Later,
    }
}

/// Writes a bounce; true when the message needs none any more.
async fn bounce(spool: &Arc<Spool>, id: QueueId) -> bool {
    let failed = |message: &Message| {
        let recipients = (0_u32..).zip(&message.recipients);
        let failed = recipients.filter(|(_, one)| one.progress == Progress::Failed);
        failed.map(|(index, _)| index).collect::<Vec<_>>()
    };
    let indices = {
        let mut index = spool.index.lock();
        let Some(indices) = index.message(id).map(failed) else { return true };
        // Until the bounce is committed nobody has them tried again.
        for &place in &indices {
            index.claim((id, place));
        }
        indices
    };
    let settles = Settles::Failures(indices.clone());
    let told = notify(spool, id, (Kind::Failure, settles), &indices).await;
    if !matches!(told, Ok(Some(_))) {
        let mut index = spool.index.lock();
        for &place in &indices {
            index.give_up_claim((id, place));
        }
    }
    match told {
        Ok(Some(notice)) => {
            info!(queue_id = %id, notice = %notice, recipients = indices.len(), "sender told of failure");
            true
        }
        Ok(None) => true,
        Err(error) => {
            warn!(queue_id = %id, reason = %error, "a bounce could not be stored; it is tried again");
            false
        }
    }
}

/// Gives up what can neither be delivered nor returned.
async fn discard(spool: &Arc<Spool>, id: QueueId) -> bool {
    let apply = move |spool: &Spool| {
        let ended = spool.index.lock().take(id);
        spool.ended(ended);
    };
    let done = spool.change(&Record::Deleted { ids: vec![id] }, apply).await.is_ok();
    if done {
        warn!(queue_id = %id, reason = "it failed for good, it has no sender to tell, and its lifetime is over", "message discarded");
    }
    done
}

/// Tells the senders of messages that have waited long, each once. All are looked at each time: one
/// that was held, or whose delivery was in the middle, may be waiting now.
async fn tell_delays(spool: &Arc<Spool>) {
    let after = u64::try_from(spool.settings.delay_notice_after.as_millis()).unwrap_or(u64::MAX);
    let until = QueueId::first_at(Timestamp(spool.now().0.saturating_sub(after)));
    if after == 0 {
        return;
    }
    let mut looked_at = None;
    loop {
        let mut ids = Vec::new();
        let mut last = None;
        {
            let index = spool.index.lock();
            let old = index.after(looked_at).take_while(|(id, _)| *id < until);
            for (id, message) in old.take(LOOK_MAX) {
                last = Some(id);
                let is_told = message.delay_told || message.is_null_sender || message.held;
                if !is_told && !waiting(message).is_empty() {
                    ids.push(id);
                }
            }
        }
        let Some(last) = last else { return };
        for id in ids {
            if let Err(error) = tell_delay(spool, id).await {
                warn!(queue_id = %id, reason = %error, "a notice of delay could not be stored; it is tried again");
                return;
            }
        }
        looked_at = Some(last);
    }
}

fn waiting(message: &Message) -> Vec<u32> {
    let recipients = (0_u32..).zip(&message.recipients);
    let waiting = recipients.filter(|(_, one)| matches!(one.progress, Progress::Waiting { .. }));
    waiting.map(|(index, _)| index).collect()
}

async fn tell_delay(spool: &Arc<Spool>, id: QueueId) -> Result<(), CommitFailed> {
    let Some(indices) = spool.index.lock().message(id).map(waiting) else { return Ok(()) };
    let kind = Kind::Delay { until: given_up_at(spool, id.received()) };
    if let Some(notice) = notify(spool, id, (kind, Settles::Delay), &indices).await? {
        info!(queue_id = %id, notice = %notice, "sender told of delay");
    }
    Ok(())
}

/// Stores a notice about recipients of a message; returns its id, or nothing when the message is
/// gone.
async fn notify(
    spool: &Arc<Spool>,
    of: QueueId,
    (kind, settles): (Kind, Settles),
    indices: &[u32],
) -> Result<Option<QueueId>, CommitFailed> {
    let reader = spool.clone();
    let reading = spool.settings.blocking.run(move || original(&reader, of)).await;
    // What cannot be read now is read at the next look.
    let read = reading.map_err(|_| CommitFailed::Failed)?.map_err(|error| {
        error!(queue_id = %of, reason = %error, "the original of a notice cannot be read");
        CommitFailed::Failed
    })?;
    let Some((original, content)) = read else {
        return Ok(None);
    };
    let ReversePath::Mailbox(sender) = original.envelope.sender.clone() else { return Ok(None) };
    let recipients: Vec<(Address, Option<Attempt>)> = indices
        .iter()
        .filter_map(|&index| {
            let last = original.recipients.get(index as usize)?.last.clone();
            Some((original.envelope.recipients.get(index as usize)?.address.clone(), last))
        })
        .collect();
    let id = spool.new_id();
    let text = Notice {
        kind,
        host: &spool.settings.hostname,
        id: id.to_string(),
        now: spool.now(),
        sender: &sender,
        original: &original,
        recipients: &recipients,
        content: &content,
    };
    let text = Bytes::from(text.compose());
    let message = message(spool, id, (sender, &original), text.len() as u64);
    let record = Record::Notice { of, settles: settles.clone(), message: message.clone() };
    let apply = move |spool: &Spool, place| {
        let ended = {
            let mut index = spool.index.lock();
            index.put(&message, place);
            index.settled(of, &settles)
        };
        spool.ended(ended);
    };
    // What fails must be told even when no new mail is taken any more: it frees more than it needs.
    spool.change_with(Draft::new(&record, text), Purpose::State, apply).await?;
    Ok(Some(id))
}

/// The message that a notice is about, as far as it can be read; nothing when it is gone.
fn original(spool: &Spool, id: QueueId) -> io::Result<Option<(MessageRecord, Bytes)>> {
    let is_damaged = |error: &io::Error| is_lost(error) || is_unreadable(error);
    let record = match spool.load_record(id) {
        Ok(record) => record,
        Err(error) if is_damaged(&error) => {
            spool.quarantine(id, &error.to_string())?;
            return Ok(known(spool, id).map(|record| (record, Bytes::new())));
        }
        Err(error) => return Err(error),
    };
    let Some(record) = record else { return Ok(None) };
    match spool.read(id, 0, HEADER_MAX) {
        Ok(content) => Ok(Some((record, content.unwrap_or_default()))),
        Err(error) if is_damaged(&error) => {
            spool.quarantine(id, &error.to_string())?;
            Ok(Some((record, Bytes::new())))
        }
        Err(error) => Err(error),
    }
}

/// What is known of a message whose record is damaged.
pub(crate) fn known(spool: &Spool, id: QueueId) -> Option<MessageRecord> {
    let index = spool.index.lock();
    let message = index.message(id)?;
    // The account stands for the address; for those elsewhere nothing is known.
    let unknown: Address = format!("unknown@{}", spool.settings.hostname).parse().ok()?;
    let recipients = message.recipients.iter().map(|recipient| match index.route(recipient) {
        Route::Mailbox(at) => Recipient { address: at.clone(), route: Route::Mailbox(at) },
        route => Recipient { address: unknown.clone(), route },
    });
    let envelope = Envelope {
        sender: index.sender(message),
        recipients: recipients.collect(),
        origin: origin(spool, String::new(), id.received()),
    };
    let mut record = MessageRecord {
        id,
        envelope,
        recipients: Vec::new(),
        held: message.held,
        delay_told: message.delay_told,
        size: message.size,
        aside: message.aside,
        aside_sum: 0,
    };
    index.refresh(message, &mut record);
    Some(record)
}

fn message(
    spool: &Spool,
    id: QueueId,
    (to, original): (Address, &MessageRecord),
    size: u64,
) -> MessageRecord {
    let now = spool.now();
    MessageRecord {
        id,
        envelope: Envelope {
            sender: ReversePath::Null,
            recipients: vec![Recipient { address: to, route: Route::Undecided }],
            origin: origin(spool, original.envelope.origin.session.clone(), now),
        },
        recipients: vec![RecipientRecord::new(now)],
        held: false,
        delay_told: false,
        size,
        aside: false,
        aside_sum: 0,
    }
}

/// This host itself wrote it: there is no client that called itself anything.
fn origin(spool: &Spool, session: String, received: Timestamp) -> Origin {
    Origin {
        session,
        peer: std::net::Ipv4Addr::LOCALHOST.into(),
        helo: String::new(),
        host: spool.settings.hostname.clone(),
        protocol: String::new(),
        tls: None,
        account: None,
        received,
    }
}
