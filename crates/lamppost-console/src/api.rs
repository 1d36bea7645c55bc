//! The control API, version 1: JSON over HTTP (docs/reference/control-api.md).

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use lamppost_net::link::Port;
use lamppost_roles::{
    ControlAnswer, ControlRequest, Filter, GreylistAnswer, GreylistRequest, IntakeAnswer,
    IntakeRequest, QueueId, Selection, StateFilter, Timestamp, Verb,
};
use lamppost_telemetry::read_outcomes;
use serde::Deserialize;
use tokio::time::timeout;

use crate::host::{Host, Pause, Phase, ReloadError, Status};
use crate::{Asker, ControlSocket, Door, greylist, import, snapshot};

/// Messages on a page unless the client says how many.
const PAGE: u32 = 100;
/// Bytes of content that are read from the queue at once.
const PIECE_BYTES: u32 = 256 * 1024;

/// How long the queue may take to tell of itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same while it begins, and will answer once it has.
const PATIENCE_WITH_BEGIN: Duration = Duration::from_millis(200);

/// The control role.
#[derive(Clone)]
pub struct Control {
    queue: Port<ControlRequest, ControlAnswer>,
    pub(crate) intake: Port<IntakeRequest, IntakeAnswer>,
    greylist: Port<GreylistRequest, GreylistAnswer>,
    host: Arc<dyn Host>,
    settings: Arc<ControlSettings>,
}

/// What the control role is told.
#[derive(Clone, Debug)]
pub struct ControlSettings {
    /// The folder of the outcome log.
    pub outcomes: PathBuf,
    /// Bytes of a request: of its body, or of an import's first line.
    pub request_size_max: usize,
    /// Whether the file of the socket says by its group who may connect.
    pub has_group: bool,
}

impl Control {
    /// A control role over the queue's links, policy's and the program itself.
    pub fn new(
        queue: Port<ControlRequest, ControlAnswer>,
        intake: Port<IntakeRequest, IntakeAnswer>,
        greylist: Port<GreylistRequest, GreylistAnswer>,
        host: Arc<dyn Host>,
        settings: ControlSettings,
    ) -> Self {
        Self { queue, intake, greylist, host, settings: Arc::new(settings) }
    }

    /// Bytes of a request.
    pub(crate) fn request_size_max(&self) -> usize {
        self.settings.request_size_max
    }

    /// Answers on the socket until it is to take no further request, and then finishes those it has.
    pub async fn serve(
        self,
        socket: ControlSocket,
        until: impl Future<Output = ()> + Send + 'static,
    ) {
        let door = Door::new(socket, self.settings.has_group);
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/queue", get(list))
            .route("/v1/queue/change", post(change))
            // It reads the body itself, piece by piece, and is not bound by the limit below.
            .route("/v1/queue/import", post(import::import))
            .route("/v1/queue/snapshot", get(snapshot::snapshot))
            .route("/v1/queue/{id}", get(show))
            .route("/v1/queue/{id}/content", get(content))
            .route("/v1/greylist", get(greylist::list))
            .route("/v1/greylist/why", get(greylist::why))
            .route("/v1/greylist/stats", get(greylist::stats))
            .route("/v1/greylist/forget", post(greylist::forget))
            .route("/v1/greylist/expire", post(greylist::expire))
            .route("/v1/greylist/import", post(greylist::import))
            .route("/v1/greylist/manual", get(greylist::manual).post(greylist::write_manual))
            .route("/v1/greylist/manual/forget", post(greylist::forget_manual))
            .route("/v1/log/{id}", get(log))
            .route("/v1/reload", post(reload))
            .route("/v1/upgrade", post(upgrade))
            .route("/v1/pause", post(pause))
            .route("/v1/resume", post(resume))
            .fallback(nowhere)
            .method_not_allowed_fallback(other_method)
            .layer(DefaultBodyLimit::max(self.request_size_max()))
            .with_state(self);
        let service = router.into_make_service_with_connect_info::<Asker>();
        drop(axum::serve(door, service).with_graceful_shutdown(until).await);
    }

    pub(crate) async fn ask(&self, request: ControlRequest) -> Result<ControlAnswer, Failed> {
        match self.queue.ask(request).await {
            Ok(ControlAnswer::NotFound) => {
                Err(Failed(StatusCode::NOT_FOUND, "no such message in the queue".into()))
            }
            Ok(ControlAnswer::Failed(reason)) => {
                Err(Failed(StatusCode::INTERNAL_SERVER_ERROR, reason))
            }
            Ok(answer) => Ok(answer),
            Err(gone) => Err(Failed(StatusCode::SERVICE_UNAVAILABLE, gone.to_string())),
        }
    }
}

impl Control {
    pub(crate) async fn ask_greylist(
        &self,
        request: GreylistRequest,
    ) -> Result<GreylistAnswer, Failed> {
        match self.greylist.ask(request).await {
            Ok(GreylistAnswer::Failed(reason)) => {
                Err(Failed(StatusCode::INTERNAL_SERVER_ERROR, reason))
            }
            Ok(answer) => Ok(answer),
            Err(gone) => Err(Failed(StatusCode::SERVICE_UNAVAILABLE, gone.to_string())),
        }
    }
}

/// Why a request failed, as `{"error": …}`.
pub(crate) struct Failed(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

pub(crate) fn nonsense() -> Failed {
    Failed(StatusCode::INTERNAL_SERVER_ERROR, "a role answered nonsense".into())
}

/// What stands in the place of `{id}` in an address.
fn named(path: Result<Path<String>, PathRejection>) -> Result<String, Failed> {
    let Path(text) = path.map_err(|error| Failed(error.status(), error.body_text()))?;
    Ok(text)
}

fn id(text: &str) -> Result<QueueId, Failed> {
    text.parse().map_err(|error: lamppost_roles::QueueIdError| {
        Failed(StatusCode::BAD_REQUEST, error.to_string())
    })
}

async fn status(State(control): State<Control>) -> Result<Json<Status>, Failed> {
    // Whoever asks how the program is must learn that a part of it does not answer, and soon.
    let mut host = control.host.status();
    let mut asked = Box::pin(control.ask(ControlRequest::Status));
    let begun = Instant::now();
    let (host, queue) = tokio::select! {
        host = &mut host => {
            let patience = if host.phase == Phase::Beginning { PATIENCE_WITH_BEGIN } else { PATIENCE };
            let left = patience.saturating_sub(begun.elapsed());
            (host, timeout(left, asked).await.ok())
        }
        queue = &mut asked => (host.await, Some(queue)),
    };
    let queue = match queue {
        Some(Ok(ControlAnswer::Status(queue))) => Some(queue),
        Some(Ok(_)) => return Err(nonsense()),
        // It hangs, or it begins again in a moment.
        None | Some(Err(Failed(StatusCode::SERVICE_UNAVAILABLE, _))) => None,
        Some(Err(failed)) => return Err(failed),
    };
    Ok(Json(Status { host, queue }))
}

/// Which page of which messages. What is not known is refused: a filter with a slip in its name must
/// not widen what is meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    after: Option<String>,
    limit: Option<u32>,
    sender: Option<String>,
    recipient: Option<String>,
    domain: Option<String>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    larger: Option<u64>,
    smaller: Option<u64>,
    state: Option<StateFilter>,
}

impl Page {
    fn into_request(self) -> Result<ControlRequest, Failed> {
        let Self { after, limit, sender, recipient, domain, before, since, larger, smaller, state } =
            self;
        let filter = Filter { sender, recipient, domain, before, since, larger, smaller, state };
        let after = after.as_deref().map(id).transpose()?;
        Ok(ControlRequest::List { after, limit: limit.unwrap_or(PAGE), filter })
    }
}

async fn list(
    State(control): State<Control>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Failed> {
    let Query(page) = page.map_err(|error| Failed(StatusCode::BAD_REQUEST, error.body_text()))?;
    match control.ask(page.into_request()?).await? {
        ControlAnswer::Listing(listing) => Ok(Json(listing).into_response()),
        _ => Err(nonsense()),
    }
}

async fn show(
    State(control): State<Control>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Failed> {
    match control.ask(ControlRequest::Show(id(&named(path)?)?)).await? {
        ControlAnswer::Message(message) => Ok(Json(message).into_response()),
        _ => Err(nonsense()),
    }
}

/// The content piece by piece, so that a large one costs no memory.
async fn content(
    State(control): State<Control>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Failed> {
    let id = id(&named(path)?)?;
    let first = piece(&control, id, 0).await?;
    let pieces =
        futures_util::stream::unfold((control, first, 0), move |(control, now, at)| async move {
            if now.is_empty() {
                return None;
            }
            let next_at = at + now.len() as u64;
            let next = piece(&control, id, next_at).await;
            let (next, shown) = match next {
                Ok(next) => (next, Ok(now)),
                Err(Failed(_, reason)) => (Bytes::new(), Err(std::io::Error::other(reason))),
            };
            Some((shown, (control, next, next_at)))
        });
    let kind = [(header::CONTENT_TYPE, "message/rfc822")];
    Ok((kind, Body::from_stream(pieces)).into_response())
}

async fn piece(control: &Control, id: QueueId, offset: u64) -> Result<Bytes, Failed> {
    let request = ControlRequest::Read { id, offset, length_max: PIECE_BYTES };
    match control.ask(request).await? {
        ControlAnswer::Piece(piece) => Ok(piece),
        _ => Err(nonsense()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    verb: Verb,
    selection: Selection,
}

/// Whatever content type the client names: a body that is no JSON is told by its place.
async fn change(
    State(control): State<Control>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failed> {
    let body = body.map_err(|error| Failed(error.status(), error.body_text()))?;
    let Change { verb, selection } = serde_json::from_slice(&body).map_err(|error| {
        let what = format!("the body is no change: {error}");
        Failed(StatusCode::BAD_REQUEST, what)
    })?;
    let by = asker.to_string();
    match control.ask(ControlRequest::Change { verb, selection, by }).await? {
        ControlAnswer::Changed(changes) => Ok(Json(changes).into_response()),
        _ => Err(nonsense()),
    }
}

async fn nowhere(uri: Uri) -> Failed {
    Failed(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()))
}

async fn other_method(method: Method, uri: Uri) -> Failed {
    Failed(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}

async fn log(
    State(control): State<Control>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Failed> {
    let id = named(path)?;
    let reading =
        tokio::task::spawn_blocking(move || read_outcomes(&control.settings.outcomes, &id));
    match reading.await {
        Ok(Ok(events)) => Ok(Json(events).into_response()),
        Ok(Err(error)) => Err(Failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        Err(error) => Err(Failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

async fn reload(State(control): State<Control>) -> Result<Response, Failed> {
    match control.host.reload().await {
        Ok(reloaded) => Ok(Json(reloaded).into_response()),
        Err(ReloadError(text)) => Err(Failed(StatusCode::UNPROCESSABLE_ENTITY, text)),
    }
}

fn pause_of(body: Result<Bytes, BytesRejection>) -> Result<Pause, Failed> {
    let body = body.map_err(|error| Failed(error.status(), error.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| {
        let what = format!("the body names no part: {error}");
        Failed(StatusCode::BAD_REQUEST, what)
    })
}

async fn pause(
    State(control): State<Control>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failed> {
    let Pause { part } = pause_of(body)?;
    done(control.host.pause(part, true).await)
}

async fn resume(
    State(control): State<Control>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failed> {
    let Pause { part } = pause_of(body)?;
    done(control.host.pause(part, false).await)
}

async fn upgrade(State(control): State<Control>) -> Result<Response, Failed> {
    done(control.host.upgrade().await)
}

fn done(done: Result<String, ReloadError>) -> Result<Response, Failed> {
    match done {
        Ok(text) => Ok(Json(serde_json::json!({ "done": text })).into_response()),
        Err(ReloadError(text)) => Err(Failed(StatusCode::UNPROCESSABLE_ENTITY, text)),
    }
}
