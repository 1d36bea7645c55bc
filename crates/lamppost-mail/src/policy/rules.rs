//! The rules of connections as their file holds them: before each connection is decided it is looked at
//! whether the file has changed.
//!
//! Looking at a file takes no power to read it. Whoever may read it is asked for what is in it, when it is
//! another than before; what is no rules leaves those that are in force.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use lamppost_dns::Resolver;
use lamppost_evidence::confirmed_names;
use lamppost_net::Clock;
use lamppost_net::link::Port;
use lamppost_roles::{FileStamp, RulesAnswer, RulesRequest};
use lamppost_rules::{Rules, Verdict};
use lamppost_telemetry::{Health, State};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

/// How long a connection waits for the file to be looked at, as on a file system that does not answer; then
/// the rules that are in force decide.
const PATIENCE: Duration = Duration::from_secs(1);
/// A file that changed so little ago may have changed again within the same tick of its clock.
const FRESH: Duration = Duration::from_secs(2);
/// How often a file is asked for that cannot be looked at from here.
const UNSEEN_AGAIN: Duration = Duration::from_secs(1);
/// The name of the component in `lamppost status`.
const COMPONENT: &str = "rules";

/// The rules of connections; clones share them.
#[derive(Clone)]
pub struct ConnectionRules(Arc<Shared>);

struct Shared {
    reader: Port<RulesRequest, RulesAnswer>,
    health: Health,
    clock: Arc<dyn Clock>,
    file: ArcSwapOption<PathBuf>,
    in_force: ArcSwapOption<Rules>,
    names: ArcSwapOption<Names>,
    last: Arc<Mutex<Last>>,
    /// Whether the file could not be looked at in time.
    is_late: AtomicBool,
}

/// Who knows the names of clients.
struct Names {
    resolver: Arc<dyn Resolver>,
    /// How long a connection waits for them.
    deadline: Duration,
}

/// What was found when the file was last asked for.
#[derive(Default)]
struct Last {
    file: Option<PathBuf>,
    answer: Option<RulesAnswer>,
    at: Duration,
    /// When it was first found as it is.
    since: Duration,
    /// Whether it could not be looked at from here.
    is_unseen: bool,
}

impl ConnectionRules {
    /// Rules that are asked for by this way, of no file yet.
    pub fn new(
        reader: Port<RulesRequest, RulesAnswer>,
        health: Health,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Shared {
            reader,
            health,
            clock,
            file: ArcSwapOption::empty(),
            in_force: ArcSwapOption::empty(),
            names: ArcSwapOption::empty(),
            last: Arc::default(),
            is_late: AtomicBool::new(false),
        }))
    }

    /// Takes the rules of this file, or none, from the next connection on.
    pub fn set_file(&self, file: Option<&Path>) {
        self.0.file.store(file.map(|file| Arc::new(file.to_owned())));
    }

    /// Asks these name servers for the names of clients, where rules are about names, from the next connection
    /// on; who has no confirmed name within this time has none.
    pub fn set_resolver(&self, resolver: Arc<dyn Resolver>, deadline: Duration) {
        self.0.names.store(Some(Arc::new(Names { resolver, deadline })));
    }

    /// Whether rules are known, where there is a file of them.
    pub async fn are_known(&self) -> bool {
        let Some(file) = self.file() else { return true };
        self.renew(file).await;
        self.0.in_force.load().is_some()
    }

    /// What they say of a client; nothing when none are known though there is a file of them.
    pub(super) async fn verdict(&self, peer: IpAddr) -> Option<Verdict> {
        let Some(file) = self.file() else { return Some(Verdict::default()) };
        if timeout(PATIENCE, self.renew(file)).await.is_err() {
            self.0.is_late.store(true, Ordering::Relaxed);
            let text = "their file is not there to be looked at in time; those that are known hold";
            self.0.health.set(COMPONENT, State::Warn, text);
        }
        let rules = self.0.in_force.load_full()?;
        let by_address = rules.verdict(peer, None);
        if !rules.have_names() || is_of_one_address(&by_address, peer) {
            return Some(by_address);
        }
        let names = self.names(peer).await;
        let mut by_names = names.iter().map(|name| rules.verdict(peer, Some(name)));
        // A rule may be about any of its names.
        Some(by_names.find(Verdict::is_by_name).unwrap_or(by_address))
    }

    /// The confirmed names of a client.
    async fn names(&self, peer: IpAddr) -> Vec<String> {
        // This machine's own addresses have no names in the DNS that say anything.
        let Some(names) = self.0.names.load_full().filter(|_| !peer.to_canonical().is_loopback())
        else {
            return Vec::new();
        };
        match timeout(names.deadline, confirmed_names(&*names.resolver, peer)).await {
            Ok(Ok(found)) => found,
            Ok(Err(reason)) => {
                debug!(%peer, %reason, "the name of a client is not known");
                Vec::new()
            }
            Err(_) => {
                debug!(%peer, reason = "no answer in time", "the name of a client is not known");
                Vec::new()
            }
        }
    }

    fn file(&self) -> Option<PathBuf> {
        self.0.file.load().as_deref().cloned()
    }

    /// Takes what the file holds, if it may have changed.
    async fn renew(&self, file: PathBuf) {
        // One looks at a time, so that a file that hangs holds up one thread.
        let last = self.0.last.clone().lock_owned().await;
        let looked = file.clone();
        let look =
            move || (std::fs::metadata(&looked).ok().map(|found| FileStamp::of(&found)), last);
        let Ok((stamp, mut last)) = tokio::task::spawn_blocking(look).await else { return };
        let now = self.0.clock.now();
        if last.is_of(&file, stamp, now) {
            if self.0.is_late.swap(false, Ordering::Relaxed) {
                self.tell(&last);
            }
            return;
        }
        let Ok(answer) = self.0.reader.ask(RulesRequest).await else { return };
        let is_same = last.file.as_ref() == Some(&file)
            && last.answer.as_ref().is_some_and(|before| before.stamp == answer.stamp);
        let since = if is_same { last.since } else { now };
        let found = Last {
            file: Some(file.clone()),
            answer: Some(answer),
            at: now,
            since,
            is_unseen: stamp.is_none(),
        };
        let before = std::mem::replace(&mut *last, found);
        self.take(&file, &last, &before);
        self.tell(&last);
    }

    /// Puts in force what was read, and tells of it once.
    fn take(&self, file: &Path, now: &Last, before: &Last) {
        let Some(answer) = &now.answer else { return };
        let of_before = before.answer.as_ref().filter(|_| before.file == now.file);
        let file = file.display();
        let is_other = of_before.is_none_or(|one| one.rules != answer.rules);
        if is_other && let Some(bytes) = &answer.rules {
            match Rules::read(bytes.to_vec()) {
                Ok(rules) => {
                    for remark in rules.remarks() {
                        warn!(%file, reason = %remark, "a connection rule is odd");
                    }
                    info!(%file, form = ?rules.form(), "connection rules are in force");
                    self.0.in_force.store(Some(Arc::new(rules)));
                }
                // Who read it found it right.
                Err(reason) => error!(%file, %reason, "connection rules cannot be used"),
            }
        }
        if let Some(reason) = &answer.fault
            && of_before.is_none_or(|one| one.fault != answer.fault)
        {
            error!(%file, reason, "connection rules cannot be used; those before stay in force");
        }
    }

    /// Has `lamppost status` tell how it is with the file.
    fn tell(&self, last: &Last) {
        let fault = last.answer.as_ref().and_then(|answer| answer.fault.as_ref());
        match fault {
            None => self.0.health.set(COMPONENT, State::Ok, "as their file holds them"),
            Some(reason) => {
                let text = format!("{reason}; the rules before stay in force");
                self.0.health.set(COMPONENT, State::Fail, text);
            }
        }
    }
}

/// Whether a rule is the one of this very address, which comes before those of names.
fn is_of_one_address(verdict: &Verdict, peer: IpAddr) -> bool {
    let Some(key) = &verdict.key else { return false };
    let (address, bits) = key.split_once('/').unwrap_or((key, ""));
    address == peer.to_canonical().to_string() && matches!(bits, "" | "32" | "128")
}

impl Last {
    /// Whether it is still what the file holds.
    fn is_of(&self, file: &Path, stamp: Option<FileStamp>, now: Duration) -> bool {
        let Some(answer) = &self.answer else { return false };
        if self.file.as_deref() != Some(file) {
            return false;
        }
        match stamp {
            None => self.is_unseen && now.saturating_sub(self.at) < UNSEEN_AGAIN,
            Some(stamp) => {
                // Where the clock of its file system is ahead of ours, its stamp alone would always be fresh.
                let was_old = !stamp.is_after(self.at.saturating_sub(FRESH))
                    || self.at.saturating_sub(self.since) >= FRESH;
                answer.stamp == Some(stamp) && was_old
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lamppost_net::link::{Inbox, link};
    use lamppost_net::{SystemClock, TokioClock};

    use super::*;

    /// Answers as the supervisor does; counts how often it is asked.
    async fn read(
        mut asked: Inbox<RulesRequest, RulesAnswer>,
        path: PathBuf,
        count: Arc<Mutex<usize>>,
    ) {
        let mut good = None;
        while let Some((RulesRequest, reply)) = asked.next().await {
            *count.lock().await += 1;
            let stamp = std::fs::metadata(&path).ok().map(|found| FileStamp::of(&found));
            let read = std::fs::read(&path).map_err(|error| error.to_string());
            let checked = read.and_then(|bytes| match Rules::read(bytes.clone()) {
                Ok(_) => Ok(bytes),
                Err(error) => Err(error.to_string()),
            });
            let fault = checked.map(|bytes| good = Some(bytes.into())).err();
            reply.send(RulesAnswer { stamp, rules: good.clone(), fault });
        }
    }

    /// Writes a file in one step, as tcprules does.
    fn write(path: &Path, text: &str) {
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    #[tokio::test]
    async fn a_change_counts_at_the_next_connection_and_garbage_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tcp.smtp");
        write(&path, "192.0.2.1:deny\n");
        let (port, inbox) = link();
        tokio::spawn(read(inbox, path.clone(), Arc::default()));
        let health = Health::default();
        let rules = ConnectionRules::new(port, health.clone(), Arc::new(SystemClock));
        let check = async |expected: &str, state: State| {
            let verdict = rules.verdict("192.0.2.1".parse().unwrap()).await.unwrap();
            let (key, denied) = (verdict.key.unwrap_or_default(), verdict.denied);
            assert_eq!(format!("{key} {denied}"), expected);
            let facts = health.facts();
            assert!(facts.is_empty() || facts[0].state == state, "{facts:?}");
        };
        check(" false", State::Ok).await;
        rules.set_file(Some(&path));
        check("192.0.2.1 true", State::Ok).await;
        write(&path, "192.0.2.:allow\n");
        check("192.0.2. false", State::Ok).await;
        // The same length, at once, and in place.
        std::fs::write(&path, "192.0.2.:deny \n").unwrap();
        check("192.0.2. true", State::Ok).await;
        write(&path, "192.0.2.:allow\nnonsense:\n");
        check("192.0.2. true", State::Fail).await;
        assert!(health.facts()[0].text.contains("line 2, column 10"), "{:?}", health.facts());
        std::fs::remove_file(&path).unwrap();
        check("192.0.2. true", State::Fail).await;
        write(&path, ":deny\n");
        check(" true", State::Ok).await;
        rules.set_file(None);
        check(" false", State::Ok).await;
    }

    #[tokio::test]
    async fn a_file_that_stays_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tcp.smtp");
        write(&path, ":deny\n");
        let (port, inbox) = link();
        let count = Arc::new(Mutex::new(0));
        tokio::spawn(read(inbox, path.clone(), count.clone()));
        // To a clock that is ahead the file has been as it is for long.
        let clock = TokioClock::starting_at(SystemClock.now() + FRESH * 2);
        let rules = ConnectionRules::new(port, Health::default(), Arc::new(clock));
        rules.set_file(Some(&path));
        for _ in 0..10 {
            assert!(rules.verdict("192.0.2.1".parse().unwrap()).await.unwrap().denied);
        }
        assert_eq!(*count.lock().await, 1);
    }

    /// To a clock that is behind, as one that was put back, the file has changed in the future.
    #[tokio::test(start_paused = true)]
    async fn a_file_of_the_future_is_read_until_it_has_stayed_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tcp.smtp");
        write(&path, ":deny\n");
        let (port, inbox) = link();
        let count = Arc::new(Mutex::new(0));
        tokio::spawn(read(inbox, path.clone(), count.clone()));
        let clock =
            TokioClock::starting_at(SystemClock.now().saturating_sub(Duration::from_hours(1)));
        let rules = ConnectionRules::new(port, Health::default(), Arc::new(clock));
        rules.set_file(Some(&path));
        let is_denied = async || rules.verdict("192.0.2.1".parse().unwrap()).await.unwrap().denied;
        assert!(is_denied().await);
        // The same length, within a tick of its clock.
        std::fs::write(&path, ":allow").unwrap();
        assert!(!is_denied().await);
        tokio::time::advance(FRESH).await;
        for _ in 0..10 {
            assert!(!is_denied().await);
        }
        let settled = *count.lock().await;
        assert!(settled <= 3, "read {settled} times");
        write(&path, ":deny\n");
        assert!(is_denied().await);
    }

    #[tokio::test]
    async fn a_time_that_a_program_gave_the_file_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tcp.smtp");
        write(&path, ":deny\n");
        let day = std::time::SystemTime::UNIX_EPOCH + SystemClock.now() + Duration::from_hours(24);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(day).unwrap();
        let (port, inbox) = link();
        let count = Arc::new(Mutex::new(0));
        tokio::spawn(read(inbox, path.clone(), count.clone()));
        let clock = TokioClock::starting_at(SystemClock.now() + FRESH * 2);
        let rules = ConnectionRules::new(port, Health::default(), Arc::new(clock));
        rules.set_file(Some(&path));
        for _ in 0..10 {
            assert!(rules.verdict("192.0.2.1".parse().unwrap()).await.unwrap().denied);
        }
        assert_eq!(*count.lock().await, 1);
    }

    #[tokio::test]
    async fn without_any_rules_nobody_is_let_in_or_denied() {
        let (port, inbox) = link();
        tokio::spawn(read(inbox, "/no/such/file".into(), Arc::default()));
        let rules = ConnectionRules::new(port, Health::default(), Arc::new(SystemClock));
        assert!(rules.are_known().await);
        rules.set_file(Some(Path::new("/no/such/file")));
        assert!(!rules.are_known().await);
        assert_eq!(rules.verdict("192.0.2.1".parse().unwrap()).await, None);
    }
}
