//! Whether delivery can write the Maildirs: tried as the user that it really is, with no more power than it has.

use std::path::{Path, PathBuf};

use lamppost_console::HostStatus;
use lamppost_database::Database;
use lamppost_sandbox::User;
use lamppost_smtp::Address;
use rustix::fs::{Access, access};

use super::Finding;
use crate::command::out;
use crate::place::Opened;
use crate::state_files;

const AREA: &str = "mailboxes";

/// A folder that stops delivery, and whose mail waits for that.
struct Closed {
    folder: PathBuf,
    why: String,
    first: Address,
    accounts: u64,
}

/// Looks at the Maildirs of all accounts, as far as this user may.
pub(super) async fn look(opened: &Opened, host: Option<&HostStatus>) -> Vec<Finding> {
    let Some(template) = crate::run::maildir_template(opened) else { return Vec::new() };
    let user = host.and_then(delivery).unwrap_or_else(|| crate::run::delivery_user(opened));
    let name = state_files::name(user.uid);
    let asker = rustix::process::geteuid();
    if !asker.is_root() && asker.as_raw() != user.uid {
        let what = format!("whether {name}, as whom mail is delivered, can write them is not seen");
        return vec![Finding::warn(AREA, what, "run this as root")];
    }
    let accounts = match Database::open_to_read(&opened.accounts()) {
        Ok(database) => lamppost_accounts::listed(&database).await.unwrap_or_default(),
        // What is wrong with it is told with the databases.
        Err(_) => Vec::new(),
    };
    let maildirs: Vec<_> =
        accounts.into_iter().map(|account| (template.path(&account), account)).collect();
    let count = maildirs.len() as u64;
    // What a start gives to the users of the roles is not theirs before.
    let is_given = host.is_none() && asker.is_root() && crate::run::odd_users(opened).is_none();
    let Some(mut closed) = as_user(user, asker.is_root(), move || closed(maildirs)) else {
        let what = format!("it cannot be tried whether {name} can write them");
        return vec![Finding::warn(
            AREA,
            what,
            "run this as root, where capabilities may be given up",
        )];
    };
    closed.retain(|closed| !(is_given && closed.folder.starts_with(&opened.state)));
    if closed.is_empty() {
        let accounts = out::count(count, "account");
        let what = format!("{name} can write the Maildirs of {accounts}");
        return if count == 0 { Vec::new() } else { vec![Finding::ok(AREA, what)] };
    }
    closed.into_iter().map(|closed| finding(&name, &closed)).collect()
}

/// The user of the delivery role that runs.
fn delivery(host: &HostStatus) -> Option<User> {
    let role = host.roles.iter().find(|role| role.name == "delivery")?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", role.pid)).ok()?;
    let id = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some(User { uid: id("Uid:")?, gid: id("Gid:")? })
}

/// Does something in a thread that is this user and nobody more; nothing when there can be none.
fn as_user<T: Send + 'static>(
    user: User,
    is_root: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let become_it = move || !is_root || user.become_it().is_ok();
    let thread = std::thread::Builder::new().spawn(move || become_it().then(work)).ok()?;
    thread.join().ok().flatten()
}

/// The folders that stop this thread's user, each once.
fn closed(maildirs: Vec<(PathBuf, Address)>) -> Vec<Closed> {
    let mut found: Vec<Closed> = Vec::new();
    for (maildir, account) in maildirs {
        let Some((folder, why)) = stop(&maildir) else { continue };
        match found.iter_mut().find(|closed| closed.folder == folder) {
            Some(closed) => closed.accounts += 1,
            None => found.push(Closed { folder, why, first: account, accounts: 1 }),
        }
    }
    found
}

/// What keeps mail from a Maildir: a folder that cannot be entered, or written where that must be.
fn stop(maildir: &Path) -> Option<(PathBuf, String)> {
    let refused = |path: &Path, rights| access(path, rights).err().map(std::io::Error::from);
    let into = Access::WRITE_OK | Access::EXEC_OK;
    for inner in ["tmp", "new"] {
        let folder = maildir.join(inner);
        let mut way: Vec<_> = folder.ancestors().collect();
        way.reverse();
        let mut last = Path::new("/");
        for step in way {
            match refused(step, Access::EXISTS) {
                None => last = step,
                Some(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Some(error) => return Some((last.to_owned(), error.to_string())),
            }
        }
        // It makes what is not there yet, and writes into the last that is.
        if let Some(error) = refused(last, into) {
            return Some((last.to_owned(), error.to_string()));
        }
    }
    None
}

fn finding(user: &str, closed: &Closed) -> Finding {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let Closed { folder, why, first, accounts } = closed;
    let shown = folder.display();
    let whose = folder.metadata().map_or_else(
        |_| String::new(),
        |found| {
            let (owner, mode) = (state_files::name(found.uid()), found.permissions().mode());
            format!(" ({owner}'s, mode {:04o})", mode & 0o7777)
        },
    );
    let others = match accounts - 1 {
        0 => String::new(),
        others => format!(" and {}", out::count(others, "other account")),
    };
    let what = format!(
        "{user}, as whom mail is delivered, cannot write into {shown}{whose}: {why}; mail to {first}{others} waits"
    );
    let cure = format!(
        "`chown {user} {shown}` or `setfacl -m u:{user}:rwx {shown}`; or name another `maildir` in [mail]"
    );
    Finding::fail(AREA, what, cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_that_stops_delivery_is_found() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("mail/a.test/ada/Maildir/tmp")).unwrap();
        std::fs::create_dir_all(path("mail/a.test/bob")).unwrap();
        let set = |name: &str, mode| {
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let stops = |name: &str| {
            let maildir = path(name);
            let uid = rustix::process::geteuid();
            let gid = rustix::process::getegid().as_raw();
            let user = User { uid: uid.as_raw(), gid };
            as_user(user, uid.is_root(), move || stop(&maildir)).unwrap().map(|(folder, _)| folder)
        };
        for name in
            ["mail/a.test/ada/Maildir", "mail/a.test/bob/Maildir", "mail/c.test/cyd/Maildir"]
        {
            assert_eq!(stops(name), None, "{name}");
        }
        set("mail/a.test/ada/Maildir/tmp", 0o500);
        assert_eq!(stops("mail/a.test/ada/Maildir"), Some(path("mail/a.test/ada/Maildir/tmp")));
        set("mail/a.test/bob", 0o500);
        assert_eq!(stops("mail/a.test/bob/Maildir"), Some(path("mail/a.test/bob")));
        set("mail/a.test", 0o600);
        assert_eq!(stops("mail/a.test/bob/Maildir"), Some(path("mail/a.test")));
        set("mail/a.test", 0o700);
    }
}
