//! The supervisor: binds what the file names, starts a process for each role, starts them again when
//! one ends, and passes on what administrators want. It reads nothing that comes from the network.

mod anew;
mod banner;
mod certificate;
mod files;
mod front;
mod group;
mod owners;
mod pause;
mod rehearsal;
mod reload;
mod retired;
mod rules;
mod signals;
mod sockets;
mod status;
mod store;
mod successor;
mod work;

use std::collections::{BTreeSet, VecDeque};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lamppost_config::Config;
use lamppost_console::{Part, Phase};
use lamppost_net::PemWatch;
use lamppost_net::link::{Inbox, Reply};
use lamppost_telemetry::{Guard, Health, OutcomesTo};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit,
};
use tokio::task::JoinSet;
use tokio::time::Instant as Moment;
use tracing::{error, info, warn};

use self::files::Files;
use self::group::{Group, told};
use self::owners::Owners;
use self::reload::{odd, warn_of};
use self::rules::RulesFile;
use self::signals::Signals;
use self::sockets::control_socket;
use self::status::Board;
use self::store::Store;
use self::successor::Succession;
use self::work::{Work, unstarted};
use super::listeners::{self, Bound, Held};
use super::local::Local;
use super::orders::{Granted, Wish};
use super::role::mail_folders;
use super::setup::Setup;
use super::{defect, demo, lines_to, open_accounts, settings, start_log};
use crate::command::out;
use crate::exit::{Code, Failure};
use crate::place::{Opened, Place};
use crate::state_files::{self, folder_failure};

/// The wait before roles are started again: it doubles from the first to the longest, and is the first
/// again after roles ran for a while.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(10);
const RAN_WELL: Duration = Duration::from_secs(60);
/// How long a control socket of a program that was killed may still be answered.
const ORPHANS_LAST: Duration = Duration::from_millis(500);

/// What the supervisor has and knows.
struct Supervisor {
    place: Place,
    opened: Opened,
    /// What new processes are told.
    setup: Setup,
    /// What the roles but the front were told when they began, and what the front was.
    begun_with: Setup,
    front_begun_with: Setup,
    mail: Vec<Bound>,
    /// Addresses that this machine does not have yet.
    appearing: JoinSet<(usize, TcpListener)>,
    metrics: Vec<TcpListener>,
    control: UnixListener,
    locals: Vec<Local>,
    certificate: Option<PemWatch>,
    files: Files,
    rules: RulesFile,
    health: Health,
    board: Board,
    restarts: u64,
    /// The file of the program, which may be another by now.
    program: PathBuf,
    store: Store,
    owners: Owners,
    /// What an administrator has paused.
    paused: BTreeSet<Part>,
    /// Where lines go; nowhere when the program becomes another.
    log: Option<Guard>,
    /// Whether the program was told to stop while it was at something else.
    is_to_stop: bool,
    /// What was wished for in the meantime.
    waiting: VecDeque<(Wish, Reply<Granted>)>,
}

/// What happens next.
enum Event {
    Stop,
    Reload,
    Wish(Wish, Reply<Granted>),
    Child,
    LookAtCertificate,
    LookAtRoles,
    LookAtRetired,
    Appeared(usize, TcpListener),
}

/// When the supervisor looks after something by itself.
struct Looks {
    certificate: Moment,
    /// How often the service manager wants to hear that all is well, if it does.
    watchdog: Option<tokio::time::Interval>,
    /// When the next role that was replaced must have ended.
    retired: Option<Moment>,
}

/// Runs the services until told to stop.
pub(crate) fn run(place: &Place, is_rehearsal: bool) -> Result<(), Failure> {
    defect::watch("supervisor", true);
    if is_rehearsal {
        // Whoever tries this one must not leave it behind.
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| Failure::at(Code::System, "cannot rehearse", &error))?;
    }
    // What lies in memory, here and in the roles, belongs in no file.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| Failure::at(Code::System, "cannot forbid core dumps", &error))?;
    let opened = place.open()?;
    let mail = &opened.config.mail;
    if mail.listen.is_empty() && !mail.greylist.service.is_on() {
        return Err(Failure::new(
            Code::Config,
            "the configuration names no listener: nothing would run",
        )
        .cure("add a [[mail.listen]]; `lamppost init -` shows one"));
    }
    opened.check_files()?;
    opened.make_state()?;
    // One thread: what it starts ends with it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::at(Code::System, "cannot begin", &error))?;
    let ended = runtime.block_on(serve(place.clone(), opened, is_rehearsal));
    // A file that hangs, as on a dead network file system, must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn serve(place: Place, opened: Opened, is_rehearsal: bool) -> Result<(), Failure> {
    // Asked before another file may have its name.
    let program = std::env::current_exe();
    let program =
        program.map_err(|error| Failure::at(Code::System, "cannot find the program", &error))?;
    // Taken before anything begins, so that no early signal is missed.
    let signals = Signals::new()?;
    let mut held = Held::take().map_err(|error| Failure::of(Code::Usage, &error))?;
    let (mail, metrics) = listeners::bind(&opened, &held.tcp())?;
    let log = start_log(&opened.config, lines_to(&opened.config)?, OutcomesTo::Nobody)?;
    let setup = Setup::gather(&opened)?;
    state_files::gather_databases(&opened.state)?;
    let password = match opened.file {
        None => demo::account(&open_accounts(&opened.config, &opened.accounts()).await?).await?,
        Some(_) => None,
    };
    make_folders(&opened)?;
    setup.users.own(&opened.config, &opened.state)?;
    let control = held.unix(&opened.control_socket);
    let control = control_socket(&opened, &setup, control)?;
    held.warn_of_unnamed(&mail, &metrics);
    let locals = Local::bind_all(&opened, |path| held.unix(path))?;
    // What this process may, such as bind ports below 1024, is not for those that it starts.
    // Nor is what it knows: who got into a role of the same user must not find it in its memory.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| rustix::thread::set_no_new_privs(true))
        .and_then(|()| rustix::thread::clear_ambient_capability_set())
        .map_err(|error| Failure::at(Code::System, "cannot keep capabilities back", &error))?;
    let welcome = match opened.file {
        None => demo::welcome(password.as_ref(), &opened),
        Some(_) => String::new(),
    };
    let rules = RulesFile::default();
    rules.set(opened.config.mail.rules.file.as_deref());
    let health = Health::default();
    let owners = Owners::default();
    owners
        .watch()
        .map_err(|error| Failure::at(Code::System, "cannot hear of processes", &error))?;
    let supervisor = Supervisor {
        board: Board::new(health.clone()),
        owners,
        certificate: setup.pem.as_ref().map(|pem| PemWatch::new(pem.files.clone())),
        files: Files::default(),
        place,
        rules,
        begun_with: setup.clone(),
        front_begun_with: setup.clone(),
        setup,
        mail,
        appearing: JoinSet::new(),
        metrics,
        control,
        locals,
        health,
        restarts: 0,
        program,
        store: Store::of(&held.tcp()),
        paused: pause::read(&opened.state),
        log: Some(log),
        is_to_stop: false,
        waiting: VecDeque::new(),
        opened,
    };
    if is_rehearsal {
        return Box::pin(supervisor.rehearse(signals)).await;
    }
    Box::pin(supervisor.live(signals, &welcome)).await
}

async fn next(
    signals: &mut Signals,
    wishes: &mut Inbox<Wish, Granted>,
    appearing: &mut JoinSet<(usize, TcpListener)>,
    looks: &mut Looks,
) -> Event {
    let watchdog = async {
        match &mut looks.watchdog {
            Some(interval) => interval.tick().await,
            None => std::future::pending().await,
        }
    };
    let retired = async {
        match looks.retired {
            Some(moment) => tokio::time::sleep_until(moment).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = signals.term.recv() => Event::Stop,
        _ = signals.interrupt.recv() => Event::Stop,
        _ = signals.hangup.recv() => Event::Reload,
        _ = signals.child.recv() => Event::Child,
        Some((wish, reply)) = wishes.next() => Event::Wish(wish, reply),
        Some(Ok((place, socket))) = appearing.join_next() => Event::Appeared(place, socket),
        () = tokio::time::sleep_until(looks.certificate) => Event::LookAtCertificate,
        _ = watchdog => Event::LookAtRoles,
        () = retired => Event::LookAtRetired,
    }
}

/// Makes, durably, the folders that roles may write into, since they may not write above them.
fn make_folders(opened: &Opened) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let maildirs = mail_folders::above(&settings::maildir(&opened.config, &opened.state));
    let folders = [opened.outcomes(), opened.state.join("spool"), maildirs];
    for folder in &folders {
        if folder.is_dir() {
            continue;
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        let made = made.and_then(|()| state_files::hand_over(&opened.state, folder));
        made.map_err(|error| {
            let step = format!("cannot make {}: {error}", folder.display());
            folder_failure(folder, &std::io::Error::other(step))
        })?;
    }
    let state = &opened.state;
    let synced = std::fs::File::open(state).and_then(|folder| folder.sync_all());
    synced
        .map_err(|error| Failure::at(Code::Io, &format!("cannot sync {}", state.display()), &error))
}

impl Supervisor {
    /// Starts the roles, tells that they work, and rules until the end.
    async fn live(mut self, mut signals: Signals, welcome: &str) -> Result<(), Failure> {
        self.tell_paused();
        let started = self.start(&mut signals).await;
        if self.is_to_stop {
            self.end(Group::default()).await;
            return Ok(());
        }
        let mut work = started?;
        warn_of(&odd(&self.opened));
        out::print(&format!("{}{welcome}\nLamppost is ready.\n", self.banner()))?;
        drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
        while self.rule(&mut signals, &mut work).await {
            match self.become_successor(&mut work, &mut signals).await {
                Succession::Failed(failure) => return Err(failure),
                Succession::Forgone => work = self.go_on(&mut signals).await,
                Succession::Stopped => break,
            }
        }
        self.end(work.group).await;
        Ok(())
    }

    /// Does what is asked for, and starts roles again that ended, until the program is to stop. Tells
    /// whether another is to take its place.
    async fn rule(&mut self, signals: &mut Signals, work: &mut Work) -> bool {
        self.await_addresses();
        let mut pause = PAUSE_FIRST;
        let mut began = Instant::now();
        let mut looks = Looks {
            certificate: Moment::now() + self.config().tls.reload_check,
            // Twice as often as it must be, sd_watchdog_enabled(3).
            watchdog: sd_notify::watchdog_enabled().map(|every| tokio::time::interval(every / 2)),
            retired: None,
        };
        loop {
            if self.is_to_stop {
                return false;
            }
            self.post(&work.group);
            looks.retired = work.group.next_overdue();
            let event = match self.waiting.pop_front() {
                Some((wish, reply)) => Event::Wish(wish, reply),
                None => next(signals, &mut work.wishes, &mut self.appearing, &mut looks).await,
            };
            match event {
                Event::Stop => return false,
                Event::Reload => drop(self.reload(work, signals).await),
                Event::Wish(Wish::Reload, reply) => {
                    let done = self.reload_for(work, signals).await;
                    reply.send(Granted::Reloaded(done));
                }
                Event::Wish(Wish::Pause(part, is_paused), reply) => {
                    reply.send(Granted::Done(self.pause(&work.group, part, is_paused).await));
                }
                // The board has answered it.
                Event::Wish(Wish::Status, _) => {}
                Event::Wish(Wish::Upgrade, reply) => {
                    let successor = self.try_successor().await;
                    let is_good = successor.is_ok();
                    reply.send(Granted::Done(successor));
                    if is_good {
                        return true;
                    }
                }
                Event::LookAtCertificate => {
                    self.look_at_certificate(&mut work.group).await;
                    looks.certificate = Moment::now() + self.config().tls.reload_check;
                }
                Event::LookAtRoles => work.group.tell_watchdog().await,
                Event::LookAtRetired => work.group.kill_overdue(Moment::now()),
                Event::Appeared(place, socket) => self.appeared(&work.group, place, socket),
                Event::Child => {
                    let Some((role, status)) = work.group.ended() else { continue };
                    if began.elapsed() > RAN_WELL {
                        pause = PAUSE_FIRST;
                    }
                    let reason = told(status);
                    error!(role = role.name(), reason, "a role ended; all are started again");
                    self.restarts += 1;
                    std::mem::take(&mut work.group).finish(Duration::ZERO).await;
                    if let Some(again) = self.again(signals, &mut pause).await {
                        *work = again;
                        began = Instant::now();
                    }
                }
            }
        }
    }

    /// Ends all roles, sessions first, and what the program leaves to be seen.
    async fn end(&self, group: Group) {
        let grace = self.config().server.stop_grace;
        info!(grace_s = grace.as_secs(), "stopping");
        drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
        let left = group.finish(grace).await;
        self.owners.end().await;
        if left > 0 {
            warn!(left, "sessions cut short");
        }
        info!("stopped");
        drop(std::fs::remove_file(&self.opened.control_socket));
        for Local { path, .. } in &self.locals {
            drop(std::fs::remove_file(path));
        }
    }

    /// Starts all roles and waits until they work, or the program is told to stop.
    async fn start(&mut self, signals: &mut Signals) -> Result<Work, Failure> {
        let waiting = self.waiting(&self.setup, &self.control, &self.metrics)?;
        self.begin(waiting, signals).await
    }

    /// Has roles begin that wait for it.
    async fn begin(&mut self, waiting: Work, signals: &mut Signals) -> Result<Work, Failure> {
        let Work { group, wishes } = waiting;
        self.board.set_phase(Phase::Beginning, None);
        self.post(&group);
        let (paused, board) = (self.paused.clone(), self.board.clone());
        let is_paused = |role| paused.iter().any(|part| pause::role_of(*part) == role);
        let begun = tokio::select! {
            begun = group.begin(is_paused, |reading| board.set_reading(reading)) => begun,
            () = signals.stop() => {
                self.is_to_stop = true;
                Err(stopped())
            }
        };
        if let Err(failure) = begun {
            group.finish(Duration::ZERO).await;
            return Err(failure);
        }
        for (place, bound) in (0..).zip(&self.mail) {
            if let Some(socket) = &bound.socket {
                group.listen(place, socket).map_err(|error| unstarted(&error))?;
            }
        }
        for Local { purpose, socket, .. } in &self.locals {
            group.listen(purpose.place(), socket).map_err(|error| unstarted(&error))?;
        }
        self.begun_with = self.setup.clone();
        self.front_begun_with = self.setup.clone();
        self.board.set_phase(Phase::AtWork, None);
        self.post(&group);
        Ok(Work { group, wishes })
    }

    fn config(&self) -> &Config {
        &self.opened.config
    }
}

/// Why something was left undone.
fn stopped() -> Failure {
    Failure::new(Code::Unavailable, "the program was told to stop meanwhile")
}
