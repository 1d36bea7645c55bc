//! The control API, version 1: JSON over HTTP (docs/reference/control-api.md).

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use lamppost_net::link::Port;
use lamppost_roles::{
    ControlAnswer, ControlRequest, Filter, IntakeAnswer, IntakeRequest, QueueId, QueueStatus,
    Selection, StateFilter, Timestamp, Verb,
};
use lamppost_sandbox::InForce;
use lamppost_telemetry::{Fact, read_outcomes};
use serde::{Deserialize, Serialize};

use crate::{Asker, ControlSocket, Door, import, snapshot};

/// Messages on a page unless the client says how many.
const PAGE: u32 = 100;
/// Bytes of content that are read from the queue at once.
const PIECE_BYTES: u32 = 256 * 1024;

/// How long the queue may take to tell of itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// What only the program itself knows.
pub trait Host: Send + Sync + 'static {
    /// The program's own figures.
    fn status(&self) -> Pin<Box<dyn Future<Output = HostStatus> + Send + '_>>;

    /// Reads the configuration again.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<String, ReloadError>> + Send + '_>>;

    /// Has the program's file begin anew in the place of what runs, which ends soon after the answer.
    fn upgrade(&self) -> Pin<Box<dyn Future<Output = Result<String, ReloadError>> + Send + '_>>;
}

/// The file that was to be read again is wrong, or the program that was to begin; nothing has changed.
#[derive(Clone, Debug)]
pub struct ReloadError(
    /// All that is wrong, for people.
    pub String,
);

/// The program's own figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostStatus {
    /// The program's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Where the state is.
    pub state: PathBuf,
    /// The configuration file; nothing for the built-in demo.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// What is listened on.
    pub listeners: Vec<ListenerStatus>,
    /// Sessions that are open now.
    pub sessions: i64,
    /// The host that takes mail for elsewhere, if there is one.
    #[serde(default)]
    pub relay: Option<RelayStatus>,
    /// Who may try no password now.
    #[serde(default)]
    pub blocked: Blocked,
    /// What is well and what is not.
    pub health: Vec<Fact>,
    /// The processes of the program, without the supervisor.
    #[serde(default)]
    pub roles: Vec<RoleStatus>,
}

/// A role in its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RoleStatus {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// What it gave up.
    pub force: InForce,
}

/// The host of `relay-to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RelayStatus {
    /// `host:port`.
    pub host: String,
    /// Whether it took the last connection; nothing when none was tried yet.
    pub up: Option<bool>,
    /// For how many seconds that has been so.
    pub for_s: Option<u64>,
    /// Connections that are open now.
    pub connections: u64,
    /// What went wrong last, since the start or the last change of the relay.
    pub last_error: Option<String>,
    /// How many seconds ago that was.
    pub last_error_ago_s: Option<u64>,
}

/// Who may try no password now, after too many wrong ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Blocked {
    /// Addresses (IPv6: /64 networks).
    pub addresses: u64,
    /// Accounts, for addresses that their owners have not used.
    pub accounts: u64,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListenerStatus {
    /// Its address; the path of a UNIX socket.
    pub address: String,
    /// Whom it is for, in the file's word: `mx` or `submission`; `local` for the machine's own users.
    pub kind: String,
    /// When TLS begins, in the file's word: `starttls`, `implicit` or `off`.
    pub tls: String,
    /// Whether it listens; an address that this machine does not have may be waited for.
    pub listening: bool,
}

/// All of `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// The program's own figures.
    pub host: HostStatus,
    /// The queue's.
    pub queue: QueueStatus,
}

/// The control role.
#[derive(Clone)]
pub struct Control {
    queue: Port<ControlRequest, ControlAnswer>,
    pub(crate) intake: Port<IntakeRequest, IntakeAnswer>,
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
}

impl Control {
    /// A control role over the queue's links and the program itself.
    pub fn new(
        queue: Port<ControlRequest, ControlAnswer>,
        intake: Port<IntakeRequest, IntakeAnswer>,
        host: Arc<dyn Host>,
        settings: ControlSettings,
    ) -> Self {
        Self { queue, intake, host, settings: Arc::new(settings) }
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
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/queue", get(list))
            .route("/v1/queue/change", post(change))
            // It reads the body itself, piece by piece, and is not bound by the limit below.
            .route("/v1/queue/import", post(import::import))
            .route("/v1/queue/snapshot", get(snapshot::snapshot))
            .route("/v1/queue/{id}", get(show))
            .route("/v1/queue/{id}/content", get(content))
            .route("/v1/log/{id}", get(log))
            .route("/v1/reload", post(reload))
            .route("/v1/upgrade", post(upgrade))
            .fallback(nowhere)
            .method_not_allowed_fallback(other_method)
            .layer(DefaultBodyLimit::max(self.request_size_max()))
            .with_state(self);
        let service = router.into_make_service_with_connect_info::<Asker>();
        drop(axum::serve(Door::new(socket), service).with_graceful_shutdown(until).await);
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

/// Why a request failed, as `{"error": …}`.
pub(crate) struct Failed(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

pub(crate) fn nonsense() -> Failed {
    Failed(StatusCode::INTERNAL_SERVER_ERROR, "the queue answered nonsense".into())
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
    // Whoever asks how the program is must learn that its queue is not well.
    let queue = tokio::time::timeout(PATIENCE, control.ask(ControlRequest::Status)).await;
    let silent = || Failed(StatusCode::SERVICE_UNAVAILABLE, "the queue does not answer".into());
    let ControlAnswer::Status(queue) = queue.map_err(|_| silent())?? else {
        return Err(nonsense());
    };
    Ok(Json(Status { host: control.host.status().await, queue }))
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
    done(control.host.reload().await)
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
