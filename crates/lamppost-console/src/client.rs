//! The command line's side of the control API.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Bytes of content that are sent at once.
const PIECE_BYTES: usize = 64 * 1024;

/// How long the program may take to begin its answer to a question. What is to be done may take longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a request carries.
type Sent = UnsyncBoxBody<Bytes, io::Error>;

/// A way to ask a running program.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error("lamppost is not running: nobody answers on {socket}")]
    NotRunning {
        /// The control socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket is another user's.
    #[error("this user may not use {socket}")]
    Forbidden {
        /// The control socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody takes the question, or nobody answers it: the program hangs, or has more to do than it can.
    #[error("the running program does not answer on {socket} within {} s", PATIENCE.as_secs())]
    Silent {
        /// The control socket.
        socket: PathBuf,
    },
    /// The program ended, or gave up, in the middle of its answer: what was asked for may have been done.
    #[error("the running program broke off before its answer was whole: {0}")]
    BrokenOff(String),
    /// The answer is none, or the question could not be sent.
    #[error("the running program gave no proper answer: {0}")]
    Broken(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The program refused.
    #[error("{0}")]
    Refused(String),
}

impl Client {
    /// A client of the program that answers on this socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks for a resource.
    ///
    /// # Errors
    /// When nobody answers, or with a refusal.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, whole(Bytes::new())).await?;
        let body = response.into_body().collect().await.map_err(broken_off)?;
        serde_json::from_slice(&body.to_bytes()).map_err(broken)
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// When nobody answers, or with a refusal.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        let response = self.send(Method::POST, path, whole(body.into())).await?;
        let body = response.into_body().collect().await.map_err(broken_off)?;
        serde_json::from_slice(&body.to_bytes()).map_err(broken)
    }

    /// Asks for bytes and passes them on as they come.
    ///
    /// # Errors
    /// When nobody answers, or with a refusal, or when `take` fails.
    pub async fn stream(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> io::Result<()> + Send,
    ) -> Result<(), ClientError> {
        let mut body = self.send(Method::GET, path, whole(Bytes::new())).await?.into_body();
        while let Some(frame) = body.frame().await {
            if let Some(piece) = frame.map_err(broken_off)?.data_ref() {
                take(piece).map_err(broken)?;
            }
        }
        Ok(())
    }

    /// Sends a line of JSON and content behind it, which is read as it is sent.
    ///
    /// # Errors
    /// When nobody answers, or with a refusal, or when the content cannot be read.
    pub async fn send_content<T: DeserializeOwned>(
        &self,
        path: &str,
        head: &(impl Serialize + Sync),
        mut content: impl Read + Send + 'static,
    ) -> Result<T, ClientError> {
        let mut head = serde_json::to_vec(head).map_err(broken)?;
        head.push(b'\n');
        let mut piece = vec![0; PIECE_BYTES];
        let pieces = std::iter::from_fn(move || match content.read(&mut piece) {
            Ok(0) => None,
            Ok(length) => Some(Ok(Frame::data(Bytes::copy_from_slice(&piece[..length])))),
            Err(error) => Some(Err(error)),
        });
        let frames = std::iter::once(Ok(Frame::data(Bytes::from(head)))).chain(pieces);
        let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
        let response = self.send(Method::POST, path, body).await?;
        let body = response.into_body().collect().await.map_err(broken_off)?;
        serde_json::from_slice(&body.to_bytes()).map_err(broken)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Sent,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let socket = self.socket.clone();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket, source },
                _ => ClientError::NotRunning { socket, source },
            }
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken_off)?;
        // Its errors are those of the request, which are told there.
        drop(tokio::spawn(connection));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "lamppost")
            .header("content-type", "application/json")
            .body(body)
            .map_err(broken)?;
        let is_question = request.method() == Method::GET;
        let answering = sender.send_request(request);
        let response = if is_question {
            let silent = |_| ClientError::Silent { socket: self.socket.clone() };
            tokio::time::timeout(PATIENCE, answering).await.map_err(silent)?
        } else {
            answering.await
        };
        let response = response.map_err(broken_off)?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(refusal(status, response).await),
        }
    }
}

/// A body that is there already.
fn whole(body: Bytes) -> Sent {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

/// The error of a response, as the program told it.
async fn refusal(status: StatusCode, response: Response<Incoming>) -> ClientError {
    let body = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return broken_off(error),
    };
    let told = serde_json::from_slice(&body)
        .ok()
        .and_then(|told: serde_json::Value| Some(told.get("error")?.as_str()?.to_owned()));
    match (status, told) {
        (StatusCode::NOT_FOUND, Some(told)) => ClientError::NotFound(told),
        (_, Some(told)) => ClientError::Refused(told),
        (status, None) => ClientError::Broken(status.to_string()),
    }
}

fn broken_off(error: hyper::Error) -> ClientError {
    // A file that cannot be read to its end is not the program's fault.
    if error.is_user() { broken(error) } else { ClientError::BrokenOff(error.to_string()) }
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use lamppost_net::link::link;
    use lamppost_roles::{
        Changes, ControlAnswer, ControlRequest, Filter, IntakeAnswer, IntakeRequest, Listing,
        QueueId, QueueStatus, Route, Selection, StateFilter, Timestamp, UploadId, Verb,
    };

    use super::*;
    use crate::{
        Control, ControlSettings, ControlSocket, Host, HostStatus, Imported, Part, Phase,
        ReloadError, Reloaded, Status,
    };

    struct Fixed;

    impl Host for Fixed {
        fn status(&self) -> std::pin::Pin<Box<dyn Future<Output = HostStatus> + Send + '_>> {
            Box::pin(std::future::ready(HostStatus {
                relay: None,
                file: None,
                blocked: crate::Blocked::default(),
                version: "1".into(),
                pid: 7,
                uptime_s: 1,
                phase: Phase::AtWork,
                phase_left_s: None,
                reading: None,
                state: "/state".into(),
                listeners: Vec::new(),
                sessions: 0,
                health: Vec::new(),
                roles: Vec::new(),
                paused: Vec::new(),
            }))
        }

        fn reload(
            &self,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<Reloaded, ReloadError>> + Send + '_>>
        {
            Box::pin(std::future::ready(Err(ReloadError("line 1 is wrong".into()))))
        }

        fn upgrade(
            &self,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<String, ReloadError>> + Send + '_>>
        {
            Box::pin(std::future::ready(Err(ReloadError("it cannot be run".into()))))
        }

        fn pause(
            &self,
            _: Part,
            _: bool,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<String, ReloadError>> + Send + '_>>
        {
            Box::pin(std::future::ready(Err(ReloadError("it cannot be run".into()))))
        }
    }

    type Mail = (lamppost_roles::Envelope, Vec<u8>);

    /// What the fake queue was asked to list, and what was handed in.
    #[derive(Clone, Default)]
    struct Heard {
        filters: Arc<Mutex<Vec<Filter>>>,
        mail: Arc<Mutex<Vec<Mail>>>,
        aborted: Arc<Mutex<u64>>,
        ended: Arc<Mutex<Vec<u64>>>,
    }

    fn serve(folder: &Path) -> Client {
        serve_heard(folder, &Heard::default())
    }

    /// A control role over a queue that answers always the same.
    fn serve_heard(folder: &Path, heard: &Heard) -> Client {
        let (port, mut inbox) = link::<ControlRequest, ControlAnswer>();
        let (filters, ended) = (heard.filters.clone(), heard.ended.clone());
        tokio::spawn(async move {
            while let Some((request, reply)) = inbox.next().await {
                reply.send(match request {
                    ControlRequest::Status => ControlAnswer::Status(QueueStatus::default()),
                    ControlRequest::List { after, filter, .. } => {
                        filters.lock().unwrap().push(filter);
                        ControlAnswer::Listing(Listing {
                            messages: Vec::new(),
                            next: after,
                            newest: QueueId(0),
                        })
                    }
                    ControlRequest::Show(_) => ControlAnswer::NotFound,
                    ControlRequest::Read { offset, .. } if offset < 1000 => {
                        ControlAnswer::Piece(vec![b'x'; 500].into())
                    }
                    ControlRequest::Read { .. } => ControlAnswer::Piece(Bytes::new()),
                    ControlRequest::Change {
                        verb: Verb::Retry, selection: Selection::All, ..
                    } => ControlAnswer::Changed(Changes { changed: 3, ..Changes::default() }),
                    ControlRequest::Change {
                        verb: Verb::Return,
                        selection: Selection::Ids(unknown),
                        by,
                    } => {
                        assert!(by == "root" || by.starts_with("user "), "{by}");
                        ControlAnswer::Changed(Changes { unknown, ..Changes::default() })
                    }
                    ControlRequest::Change { .. } => ControlAnswer::Failed("no".into()),
                    ControlRequest::Snapshot => ControlAnswer::Snapshot(snapshot()),
                    ControlRequest::ReadSnapshot { file: 2, offset: 0, .. } => {
                        ControlAnswer::Failed("no longer".into())
                    }
                    ControlRequest::ReadSnapshot { file, .. } => {
                        ControlAnswer::Piece(vec![b'0' + u8::try_from(file).unwrap(); 2].into())
                    }
                    ControlRequest::EndSnapshot(snapshot) => {
                        ended.lock().unwrap().push(snapshot);
                        ControlAnswer::Ended
                    }
                });
            }
        });
        let path = folder.join("control.sock");
        let socket = ControlSocket::from_std(ControlSocket::bind(&path).unwrap()).unwrap();
        let outcomes = folder.to_owned();
        let settings = ControlSettings { outcomes, request_size_max: 4096, has_group: false };
        let control = Control::new(port, intake(heard), link().0, Arc::new(Fixed), settings);
        tokio::spawn(control.serve(socket, std::future::pending()));
        Client::new(&path)
    }

    /// A snapshot whose last file cannot be read.
    fn snapshot() -> lamppost_roles::Snapshot {
        let file = |name: &str, length| {
            let name = name.into();
            lamppost_roles::SnapshotFile { name, length }
        };
        let files = vec![file("a", 4), file("b", 0), file("c", 1)];
        lamppost_roles::Snapshot { snapshot: 9, messages: 1, files }
    }

    /// A queue that takes everything but what is for `full@b.test`.
    fn intake(heard: &Heard) -> lamppost_net::link::Port<IntakeRequest, IntakeAnswer> {
        let (port, mut inbox) = link::<IntakeRequest, IntakeAnswer>();
        let heard = heard.clone();
        tokio::spawn(async move {
            let mut pieces = Vec::new();
            while let Some((request, reply)) = inbox.next().await {
                reply.send(match request {
                    IntakeRequest::Submit { envelope, .. }
                        if envelope.recipients[0].address.local() == "full" =>
                    {
                        IntakeAnswer::Refused(lamppost_smtp::Refusal::SpoolFull)
                    }
                    IntakeRequest::Submit { envelope, content } => {
                        heard.mail.lock().unwrap().push((envelope, content.to_vec()));
                        IntakeAnswer::Stored(QueueId(1))
                    }
                    IntakeRequest::Begin => IntakeAnswer::Upload(UploadId(5)),
                    IntakeRequest::Append { piece, .. } => {
                        pieces.extend_from_slice(&piece);
                        IntakeAnswer::Proceed
                    }
                    IntakeRequest::Finish { envelope, .. } => {
                        let content = std::mem::take(&mut pieces);
                        heard.mail.lock().unwrap().push((envelope, content));
                        IntakeAnswer::Stored(QueueId(2))
                    }
                    IntakeRequest::Abort { .. } => {
                        *heard.aborted.lock().unwrap() += 1;
                        IntakeAnswer::Proceed
                    }
                    IntakeRequest::Room { .. } => IntakeAnswer::Proceed,
                });
            }
        });
        port
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_takes_no_question_is_waited_for_so_long() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let begun = tokio::time::Instant::now();
        let answer = Client::new(&socket).get::<Status>("/v1/status").await;
        assert!(matches!(answer, Err(ClientError::Silent { .. })), "{answer:?}");
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test]
    async fn a_snapshot_that_breaks_off_is_no_whole_one_and_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let heard = Heard::default();
        let client = serve_heard(folder.path(), &heard);
        let mut bytes = Vec::new();
        let take = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        let broken = client.stream("/v1/queue/snapshot", take).await;
        assert!(matches!(broken, Err(ClientError::BrokenOff(_))), "{broken:?}");
        let (head, content) = bytes.split_at(bytes.iter().position(|&b| b == b'\n').unwrap());
        let head: lamppost_roles::Snapshot = serde_json::from_slice(head).unwrap();
        assert_eq!((head, content), (snapshot(), &b"\n0000"[..]));
        while heard.ended.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*heard.ended.lock().unwrap(), [9]);
    }

    #[tokio::test]
    async fn questions_are_answered_over_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let client = serve(folder.path());
        let status: Status = client.get("/v1/status").await.unwrap();
        assert_eq!(status.host.pid, 7);
        let listing: Listing = client.get("/v1/queue?limit=5").await.unwrap();
        assert_eq!(listing.next, None);
        let change = serde_json::json!({ "verb": "retry", "selection": "all" });
        let changed: serde_json::Value = client.post("/v1/queue/change", &change).await.unwrap();
        assert_eq!(changed["changed"], 3);
        let mut content = Vec::new();
        let take = |piece: &[u8]| {
            content.extend_from_slice(piece);
            Ok(())
        };
        client.stream("/v1/queue/0000000000001/content", take).await.unwrap();
        assert_eq!(content, [b'x'; 1000]);
        let events: Vec<serde_json::Value> = client.get("/v1/log/nothing").await.unwrap();
        assert!(events.is_empty());
    }

    #[tokio::test]
    async fn refusals_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let client = serve(folder.path());
        let error = |path| {
            let client = client.clone();
            async move { client.get::<serde_json::Value>(path).await.unwrap_err() }
        };
        assert!(matches!(error("/v1/queue/0000000000001").await, ClientError::NotFound(_)));
        assert!(
            matches!(error("/v1/queue/nonsense").await, ClientError::Refused(text) if text.contains("13 letters"))
        );
        let wrong = client.post::<serde_json::Value>("/v1/reload", &()).await.unwrap_err();
        assert_eq!(wrong.to_string(), "line 1 is wrong");
        let bad = serde_json::json!({ "verb": "explode", "selection": "all" });
        let wrong = client.post::<serde_json::Value>("/v1/queue/change", &bad).await.unwrap_err();
        assert!(wrong.to_string().starts_with("the body is no change: unknown variant"), "{wrong}");
        for (path, expected) in [
            ("/v2/status", "there is no /v2/status"),
            ("/v1/reload", "/v1/reload does not take GET"),
        ] {
            let told = error(path).await.to_string();
            assert_eq!(told, expected);
        }
        let long = serde_json::json!({ "verb": "x".repeat(5000) });
        let told = client.post::<serde_json::Value>("/v1/queue/change", &long).await.unwrap_err();
        assert!(told.to_string().contains("length limit"), "{told}");
    }

    #[tokio::test]
    async fn filters_arrive_whole_and_slips_in_them_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let heard = Heard::default();
        let client = serve_heard(folder.path(), &heard);
        let path = "/v1/queue?after=0000000000007&sender=a%2Bb%40c.test&recipient=%40d.test\
                    &domain=e.test&before=9&since=8&larger=7&smaller=6&state=deferred";
        let listing: Listing = client.get(path).await.unwrap();
        assert_eq!(listing.next, Some(QueueId(7)));
        let expected = Filter {
            sender: Some("a+b@c.test".into()),
            recipient: Some("@d.test".into()),
            domain: Some("e.test".into()),
            before: Some(Timestamp(9)),
            since: Some(Timestamp(8)),
            larger: Some(7),
            smaller: Some(6),
            state: Some(StateFilter::Deferred),
        };
        assert_eq!(*heard.filters.lock().unwrap(), [expected]);
        for path in ["/v1/queue?sendr=a%40b.test", "/v1/queue?state=stuck"] {
            let error = client.get::<Listing>(path).await.unwrap_err();
            assert!(
                matches!(&error, ClientError::Refused(text) if text.contains("unknown")),
                "{error}"
            );
        }
        let change = serde_json::json!({ "verb": "return", "selection": { "ids": [QueueId(1)] } });
        let changes: Changes = client.post("/v1/queue/change", &change).await.unwrap();
        assert_eq!(changes.unknown, [QueueId(1)]);
    }

    async fn import(
        client: &Client,
        head: serde_json::Value,
        content: &[u8],
    ) -> Result<Imported, ClientError> {
        let content = io::Cursor::new(content.to_vec());
        client.send_content("/v1/queue/import", &head, content).await
    }

    #[tokio::test]
    async fn imported_mail_is_handed_in_small_or_large() {
        let folder = tempfile::tempdir().unwrap();
        let heard = Heard::default();
        let client = serve_heard(folder.path(), &heard);
        let head = serde_json::json!({
            "sender": "", "recipients": ["a@b.test", "c@d.test"], "received": 77,
        });
        let stored = import(&client, head.clone(), b"Subject: x\r\n\r\n.\r\n").await.unwrap();
        assert_eq!(stored.id, QueueId(1));
        let large = b"0123456789abcde\r\n".repeat(200_000);
        let stored = import(&client, head, &large).await.unwrap();
        assert_eq!(stored.id, QueueId(2));
        let mail = heard.mail.lock().unwrap();
        assert_eq!(mail[0].1, b"Subject: x\n\n.\n");
        assert_eq!(mail[0].0.origin.received, Timestamp(77));
        assert!(mail[0].0.recipients.iter().all(|one| one.route == Route::Undecided));
        assert_eq!(mail[1].1, b"0123456789abcde\n".repeat(200_000));
    }

    #[tokio::test]
    async fn what_cannot_be_imported_is_told_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let heard = Heard::default();
        let client = serve_heard(folder.path(), &heard);
        let head = |to: &[&str]| serde_json::json!({ "sender": "x@y.test", "recipients": to });
        for (head, content, expected) in [
            (head(&[]), &b"x\n"[..], "no recipients"),
            (head(&["a b"]), b"x\n", "first line is wrong"),
            (serde_json::json!({ "rcpt": 1 }), b"x\n", "first line is wrong"),
            (head(&["a@b.test"]), b"", "no content"),
            (head(&["full@b.test"]), b"x\n", "disk is full"),
        ] {
            let error = import(&client, head, content).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        // A file that cannot be read to its end.
        let broken = io::Cursor::new(vec![b'x'; 4_000_000]).chain(Unreadable);
        let head = head(&["a@b.test"]);
        let sent = client.send_content::<Imported>("/v1/queue/import", &head, broken).await;
        assert!(sent.is_err());
        while *heard.aborted.lock().unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(heard.mail.lock().unwrap().is_empty());
    }

    /// A file on a failing disk.
    struct Unreadable;

    impl Read for Unreadable {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("a bad sector"))
        }
    }

    #[tokio::test]
    async fn a_program_that_ends_before_it_answers_is_told_as_that() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let ending = tokio::spawn(async move {
            for begun in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await.unwrap();
                tokio::io::AsyncWriteExt::write_all(&mut stream, begun).await.unwrap();
            }
        });
        let client = Client::new(&socket);
        for _ in 0..2 {
            let error = client.get::<serde_json::Value>("/v1/status").await.unwrap_err();
            assert!(matches!(error, ClientError::BrokenOff(_)), "{error}");
        }
        ending.await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_does_not_run_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(&folder.path().join("control.sock"));
        let error = client.get::<serde_json::Value>("/v1/status").await.unwrap_err();
        assert!(error.to_string().starts_with("lamppost is not running"), "{error}");
    }
}
