//! A host that takes mail, made of the server's own session, and what can go wrong with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lamppost_net::{Listener, Pem, ServerTls, demo_ca};
use lamppost_smtp::{
    Action, Answer, AuthOffer, BareNewline, Greeting, Interrupt, Kind, Limits, Link, Question,
    Refusal, Session, Settings,
};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    Nothing,
    /// The connection breaks in the middle of the first message's content.
    BreakInContent,
    /// The connection breaks when the first message is complete, before the reply.
    BreakAtEnd,
    /// The host takes leave with 421 at each recipient.
    LeaveAtRecipient,
    /// The host takes leave with 421 when a second message comes over a connection.
    LeaveAtSecond,
    /// The host greets with 421.
    Busy,
    /// The host offers TLS and then sends nonsense.
    BrokenTls,
}

/// How a host is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    pub(crate) fault: Fault,
    pub(crate) tls: Tls,
    /// Whether it takes mail only from `demo` with the password `pass`.
    pub(crate) submission: bool,
    pub(crate) message_size_max: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tls {
    Implicit,
    #[default]
    Off,
    /// By STARTTLS.
    Offered,
}

/// A message that arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) sender: String,
    pub(crate) recipients: Vec<String>,
    pub(crate) content: Vec<u8>,
    /// The protocol's name, such as `ESMTPSA`.
    pub(crate) protocol: String,
}

/// A host that listens.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    /// The authority that signed its certificate.
    pub(crate) ca: PathBuf,
    shared: Arc<Shared>,
    _folder: tempfile::TempDir,
}

struct Shared {
    manner: Manner,
    server: ServerTls,
    arrived: Mutex<Vec<Arrived>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    open_max: AtomicUsize,
}

impl Host {
    pub(crate) fn start(manner: Manner) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let demo = demo_ca::ensure(folder.path(), "mx.elsewhere.test", demo_ca::today()).unwrap();
        let shared = Arc::new(Shared {
            manner,
            server: ServerTls::new(&Pem::read(demo.files).unwrap()).unwrap(),
            arrived: Mutex::default(),
            connections: AtomicUsize::default(),
            open: AtomicUsize::default(),
            open_max: AtomicUsize::default(),
        });
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address();
        let accepting = shared.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await;
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        Self { address, ca: demo.ca, shared, _folder: folder }
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.shared.arrived.lock().clone()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections there were at once.
    pub(crate) fn open_max(&self) -> usize {
        self.shared.open_max.load(Ordering::SeqCst)
    }

    /// Waits until no connection is open.
    pub(crate) async fn deserted(&self) {
        let patience = tokio::time::Instant::now() + Duration::from_secs(20);
        while self.shared.open.load(Ordering::SeqCst) > 0 {
            assert!(tokio::time::Instant::now() < patience, "a connection stays open");
            tokio::task::yield_now().await;
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Shared {
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.open_max.fetch_max(open, Ordering::SeqCst);
        let tls = self.manner.tls;
        let stream: Option<Box<dyn Stream>> = match tls {
            Tls::Implicit => self.encrypt(Box::new(stream)).await,
            Tls::Off | Tls::Offered => Some(Box::new(stream)),
        };
        if let Some(stream) = stream {
            self.converse(stream, tls == Tls::Implicit).await;
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    async fn encrypt(&self, stream: Box<dyn Stream>) -> Option<Box<dyn Stream>> {
        let accepted = self.server.accept(stream, Duration::from_secs(5)).await;
        accepted.ok().map(|stream| Box::new(stream) as Box<dyn Stream>)
    }

    fn session(&self, tls: bool) -> Session {
        let mut limits = Limits::default();
        if let Some(max) = self.manner.message_size_max {
            limits.message_size_max = max;
        }
        let settings = Settings {
            hostname: "mx.elsewhere.test".into(),
            kind: if self.manner.submission { Kind::Submission } else { Kind::Mx },
            starttls: self.manner.tls == Tls::Offered,
            auth: if self.manner.submission { AuthOffer::Always } else { AuthOffer::Never },
            limits,
        };
        Session::new(Arc::new(settings), Link { tls, bare_newline: BareNewline::Refuse })
    }

    /// Returns when the connection is to be closed.
    async fn converse(&self, mut stream: Box<dyn Stream>, tls: bool) {
        let fault = self.manner.fault;
        let mut session = self.session(tls);
        let busy = fault == Fault::Busy;
        session.greet(if busy { Greeting::TooManySessions } else { Greeting::Welcome });
        let mut message = Arrived::default();
        let mut messages = 0;
        loop {
            let action = session.next();
            let reads = matches!(action, Action::Read | Action::StartTls | Action::Close);
            if reads && stream.write_all(&session.take_output()).await.is_err() {
                return;
            }
            match action {
                Action::Read => match read(&mut stream).await {
                    Some(bytes) => session.receive(&bytes),
                    None => return,
                },
                Action::StartTls if fault == Fault::BrokenTls => {
                    let mut hello = [0; 16];
                    drop(stream.read_exact(&mut hello).await);
                    drop(stream.write_all(b"nonsense").await);
                    return;
                }
                Action::StartTls => match self.encrypt(stream).await {
                    Some(encrypted) => {
                        stream = encrypted;
                        session.tls_started();
                    }
                    None => return,
                },
                Action::Content(piece) => {
                    message.content.extend_from_slice(&piece);
                    if fault == Fault::BreakInContent && self.arrived.lock().is_empty() {
                        // So that only the first message is broken.
                        self.arrived.lock().push(Arrived::default());
                        return;
                    }
                }
                Action::Discard => message = Arrived::default(),
                Action::Close => {
                    drop(stream.shutdown().await);
                    return;
                }
                Action::Ask(Question::Sender { sender, .. }) => {
                    messages += 1;
                    message = Arrived { sender: sender.to_string(), ..Arrived::default() };
                    if messages == 2 && fault == Fault::LeaveAtSecond {
                        session.interrupt(Interrupt::ShuttingDown);
                    } else {
                        session.answer(Answer::Yes);
                    }
                }
                Action::Ask(Question::Recipient { .. }) if fault == Fault::LeaveAtRecipient => {
                    session.interrupt(Interrupt::ShuttingDown);
                }
                Action::Ask(Question::Finish) => {
                    let first = self.arrived.lock().is_empty();
                    message.protocol = session.protocol().into();
                    self.arrived.lock().push(std::mem::take(&mut message));
                    if first && fault == Fault::BreakAtEnd {
                        return;
                    }
                    session.answer(Answer::Stored("theirs".into()));
                }
                Action::Ask(question) => session.answer(answer(question, &mut message)),
            }
        }
    }
}

/// What the client says; nothing at its end.
async fn read(stream: &mut Box<dyn Stream>) -> Option<Vec<u8>> {
    stream.flush().await.ok()?;
    let mut buffer = vec![0; 4096];
    let length = stream.read(&mut buffer).await.ok().filter(|&length| length > 0)?;
    buffer.truncate(length);
    Some(buffer)
}

fn answer(question: Question, message: &mut Arrived) -> Answer {
    match question {
        Question::Authenticate { user, password } => {
            if user == "demo" && password.expose() == "pass" {
                Answer::Account("demo@elsewhere.test".parse().unwrap())
            } else {
                Answer::Refused(Refusal::AuthFailed)
            }
        }
        Question::Recipient { recipient } => match recipient.local() {
            "nobody" => Answer::Refused(Refusal::UnknownMailbox),
            "later" => {
                let retry_in = Duration::from_secs(1);
                Answer::Refused(Refusal::Greylisted { reason: "new".into(), retry_in })
            }
            _ => {
                message.recipients.push(recipient.to_string());
                Answer::Yes
            }
        },
        _ => Answer::Yes,
    }
}
