//! The program as the control API shows it, and what it can be told to do.

use std::path::PathBuf;
use std::pin::Pin;

use lamppost_roles::QueueStatus;
use lamppost_sandbox::InForce;
use lamppost_telemetry::Fact;
use serde::{Deserialize, Serialize};

/// What only the program itself knows.
pub trait Host: Send + Sync + 'static {
    /// The program's own figures.
    fn status(&self) -> Pin<Box<dyn Future<Output = HostStatus> + Send + '_>>;

    /// Reads the configuration again.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<Reloaded, ReloadError>> + Send + '_>>;

    /// Has the program's file begin anew in the place of what runs, which ends soon after the answer.
    fn upgrade(&self) -> Pin<Box<dyn Future<Output = Result<String, ReloadError>> + Send + '_>>;

    /// Has a part of the program pause, or go on.
    fn pause(
        &self,
        part: Part,
        is_paused: bool,
    ) -> Pin<Box<dyn Future<Output = Result<String, ReloadError>> + Send + '_>>;
}

/// The file that was to be read again is wrong, or the program that was to begin; nothing has changed.
#[derive(Clone, Debug)]
pub struct ReloadError(
    /// All that is wrong, for people.
    pub String,
);

/// A configuration that was read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reloaded {
    /// What was done, for people.
    pub done: String,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
}

/// Something odd about a configuration that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Warning {
    /// The line of the file, from 1; nothing when it is about the machine.
    pub line: Option<u64>,
    /// The column in letters, from 1.
    pub column: Option<u64>,
    /// What it is, for people.
    pub what: String,
    /// What to do about it.
    pub cure: Option<String>,
}

/// What the program is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// All roles are at work.
    #[default]
    AtWork,
    /// New connections wait while sessions end, so that all roles can begin anew.
    EndingSessions,
    /// All roles begin, for the first time or anew.
    Beginning,
}

/// How far the queue is with reading what is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reading {
    /// Segments of its log that are read.
    pub segments: u64,
    /// All that are to be read.
    pub of: u64,
}

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
    /// What the program is at.
    #[serde(default)]
    pub phase: Phase,
    /// How many seconds that may take yet; nothing when nobody can tell.
    #[serde(default)]
    pub phase_left_s: Option<u64>,
    /// How far the queue is with reading, while all roles begin; nothing when nobody can tell.
    #[serde(default)]
    pub reading: Option<Reading>,
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
    /// What an administrator has paused.
    #[serde(default)]
    pub paused: Vec<Part>,
}

/// What administrators may have pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Connections are not taken, and wait.
    Front,
    /// Mail is taken, and waits in the queue.
    Delivery,
}

impl Part {
    /// All that there are.
    pub const ALL: [Self; 2] = [Self::Front, Self::Delivery];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Delivery => "delivery",
        }
    }
}

/// What is to pause, or to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pause {
    /// Which part of the mail service.
    pub part: Part,
}

/// A role in its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RoleStatus {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Whether it answers.
    #[serde(default = "is_so")]
    pub answers: bool,
    /// What it gave up; nothing when it does not say.
    pub force: Option<InForce>,
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
    /// The queue's; nothing while it does not answer.
    pub queue: Option<QueueStatus>,
}

/// Programs before this one left out a role that did not answer.
fn is_so() -> bool {
    true
}
