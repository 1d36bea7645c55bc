//! A private MariaDB for proofs and measurements: Debian's program, unpacked by `cargo xtask setup`.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to be ready or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who it runs as where the caller is root: it refuses to be root.
const NOBODY: (&str, u32) = ("nobody", 65534);
/// What bounds its disk use; a megabyte or so is all that tests write.
const LOG_BYTES: &str = "--innodb-log-file-size=16M";

/// A database server with files of its own below the folder of temporary files, on a UNIX socket and
/// on a port of loopback. It is killed, and its files are removed, when this is dropped.
///
/// ```no_run
/// let mut database = lamppost_load::Mariadb::start(&[])?;
/// database.execute("CREATE TABLE greylist.seen (id INT PRIMARY KEY)")?;
/// database.kill()?;
/// database.start_again()?;
/// assert_eq!(database.execute("SELECT COUNT(*) FROM greylist.seen")?, "0\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Mariadb {
    folder: PathBuf,
    port: u16,
    options: Vec<String>,
    child: Option<Child>,
}

impl Mariadb {
    /// A user who may do everything, from anywhere.
    pub const USER: &'static str = "lamppost";
    /// Its password.
    pub const PASSWORD: &'static str = "correct-horse";
    /// An empty database.
    pub const DATABASE: &'static str = "greylist";

    /// Makes a server and waits until it answers. The options go to `mariadbd`, such as
    /// `--sql-mode=STRICT_ALL_TABLES` or `--default-time-zone=+03:00`; what they do not say is as
    /// MariaDB has it by default.
    ///
    /// # Errors
    /// The program is not unpacked, or does not start; the end of its log is told.
    pub fn start(options: &[&str]) -> io::Result<Self> {
        Self::start_in(&std::env::temp_dir(), options)
    }

    /// As [`Self::start`], with its files below this folder.
    ///
    /// # Errors
    /// As there.
    pub fn start_in(parent: &Path, options: &[&str]) -> io::Result<Self> {
        let program = unpacked().join("usr/sbin/mariadbd");
        if !program.exists() {
            let text = format!("{} is missing: run `cargo xtask setup`", program.display());
            return Err(io::Error::other(text));
        }
        let folder = fresh_folder(parent)?;
        let port = free_port()?;
        let options = options.iter().map(ToString::to_string).collect();
        let mut server = Self { folder, port, options, child: None };
        server.install()?;
        server.start_again()?;
        server.execute_as(
            "root",
            "CREATE DATABASE greylist; CREATE USER lamppost@'%' IDENTIFIED BY 'correct-horse'; \
             GRANT ALL ON *.* TO lamppost@'%' WITH GRANT OPTION",
        )?;
        Ok(server)
    }

    /// Its UNIX socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Its port of loopback, which stays the same from start to start.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where a database of it is, as `[mail.greylist] database` names it; the password stands elsewhere.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://{}@{}/{database}", Self::USER, self.address())
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it as a power failure would, without a word (`kill -9`), if it runs.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits until it has, if it runs.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> io::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        Command::new("kill").arg(child.id().to_string()).status()?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > PATIENCE {
                self.child = Some(child);
                return Err(io::Error::other("mariadbd does not end"));
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Starts it once more with what it has on disk, and waits until it answers.
    ///
    /// # Errors
    /// It does not start; the end of its log is told.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.kill()?;
        let log = fs::File::create(self.log())?;
        let mut command = self.command("usr/sbin/mariadbd");
        command.arg(format!("--port={}", self.port)).args(["--bind-address=127.0.0.1"]);
        command.arg(format!("--socket={}", self.socket().display())).args(&self.options);
        let command = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = self.child.insert(command.spawn()?);
        let begun = Instant::now();
        loop {
            if UnixStream::connect(self.folder.join("socket")).is_ok() {
                return Ok(());
            }
            let has_ended = child.try_wait()?.is_some();
            if has_ended || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                return Err(io::Error::other(format!("mariadbd does not start:\n{log}")));
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Runs statements by Debian's client; returns the rows, their values separated by tabs.
    ///
    /// # Errors
    /// What the client says.
    pub fn execute(&self, sql: &str) -> io::Result<String> {
        self.execute_as(Self::USER, sql)
    }

    fn execute_as(&self, user: &str, sql: &str) -> io::Result<String> {
        let mut command = program("usr/bin/mariadb");
        command.args(["--no-defaults", "--batch", "--skip-column-names"]);
        command.args(["--default-character-set=utf8mb4", &format!("--user={user}")]);
        if user == Self::USER {
            command.arg(format!("--password={}", Self::PASSWORD));
        }
        command.arg(format!("--socket={}", self.socket().display())).args(["--execute", sql]);
        printed(&command.stdin(Stdio::null()).output()?)
    }

    /// Makes the tables that MariaDB needs itself. Whoever is root by the socket's account needs no
    /// password; the port is on loopback, and all is gone after the test.
    fn install(&self) -> io::Result<()> {
        let mut command = self.command("usr/bin/mariadb-install-db");
        command.arg("--auth-root-authentication-method=normal").arg("--skip-test-db");
        printed(&command.stdin(Stdio::null()).output()?).map(drop)
    }

    /// One of the programs of the server, with what all of them must be told.
    fn command(&self, path: &str) -> Command {
        let mut command = program(path);
        command.arg("--no-defaults");
        if is_root() {
            command.arg(format!("--user={}", NOBODY.0));
        }
        command.arg(format!("--basedir={}", unpacked().join("usr").display()));
        command.arg(format!("--datadir={}", self.folder.join("data").display()));
        // Others may run here too, and temporary tables go by the number of their process.
        command.arg(format!("--tmpdir={}", self.folder.display()));
        command.args(["--skip-name-resolve", LOG_BYTES]);
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        drop(self.kill());
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/mariadb")
}

/// A program of the package, which finds the libraries that came with it.
fn program(path: &str) -> Command {
    let root = unpacked();
    let mut command = Command::new(root.join(path));
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
    let libraries = libraries.map(|folder| root.join(folder).display().to_string());
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    command
}

fn printed(output: &Output) -> io::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    Err(io::Error::other(String::from_utf8_lossy(&said).trim_end().to_owned()))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A new folder that is the server's own.
fn fresh_folder(parent: &Path) -> io::Result<PathBuf> {
    for number in 0.. {
        let name = format!("lamppost-mariadb-{}-{number}", std::process::id());
        let folder = parent.join(name);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => {
                fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
                if is_root() {
                    chown(&folder, Some(NOBODY.1), None)?;
                }
                return Ok(folder);
            }
        }
    }
    Err(io::Error::other("no name is free for a folder"))
}

#[expect(clippy::disallowed_methods, reason = "nobody is served here: the port is only looked for")]
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
