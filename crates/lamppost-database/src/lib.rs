//! The embedded state database and its migrations.
//!
//! One thread owns one `SQLite` connection; everybody else sends it work. That keeps blocking calls
//! out of the async runtime and writers out of each other's way. Other processes (`lamppost
//! account`) may open the same file; `SQLite` arbitrates.

mod migrations;

use std::fmt::Write as _;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::SystemTime;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

pub use migrations::Migrations;

/// Work that may wait for the database before those who ask wait in turn.
const WAITING_MAX: usize = 1024;
/// How long to wait for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a committed write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// A power cut: each write waits for the disk.
    PowerCut,
    /// A killed process; a power cut may take the last writes.
    Kill,
}

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the database; clones use the same connection.
#[derive(Clone, Debug)]
pub struct Database {
    path: Arc<Path>,
    worker: Worker,
}

/// Who does the work.
#[derive(Clone, Debug)]
enum Worker {
    /// The connection's own thread. Whoever drops the last asker waits until the connection is closed:
    /// a process that ended before would leave the write-ahead log to others.
    Thread { orders: mpsc::Sender<Work>, _ended: Arc<Thread> },
    /// Whoever asks, at once: in simulations no real time may pass.
    Inline(Arc<Mutex<Connection>>),
}

/// The thread of a connection, which ends when nobody can ask it any more.
#[derive(Debug)]
struct Thread(Option<JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        // A thread that panicked has told so.
        drop(self.0.take().map(JoinHandle::join));
    }
}

/// Lengths and times of a database's file and of its write-ahead log, which every change is written
/// to (sqlite.org/wal.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    file: (u64, SystemTime),
    journal: Option<(u64, SystemTime)>,
}

/// Why the database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The file cannot be made or opened.
    #[error("cannot open the database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A newer version of the program has changed the tables.
    #[error(
        "{path} was written by a newer version: {component} is at step {found}, this program knows {known}; use the newer program or restore a backup"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Whose tables.
        component: &'static str,
        /// The step that the file is at.
        found: usize,
        /// The last step that this program knows.
        known: usize,
    },
    /// A statement failed.
    #[error("cannot {what} in the database {path}")]
    Statement {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        what: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The database's thread has ended.
    #[error("the database {path} is closed")]
    Closed {
        /// The file.
        path: PathBuf,
    },
}

impl Database {
    /// Opens the file, which is made when it is not there; its folder must be.
    ///
    /// # Errors
    /// When the file cannot be opened or is no database.
    pub fn open(path: &Path, survives: Survives) -> Result<Self, DatabaseError> {
        let connection = connect(path, survives)
            .map_err(|source| DatabaseError::Open { path: path.to_owned(), source })?;
        let (orders, waiting) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("database".into())
            .spawn(move || serve(connection, waiting))
            .map_err(|source| DatabaseError::Open {
                path: path.to_owned(),
                source: source.into(),
            })?;
        let ended = Arc::new(Thread(Some(thread)));
        let worker = Worker::Thread { orders, _ended: ended };
        Ok(Self { path: path.into(), worker })
    }

    /// Opens a file that is there, to read alone: nothing is made or changed, so that nobody needs
    /// to be allowed to.
    ///
    /// # Errors
    /// When the file cannot be read or is no database.
    pub fn open_to_read(path: &Path) -> Result<Self, DatabaseError> {
        let connection = connect_to_read(path)
            .map_err(|source| DatabaseError::Open { path: path.to_owned(), source })?;
        let worker = Worker::Inline(Arc::new(Mutex::new(connection)));
        Ok(Self { path: path.into(), worker })
    }

    /// Opens the file for a simulation: work is done at once by whoever asks, so that it takes no
    /// simulated time and comes in the same order each time.
    ///
    /// # Errors
    /// When the file cannot be opened or is no database.
    pub fn open_inline(path: &Path) -> Result<Self, DatabaseError> {
        let connection = connect(path, Survives::Kill)
            .map_err(|source| DatabaseError::Open { path: path.to_owned(), source })?;
        let worker = Worker::Inline(Arc::new(Mutex::new(connection)));
        Ok(Self { path: path.into(), worker })
    }

    /// Does work on the connection's thread; `what` completes the sentence "cannot …".
    ///
    /// # Errors
    /// When a statement fails or the thread has ended.
    pub async fn run<T, F>(&self, what: &'static str, job: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let failed =
            |source| DatabaseError::Statement { path: self.path.to_path_buf(), what, source };
        match &self.worker {
            Worker::Inline(connection) => job(&mut connection.lock()).map_err(failed),
            Worker::Thread { orders, .. } => {
                let (to, done) = oneshot::channel();
                let work: Work = Box::new(move |connection| drop(to.send(job(connection))));
                orders.send(work).await.map_err(|_| self.closed())?;
                done.await.map_err(|_| self.closed())?.map_err(failed)
            }
        }
    }

    /// What the files look like: as long as it is the same, no process has changed anything, and
    /// what was read before it was taken still holds. Nothing when that cannot be told.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let look = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.len(), found.modified().ok()?))
        };
        let mut journal = self.path.as_os_str().to_owned();
        journal.push("-wal");
        Some(Fingerprint { file: look(&self.path)?, journal: look(Path::new(&journal)) })
    }

    /// Brings a component's tables up to date.
    ///
    /// # Errors
    /// When a step fails, or the file is newer than the program.
    pub async fn migrate(&self, migrations: Migrations) -> Result<(), DatabaseError> {
        let found = self
            .run("bring the tables up to date", move |connection| migrations.apply(connection))
            .await?;
        let Migrations { component, steps } = migrations;
        if found > steps.len() {
            let (path, known) = (self.path.to_path_buf(), steps.len());
            return Err(DatabaseError::TooNew { path, component, found, known });
        }
        Ok(())
    }

    fn closed(&self) -> DatabaseError {
        DatabaseError::Closed { path: self.path.to_path_buf() }
    }
}

/// Gives a file that root made to the owner of its folder: the service runs as that user, and could
/// not open it otherwise. `SQLite` gives its log the same owner.
fn hand_over(made: &File, path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = std::fs::metadata(folder.unwrap_or(Path::new(".")))?;
    if made.metadata()?.uid() != 0 || folder.uid() == 0 {
        return Ok(());
    }
    fchown(made, Some(folder.uid()), Some(folder.gid()))
}

fn connect_to_read(path: &Path) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
    drop(File::open(path)?);
    let mut journal = path.as_os_str().to_owned();
    journal.push("-wal");
    if std::fs::metadata(&journal).is_ok_and(|found| found.len() > 0) {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        return Ok(connection);
    }
    // All of it is in the file itself. Without this SQLite would make its log (sqlite.org/wal.html, "Read-Only
    // Databases").
    let mut address = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                address.push(char::from(byte));
            }
            _ => {
                let _infallible = write!(address, "%{byte:02X}");
            }
        }
    }
    address.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Ok(Connection::open_with_flags(address, flags)?)
}

/// Copies a database as it is at one moment, whoever writes into it meanwhile, into a file of its own
/// that nobody else may read. What was at `to` is gone.
///
/// # Errors
/// When the one cannot be read or the other not be written.
pub fn copy(from: &Path, to: &Path) -> Result<(), DatabaseError> {
    let failed = |what, path: &Path, source| DatabaseError::Statement {
        path: path.to_owned(),
        what,
        source,
    };
    let open =
        |source: std::io::Error| DatabaseError::Open { path: to.to_owned(), source: source.into() };
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(open(error)),
        _ => {}
    }
    // SQLite takes an empty file for none, and would make one by the umask.
    drop(File::options().create_new(true).write(true).mode(0o600).open(to).map_err(open)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(from, flags);
    let connection = connection.map_err(|source| failed("read what is", from, source))?;
    let copied = connection
        .busy_timeout(BUSY_TIMEOUT)
        .and_then(|()| connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]));
    copied.map(drop).map_err(|source| failed("copy what is", from, source))
}

fn connect(
    path: &Path,
    survives: Survives,
) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
    // SQLite makes files by the umask; passwords' hashes are nobody else's business.
    match File::options().create_new(true).append(true).mode(0o600).open(path) {
        Ok(made) => hand_over(&made, path)?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            drop(File::options().append(true).open(path)?);
        }
        Err(error) => return Err(error.into()),
    }
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match survives {
        Survives::PowerCut => "FULL",
        Survives::Kill => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// Does what is asked until nobody can ask any more.
fn serve(mut connection: Connection, mut waiting: mpsc::Receiver<Work>) {
    while let Some(work) = waiting.blocking_recv() {
        work(&mut connection);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FIRST: Migrations =
        Migrations { component: "lamp", steps: &["CREATE TABLE lamp (name TEXT PRIMARY KEY)"] };
    const SECOND: Migrations = Migrations {
        component: "lamp",
        steps: &[FIRST.steps[0], "ALTER TABLE lamp ADD COLUMN lit INTEGER NOT NULL DEFAULT 0"],
    };

    async fn insert(database: &Database, name: &'static str) -> Result<usize, DatabaseError> {
        let insert = move |connection: &mut Connection| {
            connection.execute("INSERT INTO lamp (name) VALUES (?1)", [name])
        };
        database.run("light a lamp", insert).await
    }

    #[tokio::test]
    async fn tables_move_forward_and_keep_their_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let database = Database::open(&path, Survives::PowerCut).unwrap();
        database.migrate(FIRST).await.unwrap();
        insert(&database, "corner").await.unwrap();
        drop(database);
        let database = Database::open(&path, Survives::PowerCut).unwrap();
        database.migrate(SECOND).await.unwrap();
        database.migrate(SECOND).await.unwrap();
        let lit: i64 = database
            .run("look", |connection| {
                connection
                    .query_row("SELECT lit FROM lamp WHERE name = 'corner'", [], |row| row.get(0))
            })
            .await
            .unwrap();
        assert_eq!(lit, 0);
        let error = database.migrate(FIRST).await.unwrap_err().to_string();
        assert!(error.contains("lamp is at step 2, this program knows 1"), "{error}");
    }

    #[tokio::test]
    async fn a_failed_statement_tells_what_and_where() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("state.db"), Survives::Kill).unwrap();
        database.migrate(FIRST).await.unwrap();
        insert(&database, "corner").await.unwrap();
        let error = insert(&database, "corner").await.unwrap_err().to_string();
        assert!(error.starts_with("cannot light a lamp in the database /"), "{error}");
        // The thread goes on.
        insert(&database, "bridge").await.unwrap();
    }

    #[test]
    fn the_file_is_private_and_errors_name_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        Database::open(&path, Survives::PowerCut).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = Database::open(&folder.path().join("absent/state.db"), Survives::Kill);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("absent/state.db"), "{error}");
        std::fs::write(&path, "no database at all, just some text").unwrap();
        assert!(Database::open(&path, Survives::PowerCut).is_err());
    }

    #[tokio::test]
    async fn who_only_reads_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a state%.db");
        assert!(Database::open_to_read(&path).is_err());
        let names = |database: Database| async move {
            let count = |connection: &mut Connection| {
                connection.query_row("SELECT count(*) FROM lamp", [], |row| row.get::<_, u32>(0))
            };
            database.run("count", count).await.unwrap()
        };
        let database = Database::open(&path, Survives::PowerCut).unwrap();
        database.migrate(FIRST).await.unwrap();
        insert(&database, "corner").await.unwrap();
        assert_eq!(names(Database::open_to_read(&path).unwrap()).await, 1);
        let reader = Database::open_to_read(&path).unwrap();
        assert!(insert(&reader, "bridge").await.is_err());
        // A reader that is the last leaves files behind.
        drop(reader);
        drop(database);
        let files = || std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files(), 1);
        assert_eq!(names(Database::open_to_read(&path).unwrap()).await, 1);
        assert_eq!(files(), 1);
    }

    /// The service's user must be able to open what root made first.
    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let is_root = std::fs::metadata(folder.path()).unwrap().uid() == 0;
        if !is_root || std::os::unix::fs::chown(folder.path(), Some(4711), Some(4712)).is_err() {
            return;
        }
        let path = folder.path().join("state.db");
        let database = Database::open_inline(&path).unwrap();
        for name in ["state.db", "state.db-wal", "state.db-shm"] {
            let Ok(found) = std::fs::metadata(folder.path().join(name)) else { continue };
            assert_eq!((found.uid(), found.gid()), (4711, 4712), "{name}");
        }
        drop(database);
    }
}
