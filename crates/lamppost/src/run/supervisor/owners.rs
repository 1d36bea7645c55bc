//! Processes that become users of this machine, and what others may know of those users.
//!
//! Delivery asks for a process by the number of a user and nothing else; all that the process is told comes
//! from the list of users and from the configuration.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use lamppost_config::SystemUsers;
use lamppost_net::link::Inbox;
use lamppost_net::{ListedUser, listed_users, send_descriptor, user_name, users_changed};
use lamppost_roles::{
    OwnerAnswer, OwnerRequest, SystemUser, UserAnswer, UserMailbox, UserName, UserRequest,
};
use lamppost_sandbox::User;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::group::{memory, spawn, told};
use crate::homes::{self, Home};
use crate::run::role::{OwnerSetup, Role};
use crate::run::setup::Setup;

/// How long a home may take to be looked at.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// What is the matter with a list of users that cannot be whole.
const CUT: &str = "/etc/passwd lists no user of the number 0: is it whole?";
/// How long a process that was killed may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// Homes that may be without an answer at once, each with a thread that waits: the threads are for others too.
const LOOKS_MAX: usize = 32;
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The processes of users, whichever roles asked for them; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Owners {
    /// By the number of the user, until they are known to have ended.
    processes: Arc<Mutex<HashMap<u32, Owned>>>,
    list: Arc<Mutex<List>>,
    looks: Arc<Mutex<HashMap<u32, Look>>>,
    threads: Arc<Threads>,
    numbers: Arc<AtomicU32>,
}

/// A process of a user.
struct Owned {
    child: Child,
    /// Its asker does without it.
    is_dropped: bool,
}

impl Owned {
    fn end(&mut self) {
        self.is_dropped = true;
        drop(self.child.kill());
    }
}

/// The machine's list of users as it was read last.
#[derive(Default)]
struct List {
    state: Option<(u64, u64, i64, i64)>,
    users: Arc<Users>,
}

/// Users by name in lower case, and by number; the first of several counts, as in getpwnam(3) and getpwuid(3).
#[derive(Default)]
struct Users {
    by_name: HashMap<String, ListedUser>,
    by_uid: HashMap<u32, String>,
}

/// What homes are looked at by.
struct Threads(Semaphore);

impl Default for Threads {
    fn default() -> Self {
        Self(Semaphore::new(LOOKS_MAX))
    }
}

/// Somebody looks at a home.
struct Look {
    begun: Instant,
    seen: Shared<BoxFuture<'static, Home>>,
}

/// Users as a group of roles is told of them.
struct Service {
    owners: Owners,
    setup: Setup,
    users: SystemUsers,
    /// Where delivery gets descriptors.
    handed: UnixStream,
}

/// What roles ask by, and where delivery gets descriptors.
pub(super) struct Asked {
    pub(super) users: Inbox<UserRequest, UserAnswer>,
    pub(super) owners: Inbox<OwnerRequest, OwnerAnswer>,
    pub(super) handed: UnixStream,
}

impl Owners {
    /// Answers the roles of a group until they are gone.
    pub(super) fn serve(&self, setup: &Setup, asked: Asked) -> io::Result<()> {
        let config =
            setup.config().map_err(|failure| io::Error::other(failure.text().to_owned()))?;
        let Asked { mut users, mut owners, handed } = asked;
        // Delivery must not make the supervisor wait by not taking what it is sent.
        handed.set_nonblocking(true)?;
        let service = Arc::new(Service {
            owners: self.clone(),
            setup: setup.without_secrets(),
            users: config.mail.system_users,
            handed,
        });
        let policy = service.clone();
        tokio::spawn(async move {
            while let Some((question, reply)) = users.next().await {
                let service = policy.clone();
                tokio::spawn(async move {
                    reply.send(match question {
                        UserRequest::Name(uid) => UserAnswer::Name(user_name(uid)),
                        UserRequest::Mailbox(name) => {
                            UserAnswer::Mailbox(service.mailbox(name).await)
                        }
                    });
                });
            }
        });
        tokio::spawn(async move {
            while let Some((question, reply)) = owners.next().await {
                let service = service.clone();
                tokio::spawn(async move {
                    reply.send(match question {
                        OwnerRequest::Mailbox(name) => {
                            OwnerAnswer::Mailbox(service.mailbox(name).await)
                        }
                        OwnerRequest::Dropped { uid, pid } => {
                            service.owners.dropped(uid, pid).await;
                            OwnerAnswer::Dropped
                        }
                        OwnerRequest::Process(uid) => match service.process(uid).await {
                            Ok(started) => started,
                            Err(reason) => {
                                warn!(uid, reason, "no process is started for a user");
                                OwnerAnswer::Refused(reason)
                            }
                        },
                    });
                });
            }
        });
        Ok(())
    }

    /// Takes note of processes that have ended, from now on.
    pub(super) fn watch(&self) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        let owners = self.clone();
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                owners.reap();
            }
        });
        Ok(())
    }

    fn reap(&self) {
        self.processes.lock().retain(|uid, owned| {
            let Ok(Some(status)) = owned.child.try_wait() else { return true };
            if status.success() || owned.is_dropped {
                debug!(uid, "the process of a user has ended");
            } else {
                warn!(uid, reason = told(status), "the process of a user ended");
            }
            false
        });
    }

    /// Ends all processes, whose askers are gone.
    pub(super) async fn end(&self) {
        for owned in self.processes.lock().values_mut() {
            owned.end();
        }
        self.wait_until(HashMap::is_empty).await;
    }

    /// Ends a process that its asker does without.
    async fn dropped(&self, uid: u32, pid: u32) {
        let is_it = |owned: &Owned| owned.child.id() == pid;
        if let Some(owned) = self.processes.lock().get_mut(&uid).filter(|owned| is_it(owned)) {
            owned.end();
        }
        self.wait_until(|processes| !processes.get(&uid).is_some_and(is_it)).await;
    }

    /// Waits a moment until processes have ended; tells whether they have.
    async fn wait_until(&self, have: impl Fn(&HashMap<u32, Owned>) -> bool) -> bool {
        let begun = Instant::now();
        loop {
            self.reap();
            if have(&self.processes.lock()) {
                return true;
            }
            if begun.elapsed() > ENDS_WITHIN {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The users that the machine lists now.
    fn listed(&self) -> io::Result<Arc<Users>> {
        let state = users_changed()?;
        let mut list = self.list.lock();
        if list.state != Some(state) {
            let mut users = Users::default();
            for user in listed_users()? {
                users.add(user);
            }
            // Somebody is writing it, or cut it: it tells of nobody that there is none.
            if !users.by_uid.contains_key(&0) {
                return Err(io::Error::other(CUT));
            }
            *list = List { state: Some(state), users: Arc::new(users) };
        }
        Ok(list.users.clone())
    }

    /// Looks at a home. One that does not answer holds up one thread, and nobody for longer than a moment.
    async fn look(&self, user: &ListedUser) -> Home {
        let seen = {
            let mut looks = self.looks.lock();
            match looks.get(&user.uid) {
                Some(look) if look.begun.elapsed() > LOOK_WITHIN => return silent(user),
                Some(look) => look.seen.clone(),
                None if is_full(&looks) => return unseen(user),
                None => {
                    let seen = self.seen(user);
                    let look = Look { begun: Instant::now(), seen: seen.clone() };
                    looks.insert(user.uid, look);
                    // Whoever waits for it may give up.
                    tokio::spawn(seen.clone());
                    seen
                }
            }
        };
        timeout(LOOK_WITHIN, seen).await.unwrap_or_else(|_| silent(user))
    }

    fn seen(&self, user: &ListedUser) -> Shared<BoxFuture<'static, Home>> {
        let (looks, threads, user) = (self.looks.clone(), self.threads.clone(), user.clone());
        let seeing = async move {
            let looked_at = user.clone();
            // Where many are looked at at once each has its turn.
            let _thread = threads.0.acquire().await;
            let looking = tokio::task::spawn_blocking(move || homes::look(&looked_at)).await;
            looks.lock().remove(&user.uid);
            looking.unwrap_or_else(|_| silent(&user))
        };
        seeing.boxed().shared()
    }
}

/// Whether as many homes as may be do not answer.
fn is_full(looks: &HashMap<u32, Look>) -> bool {
    looks.values().filter(|look| look.begun.elapsed() > LOOK_WITHIN).count() >= LOOKS_MAX
}

fn unseen(user: &ListedUser) -> Home {
    let what =
        format!("the home of {} is not looked at: {LOOKS_MAX} others do not answer", user.name);
    Home::Unfit { what, cure: "are their disks there?".into() }
}

fn silent(user: &ListedUser) -> Home {
    let what = format!("the home {} of {} does not answer", user.home.display(), user.name);
    Home::Unfit { what, cure: "is its disk there?".into() }
}

impl Users {
    fn add(&mut self, user: ListedUser) {
        let name = user.name.to_lowercase();
        self.by_uid.entry(user.uid).or_insert_with(|| name.clone());
        self.by_name.entry(name).or_insert(user);
    }

    fn of_name(&self, name: &str) -> Option<&ListedUser> {
        let user = self.by_name.get(name)?;
        // Several names of one number have one mailbox: that of the first.
        (self.by_uid.get(&user.uid)? == name).then_some(user)
    }

    fn of_uid(&self, uid: u32) -> Option<&ListedUser> {
        // A name that differs in case alone is the other's.
        self.by_name.get(self.by_uid.get(&uid)?).filter(|user| user.uid == uid)
    }
}

impl Service {
    /// Whether a user gets mail.
    async fn mailbox(&self, name: UserName) -> UserMailbox {
        let listed = match self.owners.listed() {
            Ok(listed) => listed,
            Err(error) => {
                return UserMailbox::Away(format!("the list of users cannot be read: {error}"));
            }
        };
        let user = listed.of_name(name.as_str()).filter(|one| homes::is_served(one, &self.users));
        let Some(user) = user else { return UserMailbox::Unknown };
        if let Err(reason) = becomes(user) {
            return UserMailbox::Away(reason);
        }
        match self.owners.look(user).await {
            Home::Fit => {
                let mut listed = DefaultHasher::new();
                user.hash(&mut listed);
                UserMailbox::Here(SystemUser { uid: user.uid, listed: listed.finish() })
            }
            Home::Nowhere => UserMailbox::Unknown,
            Home::Unfit { what, cure } => UserMailbox::Away(format!("{what} ({cure})")),
        }
    }

    /// Starts a process as a user, if that one may have any.
    async fn process(&self, uid: u32) -> Result<OwnerAnswer, String> {
        let listed = self.owners.listed();
        let listed =
            listed.map_err(|error| format!("the list of users cannot be read: {error}"))?;
        let user = listed.of_uid(uid).filter(|user| homes::is_served(user, &self.users));
        let user = user.ok_or_else(|| format!("no user of the number {uid} gets mail here"))?;
        let user_to_become = becomes(user)?;
        // One that its asker does without, as it does not answer, must not meet its successor's files.
        if let Some(owned) = self.owners.processes.lock().get_mut(&uid) {
            owned.end();
        }
        if !self.owners.wait_until(|processes| !processes.contains_key(&uid)).await {
            let name = &user.name;
            return Err(format!(
                "a process of {name} does not end: is the disk of the home there?"
            ));
        }
        let most = self.users.processes_max;
        if !self.owners.wait_until(|processes| processes.len() < most).await {
            return Err("processes-max in [mail.system-users] processes are at work".into());
        }
        self.start(user, user_to_become)
            .map_err(|error| format!("no process can be started: {error}"))
    }

    fn start(&self, user: &ListedUser, user_to_become: Option<User>) -> io::Result<OwnerAnswer> {
        let (our_work, work) = UnixStream::pair()?;
        let (our_questions, questions) = UnixStream::pair()?;
        let told = OwnerSetup {
            user: user_to_become,
            name: user.name.clone(),
            uid: user.uid,
            home: user.home.clone(),
        };
        let gifts = vec![
            ("setup".to_owned(), memory(&self.setup)?),
            ("owner".to_owned(), memory(&told)?),
            ("work".to_owned(), work.into()),
            ("questions".to_owned(), questions.into()),
        ];
        let mut processes = self.owners.processes.lock();
        if processes.contains_key(&user.uid) {
            return Err(io::Error::other("another was started meanwhile"));
        }
        let child = spawn(Role::User, gifts)?;
        let pid = child.id();
        processes.insert(user.uid, Owned { child, is_dropped: false });
        drop(processes);
        let work = self.owners.numbers.fetch_add(2, Ordering::Relaxed);
        let questions = work.wrapping_add(1);
        // What cannot be sent ends the process, whose links are closed with this.
        send_descriptor(&self.handed, work, our_work.as_fd())?;
        send_descriptor(&self.handed, questions, our_questions.as_fd())?;
        Ok(OwnerAnswer::Started { pid, work, questions })
    }
}

/// Whom a process for this user must become; nobody where this program runs as the user already.
fn becomes(user: &ListedUser) -> Result<Option<User>, String> {
    let own = rustix::process::geteuid();
    if own.is_root() {
        return Ok(Some(User { uid: user.uid, gid: user.gid }));
    }
    if own.as_raw() == user.uid {
        return Ok(None);
    }
    let name = &user.name;
    Err(format!(
        "only root can write into the home of {name}, and this program runs as another user"
    ))
}

#[cfg(test)]
mod tests {
    use lamppost_config::Config;

    use super::*;
    use crate::run::setup::NamedBy;
    use crate::run::users::Users as RoleUsers;

    fn service(lines: &str) -> Service {
        let text = format!("[mail.system-users]\n{lines}\n");
        let setup = Setup {
            file: Some(("lamppost.toml".into(), text)),
            newer: None,
            state: "/nonexistent".into(),
            state_named_by: NamedBy::Nobody,
            users: RoleUsers::Same,
            control_group: None,
            hostname: "mail.lamppost.test".into(),
            name_servers: Vec::new(),
            submit_socket: None,
            pem: None,
            relay_password: None,
            relay_trust: None,
            greylist: None,
        };
        let users: Config = setup.config().unwrap();
        let (handed, _) = UnixStream::pair().unwrap();
        Service { owners: Owners::default(), users: users.mail.system_users, setup, handed }
    }

    #[track_caller]
    fn name(text: &str) -> UserName {
        UserName::of(text).unwrap()
    }

    /// Whoever got into delivery may ask for anybody.
    #[tokio::test]
    async fn no_process_becomes_root_a_daemon_or_somebody_whom_nobody_lists() {
        const ON: &str = "domains = [\"users.test\"]";
        let all = format!("{ON}\nuid-min = 1\nexcept = [\"nobody\"]");
        for (lines, uids) in [
            (all.as_str(), &[0, u32::MAX, u32::MAX - 1, 65_534][..]),
            (ON, &[0, 1, 2, 33, 999]),
            ("domains = []\nuid-min = 1\nexcept = []", &[0, 1, 65_534]),
        ] {
            let service = service(lines);
            for &uid in uids {
                let refused = service.process(uid).await.unwrap_err();
                assert!(refused.contains("gets mail here"), "{uid}: {refused}");
                assert!(service.owners.processes.lock().is_empty());
            }
        }
    }

    #[tokio::test]
    async fn root_and_daemons_get_no_mail() {
        let service = service("domains = [\"users.test\"]");
        for user in ["root", "daemon", "nobody", "no-such-user"] {
            assert_eq!(service.mailbox(name(user)).await, UserMailbox::Unknown, "{user}");
        }
    }

    #[test]
    fn the_first_name_of_a_number_is_the_user() {
        let user = |name: &str, uid| ListedUser {
            name: name.into(),
            uid,
            gid: uid,
            home: format!("/home/{name}").into(),
        };
        let mut users = Users::default();
        for one in [user("Alice", 1000), user("ftp", 1000), user("alice", 1001), user("bob", 1002)]
        {
            users.add(one);
        }
        let uid = |name: &str| users.of_name(name).map(|user| user.uid);
        assert_eq!((uid("alice"), uid("ftp"), uid("bob")), (Some(1000), None, Some(1002)));
        assert_eq!(users.of_uid(1000).unwrap().name, "Alice");
        // Its name is another user's, who would get its mail.
        assert_eq!(users.of_uid(1001), None);
    }
    #[tokio::test]
    async fn homes_that_do_not_answer_take_no_more_threads_than_are_theirs() {
        let owners = Owners::default();
        let begun = Instant::now().checked_sub(LOOK_WITHIN * 2).unwrap();
        let user = |uid: u32| ListedUser {
            name: format!("user{uid}"),
            uid,
            gid: uid,
            home: "/nonexistent".into(),
        };
        for uid in 0..u32::try_from(LOOKS_MAX).unwrap() {
            assert_eq!(owners.look(&user(1000)).await, Home::Nowhere, "{uid}");
            let seen = futures_util::future::pending().boxed().shared();
            owners.looks.lock().insert(uid, Look { begun, seen });
        }
        let Home::Unfit { what, .. } = owners.look(&user(1000)).await else { panic!() };
        assert!(what.contains("user1000 is not looked at: 32 others"), "{what}");
    }
}
