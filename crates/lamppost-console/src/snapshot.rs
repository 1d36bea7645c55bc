//! The whole queue at one moment, for a backup: a line of JSON, then the files that it names, one
//! behind the other.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use lamppost_roles::{ControlAnswer, ControlRequest, Snapshot};

use crate::api::{Control, Failed, nonsense};

/// Bytes that are read from the queue at once.
const PIECE_BYTES: u32 = 256 * 1024;

/// `GET /v1/queue/snapshot`.
pub(crate) async fn snapshot(State(control): State<Control>) -> Result<Response, Failed> {
    let ControlAnswer::Snapshot(snapshot) = control.ask(ControlRequest::Snapshot).await? else {
        return Err(nonsense());
    };
    let reading = Reading { control, snapshot, file: 0, offset: 0 };
    let mut head = serde_json::to_vec(&reading.snapshot).map_err(|_| nonsense())?;
    head.push(b'\n');
    let pieces = futures_util::stream::unfold((Some(head), reading), |(head, mut reading)| async {
        let piece = match head {
            Some(head) => Ok(Bytes::from(head)),
            None => reading.next().await.transpose()?,
        };
        Some((piece, (None, reading)))
    });
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, Body::from_stream(pieces)).into_response())
}

/// A snapshot that is being read; the queue keeps its files until this is dropped.
struct Reading {
    control: Control,
    snapshot: Snapshot,
    file: u32,
    offset: u64,
}

impl Reading {
    /// The next piece; nothing at the end. What cannot be read breaks the answer off.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(file) = self.snapshot.files.get(self.file as usize) {
            if self.offset >= file.length {
                self.file += 1;
                self.offset = 0;
                continue;
            }
            let request = ControlRequest::ReadSnapshot {
                snapshot: self.snapshot.snapshot,
                file: self.file,
                offset: self.offset,
                length_max: PIECE_BYTES,
            };
            return match self.control.ask(request).await {
                Ok(ControlAnswer::Piece(piece)) if !piece.is_empty() => {
                    self.offset += piece.len() as u64;
                    Ok(Some(piece))
                }
                Ok(_) => Err(io::Error::other("the queue answered nonsense")),
                Err(Failed(_, reason)) => {
                    tracing::error!(reason, "a backup of the queue broke off");
                    Err(io::Error::other(reason))
                }
            };
        }
        Ok(None)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let (control, snapshot) = (self.control.clone(), self.snapshot.snapshot);
        // A runtime that is gone has taken the queue with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(async move {
                control.ask(ControlRequest::EndSnapshot(snapshot)).await.is_ok()
            }));
        }
    }
}
