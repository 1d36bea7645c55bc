//! The Maildir of one user of this machine, written by a process that is this user and may touch nothing else.
//!
//! It is asked by delivery, and ends when delivery does not need it any more. It tells what it gave up and asks
//! for the contents of large messages; there is nobody else that it could speak to.

use std::io::ErrorKind;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lamppost_config::SystemUsers;
use lamppost_delivery::make_maildir;
use lamppost_disk::{Beneath, Blocking};
use lamppost_net::Given;
use lamppost_net::link::{Inbox, Port, link};
use lamppost_roles::{
    ContentAnswer, ContentRequest, DeliveryAnswer, DeliveryRequest, Outcome, OwnerQuestion,
    OwnerWork, Reason,
};
use lamppost_sandbox::{InForce, User, restrict};
use lamppost_smtp::Status;
use lamppost_telemetry::{Metrics, OutcomesTo};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use super::links::{Links, port_to};
use super::{Role, power, told};
use crate::exit::{Code, Failure};
use crate::run::setup::Setup;
use crate::run::{defect, lines_to, settings, start_log};

/// Threads that file operations may block.
const BLOCKING_MAX: usize = 16;
/// How long what is under way may take when nobody waits for it any more.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Whose process it is.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::run) struct OwnerSetup {
    /// Whom it must become; nobody where it is that user.
    pub(in crate::run) user: Option<User>,
    pub(in crate::run) name: String,
    pub(in crate::run) uid: u32,
    pub(in crate::run) home: PathBuf,
}

/// What it found in the home.
enum Found {
    /// A Maildir, and the folder itself.
    Maildir(Beneath, OwnedFd),
    /// No Maildir yet. Who may make it may not write into it: the next process will.
    NoMaildir(Beneath),
    /// Nothing that may be written.
    Unfit(String),
}

/// Is the process of a user until nobody asks any more.
pub(super) fn run() -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::at(Code::Software, "the process of a user cannot begin", error)
    };
    defect::watch("user", true);
    let with_supervisor = || set_parent_process_death_signal(Some(Signal::KILL));
    with_supervisor().map_err(|error| failed(&error))?;
    let mut given = Given::take().map_err(|error| failed(&error))?;
    let (setup, owner): (Setup, OwnerSetup) =
        (told(&mut given, "setup")?, told(&mut given, "owner")?);
    let config = setup.config()?;
    limit(&config.mail.system_users).map_err(|error| failed(&error))?;
    if let Some(user) = owner.user {
        user.become_it().map_err(|error| failed(&error))?;
        with_supervisor().map_err(|error| failed(&error))?;
    }
    let lines = lines_to(&config)?;
    let maildir = owner.home.join(&config.mail.system_users.maildir);
    // As the user, who alone may be let into the home, and before files are restricted.
    let found = find(&owner, &maildir);
    let mut power = power::of(Role::User, &config, &setup.state);
    // By what was opened: the name may lead elsewhere by now.
    match &found {
        Found::Maildir(_, folder) => power.writes.push(itself(folder.as_raw_fd())),
        Found::NoMaildir(home) => power.makes.push(itself(home.folder().as_raw_fd())),
        Found::Unfit(_) => {}
    }
    let force = restrict(&power).map_err(|error| failed(&error))?;
    let log = start_log(&config, lines, OutcomesTo::Nobody)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_MAX)
        .build()
        .map_err(|error| failed(&error))?;
    let served = runtime.block_on(async {
        let mut links = Links::new(given);
        let questions = links.one("questions").map_err(|error| failed(&error))?;
        let questions = port_to("questions", questions).map_err(|error| failed(&error))?;
        let work = links.inbox("work").map_err(|error| failed(&error))?;
        let (deliveries, inbox) = link();
        tokio::spawn(sort_out(work, deliveries));
        tell(&questions, &force);
        let told = settings::owner(&config, &setup.hostname, &maildir);
        serve(found, told, inbox, questions).await;
        Ok(())
    });
    runtime.shutdown_timeout(LAST_WORDS);
    drop(log);
    served
}

/// Bounds what it may take of the machine.
fn limit(users: &SystemUsers) -> Result<(), Errno> {
    let most = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Data, most(users.process_memory_max.0))?;
    setrlimit(Resource::Nofile, most(users.process_files_max as u64))
}

/// The path of what is open under a number.
fn itself(descriptor: i32) -> PathBuf {
    format!("/proc/self/fd/{descriptor}").into()
}

/// Opens the home and the Maildir in it, which must be the user's and nobody else's.
fn find(owner: &OwnerSetup, maildir: &Path) -> Found {
    let (name, home) = (&owner.name, owner.home.display());
    let opened = Beneath::open(&owner.home).and_then(|home| {
        let found = std::fs::File::from(home.folder().try_clone_to_owned()?).metadata()?;
        Ok((home, found))
    });
    let (beneath, found) = match opened {
        Ok(opened) => opened,
        Err(error) => return Found::Unfit(format!("cannot open the home {home}: {error}")),
    };
    if found.uid() != owner.uid || found.mode() & 0o022 != 0 {
        return Found::Unfit(format!("the home {home} is not only {name}'s to write"));
    }
    match beneath.find(maildir) {
        Ok(folder) => Found::Maildir(beneath, folder),
        Err(error) if error.kind() == ErrorKind::NotFound => Found::NoMaildir(beneath),
        Err(error) => {
            let shown = maildir.display();
            let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::LOOP) => "a symbolic link, and it must be a folder".to_owned(),
                Some(Errno::NOTDIR) => "no folder".to_owned(),
                _ => error.to_string(),
            };
            Found::Unfit(format!("cannot write into {shown}: it is, or is below, {why}"))
        }
    }
}

/// Tells what was given up. Nobody answers anything of use.
fn tell(questions: &Port<OwnerQuestion, ContentAnswer>, force: &InForce) {
    let text = serde_json::to_string(force).unwrap_or_default();
    let questions = questions.clone();
    tokio::spawn(async move { drop(questions.ask(OwnerQuestion::Restricted(text)).await) });
}

/// Answers at once what is no work.
async fn sort_out(
    mut work: Inbox<OwnerWork, DeliveryAnswer>,
    deliveries: Port<DeliveryRequest, DeliveryAnswer>,
) {
    while let Some((work, reply)) = work.next().await {
        let OwnerWork::Deliver(request) = work else {
            reply.send(DeliveryAnswer(Vec::new()));
            continue;
        };
        let deliveries = deliveries.clone();
        tokio::spawn(async move {
            // Without an answer there is none.
            if let Ok(answer) = deliveries.ask(request).await {
                reply.send(answer);
            }
        });
    }
}

/// Delivers until nobody asks any more.
async fn serve(
    found: Found,
    settings: lamppost_delivery::Settings,
    mut inbox: Inbox<DeliveryRequest, DeliveryAnswer>,
    questions: Port<OwnerQuestion, ContentAnswer>,
) {
    match found {
        Found::Maildir(home, _) => {
            let (content, asked) = link();
            tokio::spawn(pass_on(asked, questions));
            let metrics = Metrics::new();
            lamppost_delivery::run(settings, Arc::new(home), metrics, inbox, content).await;
        }
        Found::NoMaildir(home) => make(home, settings, inbox).await,
        Found::Unfit(reason) => {
            while let Some((request, reply)) = inbox.next().await {
                reply.send(put_off(&request, &reason));
            }
        }
    }
}

/// Makes the Maildir for the first message and ends then, without an answer: delivery begins again. What was
/// published before is looked for in vain: a home whose file system is not there has no Maildir either.
async fn make(
    home: Beneath,
    settings: lamppost_delivery::Settings,
    mut inbox: Inbox<DeliveryRequest, DeliveryAnswer>,
) {
    let home = Arc::new(home);
    while let Some((request, reply)) = inbox.next().await {
        if !matches!(request, DeliveryRequest::Prepare(_)) {
            reply.send(put_off(&request, "there is no Maildir any more"));
            continue;
        }
        let (home, maildir) = (home.clone(), settings.maildir.clone());
        let made = Blocking::Threads.run(move || {
            let DeliveryRequest::Prepare(jobs) = &request else { return Ok(()) };
            let Some(job) = jobs.first() else { return Ok(()) };
            make_maildir(&*home, &maildir.path(&job.placement.mailbox))
                .map_err(|error| put_off(&request, &error.to_string()))
        });
        match made.await {
            Ok(Err(answer)) => reply.send(answer),
            Ok(Ok(())) | Err(_) => return,
        }
    }
}

/// The same for each entry: not now.
fn put_off(request: &DeliveryRequest, reason: &str) -> DeliveryAnswer {
    let entries = match request {
        DeliveryRequest::Prepare(jobs) => jobs.len(),
        DeliveryRequest::Publish(placements) => placements.len(),
        DeliveryRequest::Relay(jobs) => jobs.iter().map(|job| job.recipients.len()).sum(),
    };
    DeliveryAnswer(vec![Outcome::Deferred(Reason::own(Status::SYSTEM, reason)); entries])
}

/// Asks for the contents of large messages.
async fn pass_on(
    mut asked: Inbox<ContentRequest, ContentAnswer>,
    questions: Port<OwnerQuestion, ContentAnswer>,
) {
    while let Some((request, reply)) = asked.next().await {
        let questions = questions.clone();
        tokio::spawn(async move {
            if let Ok(answer) = questions.ask(OwnerQuestion::Content(request)).await {
                reply.send(answer);
            }
        });
    }
}
