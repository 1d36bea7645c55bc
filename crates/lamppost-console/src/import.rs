//! Mail that an administrator puts into the queue: one line of JSON, then the content.

use std::net::Ipv4Addr;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt, stream};
use lamppost_net::{Clock, SystemClock};
use lamppost_roles::{
    Envelope, IntakeAnswer, IntakeRequest, Origin, QueueId, Recipient, Route, Timestamp, UploadId,
};
use lamppost_smtp::{Address, Refusal, ReversePath};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::Asker;
use crate::api::{Control, Failed, nonsense};

/// Bytes of a message that is handed in whole, and of each piece of a larger one.
const PIECE_BYTES: usize = 128 * 1024;

/// What stands before the content of imported mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImportHead {
    /// Where a bounce would go; empty for nowhere.
    pub sender: ReversePath,
    /// Who gets the message; never empty. Policy is asked for the way to each.
    pub recipients: Vec<Address>,
    /// The session that it once came in by; without it, this host itself handed it in.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// When it came, in milliseconds since 1970, if there is no origin to say so [default: now].
    #[serde(default)]
    pub received: Option<Timestamp>,
}

/// The answer to an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Imported {
    /// The message's id in the queue, where it is durable.
    pub id: QueueId,
}

/// `POST /v1/queue/import`.
pub(crate) async fn import(
    State(control): State<Control>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    body: Body,
) -> Result<Json<Imported>, Failed> {
    // A client that goes away cuts a handler off; what it began must still be cleaned up.
    let working = tokio::spawn(async move {
        let mut body = body.into_data_stream().map(|piece| piece.map_err(|error| cut(&error)));
        let taken = take_in(&control, asker, &mut body).await;
        if taken.is_err() {
            // A client that still writes would not read why.
            while body.next().await.is_some_and(|piece| piece.is_ok()) {}
        }
        taken
    });
    working
        .await
        .unwrap_or_else(|error| Err(Failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())))
}

async fn take_in(
    control: &Control,
    asker: Asker,
    body: &mut (impl Stream<Item = Result<Bytes, Failed>> + Unpin),
) -> Result<Json<Imported>, Failed> {
    let (head, rest) = read_head(body, control.request_size_max()).await?;
    let envelope = envelope(head)?;
    let story = Story { envelope: envelope.clone(), asker };
    let rest = stream::once(std::future::ready(Ok(rest)));
    let mut content = Content { pieces: rest.chain(body), newlines: Newlines::default() };
    let first = content.piece().await?;
    if first.is_empty() {
        return Err(bad("there is no content behind the first line"));
    }
    if first.len() < PIECE_BYTES {
        let answer = ask(control, IntakeRequest::Submit { envelope, content: first }).await?;
        return story.stored(&answer);
    }
    let IntakeAnswer::Upload(upload) = ask(control, IntakeRequest::Begin).await? else {
        return Err(nonsense());
    };
    let appended = append_all(control, upload, first, &mut content).await;
    if let Err(failed) = appended {
        // One that the queue refused is gone already, and that is no harm.
        drop(ask(control, IntakeRequest::Abort { upload }).await);
        return Err(failed);
    }
    story.stored(&ask(control, IntakeRequest::Finish { upload, envelope }).await?)
}

/// What the log tells of an import.
struct Story {
    envelope: Envelope,
    asker: Asker,
}

impl Story {
    fn stored(&self, answer: &IntakeAnswer) -> Result<Json<Imported>, Failed> {
        let &IntakeAnswer::Stored(id) = answer else { return Err(nonsense()) };
        let Envelope { sender, recipients, origin } = &self.envelope;
        let (by, recipients) = (&self.asker, recipients.len());
        info!(queue_id = %id, session = origin.session, from = %sender, recipients, %by, "message imported");
        Ok(Json(Imported { id }))
    }
}

async fn append_all(
    control: &Control,
    upload: UploadId,
    mut piece: Bytes,
    content: &mut Content<impl Stream<Item = Result<Bytes, Failed>> + Unpin>,
) -> Result<(), Failed> {
    while !piece.is_empty() {
        match ask(control, IntakeRequest::Append { upload, piece }).await? {
            IntakeAnswer::Proceed => {}
            _ => return Err(nonsense()),
        }
        piece = content.piece().await?;
    }
    Ok(())
}

/// The first line, and what came with it of the content.
async fn read_head(
    body: &mut (impl Stream<Item = Result<Bytes, Failed>> + Unpin),
    size_max: usize,
) -> Result<(ImportHead, Bytes), Failed> {
    let mut line = Vec::new();
    while let Some(piece) = body.next().await {
        let piece = piece?;
        let end = piece.iter().position(|&byte| byte == b'\n');
        line.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
        if line.len() > size_max {
            return Err(bad(format!(
                "the first line is longer than {size_max} bytes (request-size-max in [server])"
            )));
        }
        if let Some(end) = end {
            let head = serde_json::from_slice(&line);
            let head = head.map_err(|error| bad(format!("the first line is wrong: {error}")))?;
            return Ok((head, piece.slice(end + 1..)));
        }
    }
    Err(bad("there is no first line with the envelope"))
}

fn envelope(head: ImportHead) -> Result<Envelope, Failed> {
    let ImportHead { sender, recipients, origin, received } = head;
    if recipients.is_empty() {
        return Err(bad("there are no recipients"));
    }
    let recipients = recipients.into_iter();
    let recipients =
        recipients.map(|address| Recipient { address, route: Route::Undecided }).collect();
    let origin = origin.unwrap_or_else(|| own_origin(received));
    Ok(Envelope { sender, recipients, origin })
}

/// The origin of what no client handed in.
fn own_origin(received: Option<Timestamp>) -> Origin {
    let now = || Timestamp(u64::try_from(SystemClock.now().as_millis()).unwrap_or(u64::MAX));
    Origin {
        session: "import".into(),
        peer: Ipv4Addr::LOCALHOST.into(),
        helo: String::new(),
        host: "localhost".into(),
        protocol: "SMTP".into(),
        tls: None,
        account: None,
        received: received.unwrap_or_else(now),
    }
}

async fn ask(control: &Control, request: IntakeRequest) -> Result<IntakeAnswer, Failed> {
    match control.intake.ask(request).await {
        Ok(IntakeAnswer::Refused(refusal)) => Err(refused(&refusal)),
        Ok(answer) => Ok(answer),
        Err(gone) => Err(Failed(StatusCode::SERVICE_UNAVAILABLE, gone.to_string())),
    }
}

fn refused(refusal: &Refusal) -> Failed {
    match refusal {
        Refusal::SpoolFull => Failed(
            StatusCode::INSUFFICIENT_STORAGE,
            "the queue has no room for it: the disk is full, or too much is coming in at once"
                .into(),
        ),
        Refusal::SpoolFailed => Failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the queue could not make it durable; `lamppost status` tells why".into(),
        ),
        other => Failed(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the queue does not take it: {}", other.reason()),
        ),
    }
}

fn bad(text: impl Into<String>) -> Failed {
    Failed(StatusCode::BAD_REQUEST, text.into())
}

fn cut(error: &axum::Error) -> Failed {
    bad(format!("the content broke off: {error}"))
}

/// The content as the queue wants it, in pieces of even size.
struct Content<S> {
    pieces: S,
    newlines: Newlines,
}

impl<S: Stream<Item = Result<Bytes, Failed>> + Unpin> Content<S> {
    /// The next piece: shorter than the others only at the end, and empty behind it.
    async fn piece(&mut self) -> Result<Bytes, Failed> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            let Some(came) = self.pieces.next().await else {
                self.newlines.end(&mut piece);
                break;
            };
            self.newlines.put(&came?, &mut piece);
        }
        Ok(piece.into())
    }
}

/// Makes LF of CRLF, and of a CR alone too: the queue has no other line ends.
#[derive(Debug, Default)]
struct Newlines {
    /// Whether the last byte was a CR whose LF may follow.
    held_cr: bool,
}

impl Newlines {
    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            if std::mem::take(&mut self.held_cr) {
                out.push(b'\n');
                if byte == b'\n' {
                    continue;
                }
            }
            match byte {
                b'\r' => self.held_cr = true,
                other => out.push(other),
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.held_cr) {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_end_becomes_lf_however_it_is_split() {
        let text = b"a\r\nb\n\r\nc\rd\r\r\ne\r";
        for size in 1..=text.len() {
            let (mut newlines, mut out) = (Newlines::default(), Vec::new());
            for piece in text.chunks(size) {
                newlines.put(piece, &mut out);
            }
            newlines.end(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), "a\nb\n\nc\nd\n\ne\n", "pieces of {size}");
        }
    }
}
