//! What each role may touch: the one table of it, which docs/concepts/security.md shows.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use lamppost_config::{Config, GreylistDatabase};
use lamppost_sandbox::{Power, SandboxError, Sockets};

use super::{Role, mail_folders};
use crate::run::settings;
use crate::state_files;

/// Files that a role may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    /// Accounts and the greylist.
    Databases,
    Spool,
    Maildirs,
    OutcomeLog,
    /// The one that a process finds in the home of its user.
    OwnMaildir,
    /// What finding another host by name, and believing its certificate, takes.
    NamesAndAuthorities,
}

/// What a role may touch, beside the descriptors that it is given.
struct Row {
    role: Role,
    reads: &'static [Files],
    writes: &'static [Files],
    sockets: Makes,
}

/// Sockets that a role makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Makes {
    Nothing,
    /// To name servers, where there is something to ask them, and to the greylist's database, where several
    /// servers share one.
    ToServers,
    ToOtherHosts,
}

const TABLE: [Row; 6] = [
    Row { role: Role::Front, reads: &[], writes: &[], sockets: Makes::Nothing },
    Row { role: Role::Policy, reads: &[], writes: &[Files::Databases], sockets: Makes::ToServers },
    Row { role: Role::Queue, reads: &[], writes: &[Files::Spool], sockets: Makes::Nothing },
    Row {
        role: Role::Delivery,
        reads: &[Files::NamesAndAuthorities],
        writes: &[Files::Maildirs],
        sockets: Makes::ToOtherHosts,
    },
    Row { role: Role::Control, reads: &[], writes: &[Files::OutcomeLog], sockets: Makes::Nothing },
    Row { role: Role::User, reads: &[], writes: &[Files::OwnMaildir], sockets: Makes::Nothing },
];

/// What [`Files::NamesAndAuthorities`] is, as far as a machine has it: the C library's way to names, and
/// certificates.
const NAMES_AND_AUTHORITIES: [&str; 12] = [
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ssl",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/run/systemd/resolve",
    "/usr/lib",
    "/lib",
];

/// What a role may touch from now on.
pub(super) fn of(role: Role, config: &Config, state: &Path) -> Power {
    let mut power = Power::default();
    if let Some(row) = TABLE.iter().find(|row| row.role == role) {
        let paths = |files: &[Files]| {
            files.iter().flat_map(|files| files.paths(config, state)).collect::<Vec<_>>()
        };
        let (reads, writes) = (paths(row.reads), paths(row.writes));
        let sockets = row.sockets.sockets(config);
        power = Power { reads, writes, makes: Vec::new(), sockets };
    }
    power
}

/// Whether a role may touch other things than before. None can take back what it gave up.
pub(in crate::run) fn is_power_new(old: &Config, new: &Config) -> bool {
    Makes::ToServers.sockets(old) != Makes::ToServers.sockets(new)
}

/// The folders that a role writes.
pub(in crate::run) fn folders(role: Role, config: &Config, state: &Path) -> Vec<PathBuf> {
    of(role, config, state).writes
}

/// The folders that a role writes and that the configuration itself names: none that links lead to.
pub(in crate::run) fn own_folders(role: Role, config: &Config, state: &Path) -> Vec<PathBuf> {
    match role {
        Role::Delivery => vec![mail_folders::above(&settings::maildir(config, state))],
        role => folders(role, config, state),
    }
}

impl Makes {
    fn sockets(self, config: &Config) -> Sockets {
        match self {
            Self::ToServers => {
                let mut ports = Vec::new();
                if settings::asks_name_servers(config) {
                    ports.extend(config.dns.servers.iter().map(SocketAddr::port));
                    if ports.is_empty() {
                        ports.push(lamppost_dns::PORT);
                    }
                }
                let mut here = false;
                match &config.mail.greylist.database {
                    GreylistDatabase::Shared(shared) if shared.socket.is_some() => here = true,
                    GreylistDatabase::Shared(shared) => ports.push(shared.port),
                    GreylistDatabase::State | GreylistDatabase::File(_) => {}
                }
                if ports.is_empty() && !here {
                    return Sockets::None;
                }
                Sockets::Ask { ports, here }
            }
            Self::Nothing => Sockets::None,
            Self::ToOtherHosts => Sockets::Connect,
        }
    }
}

/// The folder because of which a role could not get at its own: it is another user's, and lets nobody pass.
pub(super) fn barrier(error: &SandboxError) -> Option<&Path> {
    let SandboxError::Path { path, .. } = error else { return None };
    let user = rustix::process::geteuid().as_raw();
    let above: Vec<_> = path.ancestors().skip(1).collect();
    above.into_iter().rev().find(|folder| {
        let closed = |found: &std::fs::Metadata| found.permissions().mode() & 0o001 == 0;
        folder.metadata().is_ok_and(|found| closed(&found) && found.uid() != user)
    })
}

impl Files {
    fn paths(self, config: &Config, state: &Path) -> Vec<PathBuf> {
        match self {
            Self::Databases => {
                let mut folders = vec![state_files::databases(state)];
                if let GreylistDatabase::File(file) = &config.mail.greylist.database {
                    folders.extend(file.parent().map(Path::to_owned));
                }
                folders
            }
            Self::Spool => vec![state.join("spool")],
            Self::Maildirs => mail_folders::folders(&settings::maildir(config, state), state),
            Self::OutcomeLog => vec![state.join("log")],
            // The configuration does not tell whose it is.
            Self::OwnMaildir => Vec::new(),
            Self::NamesAndAuthorities => {
                let paths = NAMES_AND_AUTHORITIES.into_iter().map(PathBuf::from);
                paths.filter(|path| path.exists()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Files {
        fn words(self) -> &'static str {
            match self {
                Self::Databases => {
                    "accounts and the greylist (`STATE/policy`, `database` in `[mail.greylist]`)"
                }
                Self::Spool => "the spool (`STATE/spool`)",
                Self::Maildirs => "all Maildirs (`maildir` in `[mail]`)",
                Self::OutcomeLog => "the outcome log (`STATE/log`)",
                Self::OwnMaildir => "its user's Maildir (`[mail.system-users]`)",
                Self::NamesAndAuthorities => "what names of hosts and certificates take",
            }
        }
    }

    #[test]
    fn the_document_shows_the_table() {
        let document = include_str!("../../../../../docs/concepts/security.md");
        let words = |files: &[Files]| match files {
            [] => "nothing".to_owned(),
            files => files.iter().map(|files| files.words()).collect::<Vec<_>>().join(", "),
        };
        for Row { role, reads, writes, sockets } in TABLE {
            let sockets = match sockets {
                Makes::Nothing => "none",
                Makes::ToServers => {
                    "to ask name servers, where there is something to ask them, and the greylist's \
                     database, where it is shared; else none"
                }
                Makes::ToOtherHosts => "to connect to other hosts",
            };
            let (name, reads, writes) = (role.name(), words(reads), words(writes));
            let row = format!("| {name} | {reads} | {writes} | {sockets} |\n");
            assert!(document.contains(&row), "not in the document: {row}");
        }
        assert!(Role::ALL.iter().all(|role| TABLE.iter().any(|row| row.role == *role)));
        for path in NAMES_AND_AUTHORITIES {
            assert!(document.contains(&format!("`{path}`")), "{path}");
        }
    }

    #[test]
    fn policy_makes_sockets_only_where_others_are_asked() {
        let check = |text: &str, expected: Sockets| {
            let config = Config::parse(text, Path::new("lamppost.toml")).unwrap();
            assert_eq!(of(Role::Policy, &config, Path::new("/state")).sockets, expected, "{text}");
        };
        let list = "[[mail.dns-list]]\nzone = \"list.test\"\n";
        let ask = |ports| Sockets::Ask { ports, here: false };
        let nothing = "[mail.greylist]\nenabled = false\n";
        check(&format!("[dns]\nservers = [\"192.0.2.1\"]\n{nothing}"), Sockets::None);
        check("[mail.greylist]\npolicy = \"relaydelay\"\n", Sockets::None);
        check("[mail.greylist]\nlookup-timeout = \"0s\"\n", Sockets::None);
        check("[dns]\nservers = [\"192.0.2.1\"]\n", ask(vec![53]));
        check(
            &format!("{nothing}[[mail.greylist.for]]\nrecipients = [\"@a.test\"]\n"),
            ask(vec![53]),
        );
        check(&format!("{nothing}{list}"), ask(vec![53]));
        let servers = "[dns]\nservers = [\"192.0.2.1\", \"127.0.0.1:5353\"]\n";
        check(&format!("{servers}{list}"), ask(vec![53, 5353]));
        check(&format!("{nothing}[mail.rules]\nfile = \"/etc/tcp.smtp\"\n"), ask(vec![53]));
        let shared = "[mail.greylist]\nlookup-timeout = \"0s\"\n\
                      database = \"mysql://grey@192.0.2.1:3307/grey\"\n";
        check(shared, ask(vec![3307]));
        check(&format!("{list}{shared}"), ask(vec![53, 3307]));
        let socket = shared.replace("/grey\"", "/grey?socket=/run/db\"");
        check(&socket, Sockets::Ask { ports: Vec::new(), here: true });
    }

    #[test]
    fn no_role_writes_where_another_does() {
        let config = Config::demo();
        let state = Path::new("/state");
        let all = Role::ALL.map(|role| of(role, &config, state).writes);
        for (place, one) in all.iter().enumerate() {
            for other in &all[place + 1..] {
                for (one, other) in one.iter().flat_map(|one| other.iter().map(move |o| (one, o))) {
                    assert!(
                        !one.starts_with(other) && !other.starts_with(one),
                        "{one:?} {other:?}"
                    );
                }
            }
        }
    }
}
