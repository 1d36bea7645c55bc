//! The front hands in mail: whole messages, and large ones piece by piece.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamppost_disk::DiskFile;
use lamppost_net::link::{Inbox, Reply};
use lamppost_roles::{Envelope, IntakeAnswer, IntakeRequest, QueueId, UploadId};
use lamppost_smtp::Refusal;
use parking_lot::Mutex;
use tracing::error;

use crate::committer::CommitFailed;
use crate::record::{MessageRecord, RecipientRecord};
use crate::spool::Spool;

/// The large messages on their way in.
type Uploads = Arc<Mutex<HashMap<UploadId, Upload>>>;

/// A large message on its way in. Its file is taken out while a piece is written.
struct Upload {
    id: QueueId,
    file: Option<Box<dyn DiskFile>>,
    size: u64,
    /// CRC-32C of what came so far.
    sum: u32,
    touched: Duration,
}

/// Answers the front until it is gone.
pub(crate) async fn serve(spool: Arc<Spool>, mut inbox: Inbox<IntakeRequest, IntakeAnswer>) {
    let uploads = Uploads::default();
    while let Some((request, reply)) = inbox.next().await {
        match request {
            IntakeRequest::Room { size } => reply.send(room(&spool, size)),
            IntakeRequest::Submit { envelope, content } => submit(&spool, envelope, content, reply),
            large => {
                let (spool, uploads) = (spool.clone(), uploads.clone());
                // Files are written on threads that may block; the front sends one piece at a time.
                let blocking = spool.settings.blocking;
                let working = async move {
                    let work = move || upload(&spool, &uploads, large, reply);
                    // Work that was cut short has dropped the reply: the front knows.
                    let _cut = blocking.run(work).await;
                };
                drop(tokio::spawn(working));
            }
        }
    }
}

fn room(spool: &Spool, size: u64) -> IntakeAnswer {
    if spool.has_room(size) {
        spool
            .plenty_lasts_ms()
            .map_or(IntakeAnswer::Proceed, |lasts_ms| IntakeAnswer::Plenty { lasts_ms })
    } else {
        IntakeAnswer::Refused(Refusal::SpoolFull)
    }
}

fn submit(spool: &Arc<Spool>, envelope: Envelope, content: Bytes, reply: Reply<IntakeAnswer>) {
    let size = content.len() as u64;
    if !spool.has_room(size) {
        return reply.send(IntakeAnswer::Refused(Refusal::SpoolFull));
    }
    let id = spool.new_id();
    let message = message(spool, id, envelope, size, None);
    spool.add(message, content, move |added| {
        reply.send(stored(id, added));
    });
}

fn stored(id: QueueId, added: Result<(), CommitFailed>) -> IntakeAnswer {
    match added {
        Ok(()) => IntakeAnswer::Stored(id),
        Err(CommitFailed::Full) => IntakeAnswer::Refused(Refusal::SpoolFull),
        Err(CommitFailed::Failed) => IntakeAnswer::Refused(Refusal::SpoolFailed),
    }
}

fn message(
    spool: &Spool,
    id: QueueId,
    envelope: Envelope,
    size: u64,
    aside_sum: Option<u32>,
) -> MessageRecord {
    let recipients =
        envelope.recipients.iter().map(|_| RecipientRecord::new(spool.now())).collect();
    MessageRecord {
        id,
        envelope,
        recipients,
        held: false,
        delay_told: false,
        size,
        aside: aside_sum.is_some(),
        aside_sum: aside_sum.unwrap_or(0),
    }
}

fn upload(
    spool: &Arc<Spool>,
    uploads: &Uploads,
    request: IntakeRequest,
    reply: Reply<IntakeAnswer>,
) {
    let answer = match request {
        IntakeRequest::Begin => begin(spool, uploads),
        IntakeRequest::Append { upload, piece } => append(spool, uploads, upload, &piece),
        IntakeRequest::Finish { upload, envelope } => {
            return finish(spool, uploads, upload, envelope, reply);
        }
        IntakeRequest::Abort { upload } => {
            if let Some(upload) = uploads.lock().remove(&upload) {
                forget(spool, &upload);
            }
            Ok(IntakeAnswer::Proceed)
        }
        // The others never come here.
        IntakeRequest::Room { .. } | IntakeRequest::Submit { .. } => Ok(IntakeAnswer::Proceed),
    };
    reply.send(answer.unwrap_or_else(IntakeAnswer::Refused));
}

fn begin(spool: &Spool, uploads: &Uploads) -> Result<IntakeAnswer, Refusal> {
    sweep(spool, uploads);
    if uploads.lock().len() >= spool.settings.uploads_max || !spool.has_room(0) {
        return Err(Refusal::SpoolFull);
    }
    let id = spool.new_id();
    let file =
        spool.disk.create(&spool.settings.body(id)).map_err(|error| failed(spool, &error))?;
    let upload = Upload { id, file: Some(file), size: 0, sum: 0, touched: spool.clock.now() };
    uploads.lock().insert(UploadId(id.0), upload);
    Ok(IntakeAnswer::Upload(UploadId(id.0)))
}

/// Forgets uploads that nobody goes on with.
fn sweep(spool: &Spool, uploads: &Uploads) {
    let now = spool.clock.now();
    uploads.lock().retain(|_, upload| {
        let keep = upload.file.is_none() || now < upload.touched + spool.settings.upload_pause_max;
        if !keep {
            forget(spool, upload);
        }
        keep
    });
}

fn append(
    spool: &Spool,
    uploads: &Uploads,
    which: UploadId,
    piece: &[u8],
) -> Result<IntakeAnswer, Refusal> {
    let taken = uploads
        .lock()
        .get_mut(&which)
        .and_then(|upload| upload.file.take().map(|file| (file, upload.size)));
    let Some((mut file, size)) = taken else {
        return Err(Refusal::Unavailable);
    };
    let appended = if spool.has_room(piece.len() as u64) {
        file.write_at(size, &mut [IoSlice::new(piece)]).map_err(|error| failed(spool, &error))
    } else {
        Err(Refusal::SpoolFull)
    };
    let mut uploads = uploads.lock();
    if let Err(refusal) = appended {
        if let Some(upload) = uploads.remove(&which) {
            forget(spool, &upload);
        }
        return Err(refusal);
    }
    if let Some(upload) = uploads.get_mut(&which) {
        upload.file = Some(file);
        upload.size += piece.len() as u64;
        upload.sum = crc32c::crc32c_append(upload.sum, piece);
        upload.touched = spool.clock.now();
    }
    Ok(IntakeAnswer::Proceed)
}

/// The content and its name are durable before the record that names it is written.
fn finish(
    spool: &Arc<Spool>,
    uploads: &Uploads,
    which: UploadId,
    envelope: Envelope,
    reply: Reply<IntakeAnswer>,
) {
    let upload = uploads.lock().remove(&which);
    let Some(mut upload) = upload else {
        return reply.send(IntakeAnswer::Refused(Refusal::Unavailable));
    };
    let synced = match &mut upload.file {
        Some(file) => file.sync().and_then(|()| spool.disk.sync_folder(&spool.settings.bodies())),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    if let Err(error) = synced {
        let refusal = failed(spool, &error);
        forget(spool, &upload);
        return reply.send(IntakeAnswer::Refused(refusal));
    }
    let id = upload.id;
    let message = message(spool, id, envelope, upload.size, Some(upload.sum));
    let after = spool.clone();
    spool.add(message, Bytes::new(), move |added| {
        if added.is_err() {
            // Its record may be in the log until it is voided, and must not be without its content.
            after.upkeep.doom(id);
            after.order_tidy();
        }
        reply.send(stored(id, added));
    });
}

fn forget(spool: &Spool, upload: &Upload) {
    if let Err(error) = spool.disk.remove(&spool.settings.body(upload.id)) {
        error!(queue_id = %upload.id, reason = %error, "a large content cannot be removed");
    }
}

fn failed(spool: &Spool, error: &io::Error) -> Refusal {
    error!(reason = %error, "a large content cannot be written");
    spool.ill(format!("a large content could not be written: {error}"));
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::SpoolFull,
        _ => Refusal::SpoolFailed,
    }
}
