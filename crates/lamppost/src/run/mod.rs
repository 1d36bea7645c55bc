//! `lamppost run`: the one place where the services are wired together.

mod demo;
mod listeners;
mod local;
mod program;
mod relay;
mod settings;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lamppost_accounts::Accounts;
use lamppost_config::{Config, Level, LogFormat, TlsMode};
use lamppost_console::{Control, ControlSettings, ControlSocket, serve_metrics};
use lamppost_database::{Database, Survives};
use lamppost_delivery::Relay;
use lamppost_disk::RealDisk;
use lamppost_greylist::{Greylist, SqliteStore};
use lamppost_mail::policy::Policy;
use lamppost_mail::{Front, FrontEnds};
use lamppost_net::link::{Port, link};
use lamppost_net::{Clock, Drain, KeyPair, Listener, ServerTls, SystemClock, demo_ca};
use lamppost_queue::{Ends, Queue};
use lamppost_roles::{ControlAnswer, ControlRequest, IntakeAnswer, IntakeRequest};
use lamppost_smtp::Secret;
use lamppost_telemetry::{Format, Guard, Health, Kept, Metrics, StartError};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level as LogLevel, info, warn};

use self::listeners::Bound;
use self::program::Program;
use crate::command::out;
use crate::exit::{Code, Failure};
use crate::place::{Opened, Place};
use crate::state_files::{self, database_failure, folder_failure};

/// Runs the services until told to stop.
pub(crate) fn run(place: &Place) -> Result<(), Failure> {
    let opened = place.open()?;
    if opened.config.mail.listen.is_empty() {
        return Err(Failure::new(
            Code::Config,
            "the configuration names no listener: nothing would run",
        )
        .cure("add a [[mail.listen]]; `lamppost init -` shows one"));
    }
    opened.check_files()?;
    opened.make_state()?;
    // The other cores are for the committer, the disk and the network: with a worker for each core
    // every event wakes two workers, one for the event and one to look for the next.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.div_ceil(2))
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::at(Code::System, "cannot begin", &error))?;
    let served = runtime.block_on(serve(opened));
    // A file operation that hangs, as on a dead network file system, must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(opened: Opened) -> Result<(), Failure> {
    let config = &opened.config;
    // Taken before anything begins, so that no early signal is missed.
    let mut signals = Signals::new()?;
    let (mail, metrics_listeners) = listeners::bind(&opened)?;
    let _log = start_log(&opened)?;
    let hostname = opened.hostname();
    let tls = tls(&opened, &hostname)?;
    let metrics = Metrics::new();
    let health = Health::default();
    let Roles { front, queue, policy, greylist, relay, control, intake, drain, password } =
        wire(&opened, &hostname, (&metrics, &health)).await?;
    let local = local::bind(&opened)?;
    let banner = banner(&opened, &mail, &metrics_listeners, tls.as_deref());
    let mut listening = listen(&front, mail, config, (&hostname, tls.as_ref()));
    listening.extend(local.map(|local| local::listen(&front, local, &opened)));
    for listener in metrics_listeners {
        tokio::spawn(serve_metrics(listener, metrics.clone()));
    }

    let program = Arc::new(Program {
        // Those who ask for it may stand elsewhere.
        file: opened.file.as_ref().map(|file| std::path::absolute(file).unwrap_or(file.clone())),
        state: opened.state.clone(),
        hostname,
        config: parking_lot::Mutex::new(config.clone()),
        begun: Instant::now(),
        listeners: listening,
        metrics,
        health,
        policy,
        greylist,
        relay,
        tls,
    });
    program.warn_of_certificate();
    if let Some(owner) = state_files::other_owner(&opened.state) {
        warn!(state = %opened.state.display(), owner, "the state is another user's, and what root makes in it now that user cannot open");
    }
    serve_control(&opened, (control, intake), &program)?;
    tokio::spawn(watch_certificate(program.clone()));
    let welcome = match opened.file {
        None => demo::welcome(password.as_ref(), &opened),
        Some(_) => String::new(),
    };
    out::print(&format!("{banner}{welcome}\nLamppost is ready.\n"))?;
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));

    signals.stop(&program).await;
    let grace = config.server.stop_grace;
    info!(grace_s = grace.as_secs(), "stopping");
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
    let left = drain.finish(grace).await;
    if left > 0 {
        warn!(left, "sessions cut short");
    }
    queue.stop(grace).await;
    info!("stopped");
    let sockets = [Some(opened.control_socket.clone()), opened.submit_socket()];
    for socket in sockets.into_iter().flatten() {
        drop(std::fs::remove_file(socket));
    }
    Ok(())
}

/// The roles of the mail service, joined by their links.
struct Roles {
    front: Arc<Front>,
    queue: Queue,
    policy: Policy,
    greylist: Arc<Greylist>,
    relay: Relay,
    control: Port<ControlRequest, ControlAnswer>,
    intake: Port<IntakeRequest, IntakeAnswer>,
    drain: Drain,
    /// The password of the demo's account, if it was made just now.
    password: Option<Secret>,
}

async fn wire(
    opened: &Opened,
    hostname: &str,
    (metrics, health): (&Arc<Metrics>, &Health),
) -> Result<Roles, Failure> {
    let config = &opened.config;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let accounts = open_accounts(opened).await?;
    let greylist = Arc::new(open_greylist(opened).await?);
    let password = match opened.file {
        None => demo::account(&accounts).await?,
        Some(_) => None,
    };
    let (intake_port, intake) = link();
    let (control_port, control) = link();
    let (content_port, content) = link();
    let (delivery_port, delivery) = link();
    let (policy_port, policy_inbox) = link();
    let (routing_port, routing) = link();

    let relay = Relay::default();
    relay.set(relay::settings(config, hostname)?);
    let delivery_settings = settings::delivery(config, &opened.state, hostname, (&relay, health))
        .map_err(|error| Failure::at(Code::Config, "mail.maildir", &error))?;
    tokio::spawn(lamppost_delivery::run(
        delivery_settings,
        Arc::new(RealDisk),
        metrics.clone(),
        delivery,
        content_port,
    ));
    let ends = Ends { intake, control, content, delivery: delivery_port, routing: routing_port };
    let settings = settings::queue(config, &opened.state, hostname);
    let queue = Queue::start(settings, clock.clone(), metrics.clone(), ends).await;
    let queue = queue.map_err(|error| unstarted(&error, opened))?;
    let settings = settings::policy(config, hostname);
    let policy = Policy::new(settings, accounts, greylist.clone(), clock.clone());
    tokio::spawn(policy.clone().run(policy_inbox));
    tokio::spawn(policy.clone().run_routes(routing));

    let drain = Drain::default();
    let ends = FrontEnds { policy: policy_port, intake: intake_port.clone() };
    let settings = settings::front(config, hostname);
    let front = Arc::new(Front::new(settings, ends, (clock, metrics.clone()), drain.clone()));
    let (control, intake) = (control_port, intake_port);
    Ok(Roles { front, queue, policy, greylist, relay, control, intake, drain, password })
}

/// Why the queue did not start; a folder that does not do is told with who named it.
fn unstarted(error: &lamppost_queue::StartError, opened: &Opened) -> Failure {
    match error {
        lamppost_queue::StartError::Volatile { .. } => {}
        lamppost_queue::StartError::Disk { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            return folder_failure(&opened.state.join("spool"), error);
        }
        _ => return Failure::of(Code::Unavailable, error),
    }
    let cure = match opened.place_of("server.state") {
        _ if opened.state_is_named => "name a folder on a disk with --state".to_owned(),
        Some(place) => format!("`state` at {place} names the folder: name one on a disk"),
        None => "name a folder on a disk: `state` in [server], or --state DIR".to_owned(),
    };
    Failure::of(Code::Config, error).cure(cure)
}

/// The signals that end the program or make it read its file again.
struct Signals {
    term: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind).map_err(|error| Failure::at(Code::System, "cannot take signals", &error))
        };
        Ok(Self {
            term: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    /// Waits for the end; SIGHUP reloads meanwhile.
    async fn stop(&mut self, program: &Program) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    if let Err(error) = program.reload_now() {
                        tracing::error!(reason = error.0, "the configuration file is wrong; the old one stays in force");
                    }
                }
            }
        }
    }
}

fn start_log(opened: &Opened) -> Result<Guard, Failure> {
    let outcomes = opened.outcomes();
    std::fs::create_dir_all(&outcomes).map_err(|error| {
        let error = std::io::Error::other(format!("cannot make {}: {error}", outcomes.display()));
        folder_failure(&outcomes, &error)
    })?;
    let format = match opened.config.log.format {
        LogFormat::Auto => Format::Auto,
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
        LogFormat::Journal => Format::Journal,
    };
    let level = match opened.config.log.level {
        Level::Error => LogLevel::ERROR,
        Level::Warn => LogLevel::WARN,
        Level::Info => LogLevel::INFO,
        Level::Debug => LogLevel::DEBUG,
        Level::Trace => LogLevel::TRACE,
    };
    let log = &opened.config.log;
    let kept = Kept { size_max: log.outcomes_size_max.0, files_max: log.outcomes_files_max };
    let settings = lamppost_telemetry::Settings { format, level, outcomes, kept };
    lamppost_telemetry::start(&settings).map_err(|error| match &error {
        StartError::Outcomes { path, .. } => folder_failure(path, &error),
        _ => Failure::of(Code::System, &error),
    })
}

/// The certificate, if any listener needs one.
fn tls(opened: &Opened, hostname: &str) -> Result<Option<Arc<ServerTls>>, Failure> {
    let config = &opened.config;
    if config.mail.listen.iter().all(|listen| listen.tls == TlsMode::Off) {
        return Ok(None);
    }
    let failed = |error: &dyn std::error::Error| Failure::of(Code::Config, error);
    let files = if let Some((certificate, key)) = &config.tls.files {
        KeyPair { certificate: secret_path(certificate)?, key: secret_path(key)? }
    } else {
        let made = demo_ca::ensure(&opened.state.join("tls"), hostname, SystemClock.now());
        made.map_err(|error| failed(&error))?.files
    };
    ServerTls::load(files).map(|tls| Some(Arc::new(tls))).map_err(|error| failed(&error))
}

fn secret_path(secret: &lamppost_config::Secret) -> Result<PathBuf, Failure> {
    secret.path().ok_or_else(|| {
        Failure::new(Code::Config, "[tls] names a credential, and systemd gave none")
            .cure("start the program by a unit with LoadCredential=, or name a file")
    })
}

async fn open_accounts(opened: &Opened) -> Result<Accounts, Failure> {
    let path = opened.accounts();
    let failed = |error: &_| database_failure(&path, error);
    let database = Database::open(&path, Survives::PowerCut).map_err(|e| failed(&e))?;
    Accounts::open(database, settings::accounts(&opened.config)).await.map_err(|e| failed(&e))
}

async fn open_greylist(opened: &Opened) -> Result<Greylist, Failure> {
    // A file of its own: a power cut may cost the last triplets, which only come back later.
    let path = opened.state.join("greylist.db");
    let database = Database::open(&path, Survives::Kill);
    let database = database.map_err(|error| database_failure(&path, &error))?;
    let store = SqliteStore::open(database).await;
    let store = store.map_err(|error| Failure::of(Code::Io, &error))?;
    Ok(Greylist::new(settings::greylist(&opened.config), Box::new(store)))
}

/// What listens, and whether it does already.
type Listening = Vec<(lamppost_console::ListenerStatus, Arc<AtomicBool>)>;

/// Serves each listener, those of absent addresses once they appear.
fn listen(
    front: &Arc<Front>,
    mail: Vec<Bound>,
    config: &Config,
    (hostname, tls): (&str, Option<&Arc<ServerTls>>),
) -> Listening {
    let mut listening = Vec::new();
    for bound in mail {
        let flag = Arc::new(AtomicBool::new(bound.listener.is_some()));
        listening.push((bound.status(), flag.clone()));
        let name = bound.address.to_string();
        let settings = Arc::new(settings::listener(config, &bound.listen, &name, hostname));
        let tls = tls.filter(|_| bound.listen.tls != TlsMode::Off).cloned();
        let front = front.clone();
        tokio::spawn(async move {
            let listener = match bound.listener {
                Some(listener) => listener,
                None => listeners::appear(bound.address).await,
            };
            flag.store(true, Ordering::Relaxed);
            front.listen(listener, settings, tls).await;
        });
    }
    listening
}

fn serve_control(
    opened: &Opened,
    (queue, intake): (Port<ControlRequest, ControlAnswer>, Port<IntakeRequest, IntakeAnswer>),
    program: &Arc<Program>,
) -> Result<(), Failure> {
    let socket = ControlSocket::bind(&opened.control_socket);
    let socket = socket.map_err(|error| Failure::of(Code::Unavailable, &error))?;
    let request_size_max = opened.config.server.request_size_max.0;
    let settings = ControlSettings {
        outcomes: opened.outcomes(),
        request_size_max: usize::try_from(request_size_max).unwrap_or(usize::MAX),
    };
    let control = Control::new(queue, intake, program.clone(), settings);
    tokio::spawn(control.serve(socket));
    Ok(())
}

/// Looks again and again whether the certificate's files changed.
async fn watch_certificate(program: Arc<Program>) {
    let every = program.config.lock().tls.reload_check;
    loop {
        tokio::time::sleep(every).await;
        // It logs by itself, and once for each change.
        drop(program.reload_tls());
    }
}

/// What listens where.
fn banner(
    opened: &Opened,
    mail: &[Bound],
    metrics: &[Listener],
    tls: Option<&ServerTls>,
) -> String {
    let mut text = format!("Lamppost {}\n\n", env!("CARGO_PKG_VERSION"));
    let file = opened
        .file
        .as_ref()
        .map_or("none (the built-in demo)".into(), |file| file.display().to_string());
    let _infallible = writeln!(text, "  file      {file}\n  state     {}", opened.state.display());
    for bound in mail {
        let status = bound.status();
        let waiting = if status.listening { "" } else { ", once the address appears" };
        let (kind, tls) = out::words_of(&status);
        let _infallible =
            writeln!(text, "  smtp      {} for {kind}, TLS: {tls}{waiting}", status.address);
    }
    for listener in metrics {
        let _infallible = writeln!(text, "  metrics   http://{}/metrics", listener.address());
    }
    if let Some(socket) = opened.submit_socket() {
        let _infallible = writeln!(text, "  sendmail  {}", socket.display());
    }
    let _infallible = writeln!(text, "  control   {}", opened.control_socket.display());
    if let Some(tls) = tls {
        let _infallible = writeln!(text, "  TLS       {}", tls.files().certificate.display());
    }
    if opened.config.tls.self_signed && opened.config.tls.files.is_none() && tls.is_some() {
        let ca = opened.state.join("tls/ca.pem");
        let _infallible =
            writeln!(text, "  CA        {} (self-made; for trying out only)", ca.display());
    }
    text
}
