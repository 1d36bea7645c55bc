//! What `check` finds odd beyond the file itself: the files that it names, and where the state is.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lamppost_config::{Config, Problems, Remark, Secret, WhenAbsent};
use lamppost_database::Database;
use lamppost_disk::{FileSystem, file_system};
use lamppost_smtp::Address;

use crate::homes::{self, Home};
use crate::place::Opened;
use crate::{local_way, named_files, state_files};

/// All that is odd about a file that can be read, at its places; with what else the asker found.
///
/// The databases are not looked into: the supervisor, which asks too, reads nothing that roles write.
pub(crate) fn of(opened: &Opened, mut remarks: Vec<Remark>) -> Problems {
    remarks.extend(of_values(opened));
    remarks.extend(named_files::odd_certificate(&opened.config, &opened.hostname()));
    remarks.extend(state_folder(opened));
    remarks.extend(open_to_everybody(opened));
    let file = opened.file.as_deref().unwrap_or(Path::new("demo"));
    lamppost_config::placed(file, &opened.text, remarks)
}

/// What is odd about the values themselves: alone, and in view of this machine.
pub(super) fn of_values(opened: &Opened) -> Vec<Remark> {
    let config = &opened.config;
    let mut remarks = config.remarks();
    remarks.extend(named_files::remarks(config));
    remarks.extend(opened.file.iter().flat_map(|file| absent_credentials(file, config)));
    remarks.extend(absent_addresses(config));
    remarks.extend(unknown_users(config));
    remarks.extend(way_to_socket(opened));
    remarks
}

/// What is odd about files of others: of the rules, and of users who would get no mail. Those may hang, which
/// holds up a command and must not hold up the supervisor.
pub(super) fn of_others(config: &Config) -> Vec<Remark> {
    let mut remarks = named_files::odd_rules(config);
    remarks.extend(homes_of_users(config));
    remarks
}

/// What is odd about the users of the roles, if root is to begin the program; whoever else it is whose the
/// state is begins it.
pub(super) fn users(opened: &Opened) -> Option<(String, String)> {
    let is_anothers = state_files::other_owner(&opened.state).is_some();
    if is_anothers { None } else { crate::run::odd_users(opened) }
}

/// A folder that keeps local users from the socket by which they hand in mail.
fn way_to_socket(opened: &Opened) -> Option<Remark> {
    let (socket, folder) = (opened.submit_socket()?, local_way::barrier(opened)?);
    let (shown, socket) = (folder.display(), socket.display());
    let what = format!(
        "only root and the owner of {shown} can hand in mail by `sendmail`: nobody else may pass through \
         that folder to {socket}"
    );
    let cure = format!(
        "`chmod a+x {shown}` lets all pass and nobody look into it; or name a `socket` elsewhere in \
         [mail.sendmail], or set `enabled = false` there"
    );
    let is_named = opened.config.mail.sendmail.socket.is_some();
    let key = if is_named { "mail.sendmail.socket" } else { "server.state" };
    Some(Remark::warning(key, what, cure))
}

/// The secrets and the state that are not kept from others.
pub(super) fn open_to_everybody(opened: &Opened) -> Vec<Remark> {
    let mut remarks = named_files::open_secrets(&opened.config);
    remarks.extend(open_state(opened));
    remarks
}

/// Credentials that only systemd's units have, and that were not looked at.
fn absent_credentials(file: &Path, config: &Config) -> Vec<Remark> {
    let mut secrets = Vec::new();
    if let Some((certificate, key)) = &config.tls.files {
        secrets.extend([("tls.certificate", certificate), ("tls.key", key)]);
    }
    let login = config.mail.relay.login.as_ref();
    secrets.extend(login.map(|(_, password)| ("mail.relay.password", password)));
    let password = config.mail.greylist.database_password.as_ref();
    secrets.extend(password.map(|password| ("mail.greylist.database-password", password)));
    let absent = secrets.into_iter().filter_map(|(key, secret)| match secret {
        Secret::Credential(name) if secret.path().is_none() => {
            let what =
                format!("the credential {name} is not looked at: only systemd's units have it");
            let cure = format!(
                "`systemd-run -P -p LoadCredential={name}:SECRET lamppost check {}` has it, with the \
                 secret's own path for SECRET",
                std::path::absolute(file).unwrap_or(file.to_owned()).display()
            );
            Some(Remark::warning(key, what, cure))
        }
        _ => None,
    });
    absent.collect()
}

/// Where acknowledged mail would not survive a power cut.
pub(super) fn state_folder(opened: &Opened) -> Option<Remark> {
    let Opened { state, config, .. } = opened;
    // A folder that is not there yet will be on the file system of the one above it.
    let there = state.ancestors().find(|folder| folder.exists())?;
    let accepted = config.mail.queue.accept_volatile;
    let found = file_system(there).ok()?;
    let (what, cure) = match found {
        FileSystem::Memory if !accepted => (
            "in memory (tmpfs), which goes with a power cut: `lamppost run` refuses it",
            "name a folder on a disk, or set `accept-volatile = true` in `[mail.queue]`",
        ),
        FileSystem::Network if !accepted => (
            "on another machine, whose promises nobody knows: `lamppost run` refuses it",
            "name a folder on a disk, or set `accept-volatile = true` in `[mail.queue]`",
        ),
        FileSystem::Overlay if !accepted => (
            "on a container's layers, which go with the container",
            "name a folder on a volume, or set `accept-volatile = true` in `[mail.queue]`",
        ),
        _ => return None,
    };
    let what = format!("the state folder {} is {what}", state.display());
    Some(match found {
        FileSystem::Memory | FileSystem::Network => Remark::error("server.state", what, cure),
        _ => Remark::warning("server.state", what, cure),
    })
}

/// A state folder into which everybody may look. To pass through is allowed to all where each role has a user
/// of its own, or local users hand in mail; what is in it is each role's alone.
fn open_state(opened: &Opened) -> Option<Remark> {
    let mode = std::fs::metadata(&opened.state).ok()?.permissions().mode();
    let state = opened.state.display();
    (mode & 0o006 != 0).then(|| {
        let what = format!("everybody on this machine may look into the state folder {state}");
        let cure = format!("`chmod {:o} {state}`", local_way::state_mode(opened));
        Remark::warning("server.state", what, cure)
    })
}

/// Addresses without which the program does not start here.
fn absent_addresses(config: &Config) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut look = |address: IpAddr, key: String, wait: &str| {
        if !is_here(address) {
            let what =
                format!("this machine does not have {address}: `lamppost run` does not start");
            let cure = format!("`ip address` lists those that it has: correct the address{wait}");
            remarks.push(Remark::error(&key, what, cure));
        }
    };
    for (number, listen) in config.mail.listen.iter().enumerate() {
        let needed = listen.when_absent == WhenAbsent::Fail;
        for (position, address) in listen.address.iter().enumerate().filter(|_| needed) {
            let wait = ", or set `when-absent = \"wait\"`, which listens once it appears";
            look(address.ip(), format!("mail.listen.{number}.address.{position}"), wait);
        }
    }
    for (number, address) in config.metrics.listen.iter().enumerate() {
        look(address.ip(), format!("metrics.listen.{number}"), "");
    }
    remarks
}

/// Whether this machine has an address: only then can a socket be bound to it.
pub(super) fn is_here(address: IpAddr) -> bool {
    // A port of its own, of another protocol: nothing that listens is in the way.
    let bound = UdpSocket::bind((address, 0)).map_err(|error| error.kind());
    !bound.is_err_and(|kind| kind == ErrorKind::AddrNotAvailable)
}

/// Trusted users whom this machine does not list: they would not be trusted.
fn unknown_users(config: &Config) -> Vec<Remark> {
    let users = config.mail.sendmail.trusted_users.iter().enumerate();
    let unknown = users.filter(|(_, user)| !lamppost_net::is_user(user)).map(|(number, user)| {
        let what = format!("/etc/passwd lists no user {user}: nobody is trusted by that name");
        let key = format!("mail.sendmail.trusted-users.{number}");
        Remark::warning(&key, what, "correct the name, or leave it out")
    });
    unknown.collect()
}

/// Users of `[mail.system-users]` who would get no mail here.
fn homes_of_users(config: &Config) -> Vec<Remark> {
    /// Homes that are named one by one.
    const NAMED_MAX: usize = 5;
    let users = &config.mail.system_users;
    if users.domains.is_empty() {
        return Vec::new();
    }
    let warning =
        |what: String, cure: String| Remark::warning("mail.system-users.domains", what, cure);
    let mut remarks = Vec::new();
    let own = rustix::process::geteuid();
    if !own.is_root() {
        let me = state_files::name(own.as_raw());
        let what = format!(
            "only root can write into homes of others: started by {me}, it serves {me} alone"
        );
        remarks.push(warning(what, "start `lamppost run` as root".into()));
    }
    let listed = lamppost_net::listed_users().unwrap_or_default();
    let served: Vec<_> = listed.iter().filter(|user| homes::is_served(user, users)).collect();
    if served.is_empty() {
        let what = format!("/etc/passwd lists no user from {} on who gets mail", users.uid_min);
        remarks.push(warning(what, "lower `uid-min`, or leave the section out".into()));
    }
    let unfit: Vec<_> = served
        .iter()
        .filter_map(|user| match homes::look(user) {
            Home::Unfit { what, cure } => Some((what, cure)),
            Home::Nowhere => None,
            Home::Fit => homes::closed_above(user).map(|folder| {
                let (name, folder) = (&user.name, folder.display());
                let what = format!("{name} may not pass through {folder} to its home");
                (what, format!("`chmod o+x {folder}`"))
            }),
        })
        .collect();
    let more = unfit.len().saturating_sub(NAMED_MAX);
    remarks.extend(
        unfit
            .into_iter()
            .take(NAMED_MAX)
            .map(|(what, cure)| warning(format!("{what}: mail for it waits"), cure)),
    );
    if more > 0 {
        let what = format!("{more} more homes take no mail now");
        remarks.push(warning(what, "see to those above, and check again".into()));
    }
    remarks
}

/// A postmaster without an account, as far as this user may read the accounts.
pub(super) async fn unknown_postmaster(opened: &Opened) -> Option<Remark> {
    let mail = &opened.config.mail;
    let postmaster: Address = mail.postmaster.as_ref()?.parse().ok()?;
    // Users of this machine have no account.
    if mail.system_users.domains.contains(&postmaster.domain().to_lowercase()) {
        return None;
    }
    let database = Database::open_to_read(&opened.accounts()).ok()?;
    let accounts = lamppost_accounts::listed(&database).await.ok()?;
    let is_postmaster =
        |account: &Address| account.as_str().eq_ignore_ascii_case(postmaster.as_str());
    if accounts.iter().any(is_postmaster) {
        return None;
    }
    let what = format!("there is no account {postmaster}: mail to postmaster has nowhere to go");
    let cure =
        format!("`lamppost account add {postmaster}` makes it; or name an account that is there");
    Some(Remark::warning("mail.postmaster", what, cure))
}
