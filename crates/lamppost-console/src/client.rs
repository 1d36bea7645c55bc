//! The command line's side of the control API.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

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
    /// The answer broke off or is none.
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
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let body = response.into_body().collect().await.map_err(broken)?;
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
        let response = self.send(Method::POST, path, body.into()).await?;
        let body = response.into_body().collect().await.map_err(broken)?;
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
        let mut body = self.send(Method::GET, path, Bytes::new()).await?.into_body();
        while let Some(frame) = body.frame().await {
            if let Some(piece) = frame.map_err(broken)?.data_ref() {
                take(piece).map_err(broken)?;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::NotRunning { socket: self.socket.clone(), source })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Its errors are those of the request, which are told there.
        drop(tokio::spawn(connection));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "lamppost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(refusal(status, response).await),
        }
    }
}

/// The error of a response, as the program told it.
async fn refusal(status: StatusCode, response: Response<Incoming>) -> ClientError {
    let body = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return broken(error),
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

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lamppost_net::link::link;
    use lamppost_roles::{ControlAnswer, ControlRequest, Listing, QueueStatus, Selection, Verb};

    use super::*;
    use crate::{Control, ControlSocket, Host, HostStatus, ReloadError, Status};

    struct Fixed;

    impl Host for Fixed {
        fn status(&self) -> HostStatus {
            HostStatus {
                version: "1".into(),
                pid: 7,
                uptime_s: 1,
                state: "/state".into(),
                listeners: Vec::new(),
                sessions: 0,
                health: Vec::new(),
            }
        }

        fn reload(
            &self,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<String, ReloadError>> + Send + '_>>
        {
            Box::pin(std::future::ready(Err(ReloadError("line 1 is wrong".into()))))
        }
    }

    /// A control role over a queue that answers always the same.
    fn serve(folder: &Path) -> Client {
        let (port, mut inbox) = link::<ControlRequest, ControlAnswer>();
        tokio::spawn(async move {
            while let Some((request, reply)) = inbox.next().await {
                reply.send(match request {
                    ControlRequest::Status => ControlAnswer::Status(QueueStatus::default()),
                    ControlRequest::List { .. } => {
                        ControlAnswer::Listing(Listing { messages: Vec::new(), more: false })
                    }
                    ControlRequest::Show(_) => ControlAnswer::NotFound,
                    ControlRequest::Read { offset, .. } if offset < 1000 => {
                        ControlAnswer::Piece(vec![b'x'; 500].into())
                    }
                    ControlRequest::Read { .. } => ControlAnswer::Piece(Bytes::new()),
                    ControlRequest::Change { verb: Verb::Retry, selection: Selection::All } => {
                        ControlAnswer::Changed(3)
                    }
                    ControlRequest::Change { .. } => ControlAnswer::Failed("no".into()),
                });
            }
        });
        let path = folder.join("control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        tokio::spawn(Control::new(port, Arc::new(Fixed), folder.to_owned()).serve(socket));
        Client::new(&path)
    }

    #[tokio::test]
    async fn questions_are_answered_over_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let client = serve(folder.path());
        let status: Status = client.get("/v1/status").await.unwrap();
        assert_eq!(status.host.pid, 7);
        let listing: Listing = client.get("/v1/queue?limit=5").await.unwrap();
        assert!(!listing.more);
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
        assert!(client.post::<serde_json::Value>("/v1/queue/change", &bad).await.is_err());
    }

    #[tokio::test]
    async fn a_program_that_does_not_run_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(&folder.path().join("control.sock"));
        let error = client.get::<serde_json::Value>("/v1/status").await.unwrap_err();
        assert!(error.to_string().starts_with("lamppost is not running"), "{error}");
    }
}
