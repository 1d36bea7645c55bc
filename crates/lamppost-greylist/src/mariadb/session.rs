//! Connections to the database: few, each with deadlines on all that it does.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row, SslOpts};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::layout::Layout;
use super::schema;
use crate::StoreError;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at once; each serves one question at a time.
const CONNECTIONS_MAX: usize = 8;
/// How often work is begun anew that met another's, such as a deadlock.
const TRIES_MAX: usize = 6;
/// What is said to each new connection. How long it waits for another's lock is less than a statement
/// may take; no node holds one for longer than its own takes.
const SETUP: [&str; 2] = [
    "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', \
     SESSION time_zone = @@GLOBAL.time_zone, SESSION innodb_lock_wait_timeout = 3, \
     SESSION autocommit = 1",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
];

/// Where a shared database is, and who asks.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its addresses, or where its socket is.
    pub at: ServerPlace,
    /// The name to authenticate by.
    pub user: String,
    /// The password, if one is needed.
    pub password: Option<Password>,
    /// The name of the database.
    pub database: String,
    /// Authorities for TLS, in PEM; without them there is no TLS.
    pub authorities: Option<Vec<u8>>,
}

/// How to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerPlace {
    /// By TCP.
    Tcp {
        /// Its name or address.
        host: String,
        /// The addresses of that name, if it was looked up before.
        addresses: Vec<IpAddr>,
        /// The port.
        port: u16,
    },
    /// By a UNIX socket.
    Socket(PathBuf),
}

/// A password, which no log shows.
#[derive(Clone)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Server {
    /// What messages call it: nothing secret is in it.
    pub fn name(&self) -> String {
        match &self.at {
            ServerPlace::Tcp { host, port, .. } if host.contains(':') => {
                format!("mysql://[{host}]:{port}/{}", self.database)
            }
            ServerPlace::Tcp { host, port, .. } => {
                format!("mysql://{host}:{port}/{}", self.database)
            }
            ServerPlace::Socket(path) => {
                format!("mysql://localhost/{}?socket={}", self.database, path.display())
            }
        }
    }

    /// `database` is nothing for whoever is to make it.
    fn opts(&self, database: Option<&str>) -> Opts {
        let builder = OptsBuilder::default()
            .user(Some(&self.user))
            .pass(self.password.as_ref().map(|password| &password.0))
            .db_name(database)
            .prefer_socket(false)
            .tcp_nodelay(true)
            .stmt_cache_size(0)
            .setup(SETUP.to_vec());
        let builder = match &self.at {
            ServerPlace::Socket(path) => builder.socket(Some(path.display().to_string())),
            ServerPlace::Tcp { host, addresses, port } => {
                let addresses = (!addresses.is_empty()).then(|| addresses.clone());
                builder.ip_or_hostname(host).tcp_port(*port).resolved_ips(addresses)
            }
        };
        let tls = self.authorities.as_ref().map(|pem| {
            let trusted = vec![pem.clone().into()];
            SslOpts::default().with_disable_built_in_roots(true).with_root_certs(trusted)
        });
        builder.ssl_opts(tls).into()
    }
}

/// A connection whose every use has a deadline.
pub(super) struct Session {
    connection: Conn,
    layout: Arc<Layout>,
    server: Arc<str>,
    /// Whether it is in the middle of something, or of no more use.
    is_unfit: bool,
}

/// A session that goes back to the idle ones afterwards, unless it is unfit for others: a server that loses
/// a connection undoes what was not committed on it.
pub(super) struct Lent<'s> {
    session: Option<Session>,
    idle: &'s Mutex<Vec<Session>>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.idle.lock().extend(self.session.take().filter(|session| !session.is_unfit));
    }
}

/// What went wrong in a session.
pub(super) enum Trouble {
    /// Work met another's and may be begun anew.
    Again(StoreError),
    /// The connection is of no more use.
    Lost(StoreError),
    /// The statement is refused.
    Refused(StoreError),
}

impl Trouble {
    pub(super) fn error(self) -> StoreError {
        match self {
            Self::Again(error) | Self::Lost(error) | Self::Refused(error) => error,
        }
    }
}

impl Lent<'_> {
    /// What messages call the server.
    pub(super) fn server(&self) -> String {
        self.session.as_ref().map(|session| session.server.to_string()).unwrap_or_default()
    }

    /// How the tables hold triplets.
    pub(super) fn layout(&self) -> Arc<Layout> {
        self.session.as_ref().map(|session| session.layout.clone()).unwrap_or_default()
    }

    /// Runs one statement; `what` completes the sentence "cannot …".
    pub(super) async fn rows(
        &mut self,
        what: &'static str,
        sql: &str,
    ) -> Result<Vec<Row>, Trouble> {
        let Some(session) = &mut self.session else { return Ok(Vec::new()) };
        // Also when nobody waits for the answer any more.
        let was_unfit = std::mem::replace(&mut session.is_unfit, true);
        let done = rows(&mut session.connection, &session.server, what, sql).await;
        session.is_unfit = was_unfit || matches!(done, Err(Trouble::Lost(_)));
        done
    }

    /// As [`Self::rows`]; returns how many rows it changed.
    pub(super) async fn change(&mut self, what: &'static str, sql: &str) -> Result<u64, Trouble> {
        self.rows(what, sql).await?;
        Ok(self.session.as_ref().map_or(0, |session| session.connection.affected_rows()))
    }

    /// Begins a transaction.
    pub(super) async fn begin(&mut self, what: &'static str) -> Result<(), Trouble> {
        self.rows(what, "START TRANSACTION").await?;
        self.be_unfit(true);
        Ok(())
    }

    /// Ends a transaction.
    pub(super) async fn commit(&mut self, what: &'static str) -> Result<(), Trouble> {
        self.rows(what, "COMMIT").await?;
        self.be_unfit(false);
        Ok(())
    }

    fn be_unfit(&mut self, is_unfit: bool) {
        if let Some(session) = &mut self.session {
            session.is_unfit = is_unfit;
        }
    }
}

pub(super) async fn rows(
    connection: &mut Conn,
    server: &str,
    what: &'static str,
    sql: &str,
) -> Result<Vec<Row>, Trouble> {
    /// What a server says when work met another's: `ER_LOCK_WAIT_TIMEOUT`, `ER_LOCK_DEADLOCK`, and Galera's
    /// `ER_UNKNOWN_COM_ERROR` while a node is not ready and `ER_ERROR_DURING_COMMIT`.
    const AGAIN: [u16; 4] = [1205, 1213, 1047, 1180];
    let server = server.to_owned();
    match timeout(STATEMENT_TIMEOUT, connection.query(sql)).await {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(mysql_async::Error::Server(error))) => {
            let again = AGAIN.contains(&error.code);
            let error = StoreError::Statement { server, what, source: error.into() };
            Err(if again { Trouble::Again(error) } else { Trouble::Refused(error) })
        }
        Ok(Err(error)) => {
            Err(Trouble::Lost(StoreError::Statement { server, what, source: error.into() }))
        }
        Err(_) => Err(Trouble::Lost(StoreError::Silent { server, what, after: STATEMENT_TIMEOUT })),
    }
}

/// Connections that are open.
pub(super) struct Sessions {
    server: Server,
    name: Arc<str>,
    idle: Mutex<Vec<Session>>,
    room: Semaphore,
}

impl Sessions {
    pub(super) fn new(server: Server) -> Self {
        let name = server.name().into();
        Self { server, name, idle: Mutex::default(), room: Semaphore::new(CONNECTIONS_MAX) }
    }

    /// What messages call the server.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Does work in a session. It is begun anew where it met another's, and on a new connection where an
    /// old one turned out to be dead; so it must change nothing, or know that it did.
    pub(super) async fn run<'s, T, F>(
        &'s self,
        work: impl Fn(Lent<'s>) -> F + Send,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Trouble>> + Send,
        T: Send,
    {
        // It is never closed.
        let _room = self.room.acquire().await.ok();
        let mut tries = 0;
        loop {
            let waiting = self.idle.lock().pop();
            let was_open = waiting.is_some();
            let session = match waiting {
                Some(session) => session,
                None => self.connect().await?,
            };
            tries += 1;
            match work(Lent { session: Some(session), idle: &self.idle }).await {
                Ok(done) => return Ok(done),
                Err(Trouble::Again(_)) if tries < TRIES_MAX => {
                    tokio::time::sleep(pause(tries)).await;
                }
                // The server may have been started anew since.
                Err(Trouble::Lost(StoreError::Statement { .. })) if was_open => {
                    self.idle.lock().clear();
                }
                Err(trouble) => return Err(trouble.error()),
            }
        }
    }

    async fn connect(&self) -> Result<Session, StoreError> {
        let mut connection = connect(&self.server, Some(&self.server.database)).await?;
        let layout = schema::layout(&mut connection, &self.name).await?;
        Ok(Session {
            connection,
            layout: Arc::new(layout),
            server: self.name.clone(),
            is_unfit: false,
        })
    }
}

/// Grows with each try, and differs from node to node.
fn pause(tries: usize) -> Duration {
    let spread = u64::from(std::process::id() % 16);
    Duration::from_millis(5 * tries as u64 * tries as u64 + spread)
}

/// Connects, to this database of the server or to none.
pub(super) async fn connect(server: &Server, database: Option<&str>) -> Result<Conn, StoreError> {
    let name = server.name();
    match timeout(CONNECT_TIMEOUT, Conn::new(server.opts(database))).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(StoreError::Unreachable { server: name, source: error.into() }),
        Err(_) => Err(StoreError::Silent {
            server: name,
            what: "take a connection",
            after: CONNECT_TIMEOUT,
        }),
    }
}
