//! All that a role is told when it begins and when the configuration changes: what files hold, not
//! where they are, so that roles need none of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lamppost_config::{Config, RelayTls, TlsMode};
use lamppost_net::{Clock, KeyPair, Pem, SystemClock, Trust, demo_ca};
use lamppost_smtp::Secret;
use serde::{Deserialize, Serialize};

use super::settings;
use super::shared_greylist::SharedGreylist;
use super::users::Users;
use crate::exit::{Code, Failure};
use crate::named_files::{self, Wrong};
use crate::place::Opened;

/// What a role is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    /// The configuration file that the program began with; none for the built-in demo.
    pub(super) file: Option<(PathBuf, String)>,
    /// The file as it was read since. What lives in listeners, sessions and the queue stays what it was
    /// at the start.
    pub(super) newer: Option<String>,
    pub(super) state: PathBuf,
    pub(super) state_named_by: NamedBy,
    /// Whom roles become.
    pub(super) users: Users,
    /// The group whose members may use the control socket.
    pub(super) control_group: Option<u32>,
    pub(super) hostname: String,
    /// Name servers, where there are lists in the DNS to ask; for policy.
    pub(super) name_servers: Vec<SocketAddr>,
    /// Where local users hand in mail, if they may.
    pub(super) submit_socket: Option<PathBuf>,
    /// The certificate, where a listener needs one; for the front.
    pub(super) pem: Option<Pem>,
    /// What proves this server to the relay; for delivery.
    pub(super) relay_password: Option<Secret>,
    /// Whom to believe that they are the relay; for delivery.
    pub(super) relay_trust: Option<Trust>,
    /// How to get at the greylist's database, where it is a shared one; for policy.
    pub(super) greylist: Option<SharedGreylist>,
}

/// Who named the state folder, for those who must name another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum NamedBy {
    CommandLine,
    /// The configuration file, at this place.
    File(String),
    Nobody,
}

impl NamedBy {
    fn of(opened: &Opened) -> Self {
        match opened.place_of("server.state") {
            _ if opened.state_is_named => Self::CommandLine,
            Some(place) => Self::File(place),
            None => Self::Nobody,
        }
    }
}

impl Setup {
    /// Reads what the configuration names.
    pub(super) fn gather(opened: &Opened) -> Result<Self, Failure> {
        let Opened { config, file, text, state, .. } = opened;
        let hostname = opened.hostname();
        let relay = &config.mail.relay;
        let password = relay.login.as_ref().map(|(_, secret)| {
            named_files::password(secret).map_err(|Wrong { what, cure }| {
                Failure::new(Code::Config, format!("mail.relay.password: {what}")).cure(cure)
            })
        });
        let is_trusted = matches!(relay.tls, RelayTls::StartTls | RelayTls::Implicit);
        let trust = (config.mail.relay_to.is_some() && is_trusted).then(|| match &relay.ca {
            None => Ok(Trust::System),
            Some(path) => Trust::read(path)
                .map_err(|error| Failure::at(Code::Config, "mail.relay.ca", &error)),
        });
        let users = Users::choose(state, file.is_none());
        Ok(Self {
            file: file.clone().map(|file| (file, text.clone())),
            newer: None,
            state: state.clone(),
            state_named_by: NamedBy::of(opened),
            users,
            control_group: users.control_group(),
            submit_socket: opened.submit_socket(),
            pem: pem(config, state, &hostname)?,
            hostname,
            name_servers: name_servers(config),
            relay_password: password.transpose()?,
            relay_trust: trust.transpose()?,
            greylist: SharedGreylist::gather(config)?,
        })
    }

    /// As this one, after the program began with another.
    pub(super) fn after(self, begun: &Self) -> Self {
        Self {
            file: begun.file.clone(),
            newer: self.file.map(|(_, text)| text),
            state: begun.state.clone(),
            state_named_by: begun.state_named_by.clone(),
            users: begun.users,
            control_group: begun.control_group,
            submit_socket: begun.submit_socket.clone(),
            hostname: begun.hostname.clone(),
            // Listeners that began without TLS stay without it.
            pem: begun.pem.as_ref().and(self.pem),
            ..self
        }
    }

    /// The configuration in force, whose texts were found right before they were sent here.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let Some((file, text)) = &self.file else { return Ok(Config::demo()) };
        let parse = |text: &str| {
            Config::parse(text, file)
                .map_err(|problems| Failure::new(Code::Config, problems.render(false)))
        };
        let begun = parse(text)?;
        match &self.newer {
            None => Ok(begun),
            Some(newer) => Ok(settled(begun, &parse(newer)?)),
        }
    }

    /// Only what every role must know, without any secret.
    pub(super) fn without_secrets(&self) -> Self {
        Self { pem: None, relay_password: None, relay_trust: None, greylist: None, ..self.clone() }
    }
}

/// What is in force for a role after a reload: what can change while it runs is new.
fn settled(begun: Config, new: &Config) -> Config {
    let mut settled = begun;
    settled.mail.greylist = new.mail.greylist.clone();
    settled.mail.rules = new.mail.rules.clone();
    settled.dns = new.dns.clone();
    settled.mail.dns_lists = new.mail.dns_lists.clone();
    settled.mail.dns_list.clone_from(&new.mail.dns_list);
    settled.mail.domains.clone_from(&new.mail.domains);
    settled.mail.postmaster.clone_from(&new.mail.postmaster);
    settled.mail.relay_to.clone_from(&new.mail.relay_to);
    settled.mail.relay = new.mail.relay.clone();
    // Where it listens is the front's matter, which has begun with it; whose mail it is is policy's.
    settled.mail.sendmail = new.mail.sendmail.clone();
    settled
}

/// The name servers to ask: those of the configuration, else the machine's.
pub(super) fn name_servers(config: &Config) -> Vec<SocketAddr> {
    if !settings::asks_name_servers(config) {
        return Vec::new();
    }
    if !config.dns.servers.is_empty() {
        return config.dns.servers.clone();
    }
    // Without the file a name server of this machine is asked (resolv.conf(5)).
    lamppost_dns::name_servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// The certificate and its key, if a listener needs one.
fn pem(config: &Config, state: &Path, hostname: &str) -> Result<Option<Pem>, Failure> {
    if config.mail.listen.iter().all(|listen| listen.tls == TlsMode::Off) {
        return Ok(None);
    }
    let failed = |error: &dyn std::error::Error| Failure::of(Code::Config, error);
    let files = if let Some((certificate, key)) = &config.tls.files {
        KeyPair { certificate: secret_path(certificate)?, key: secret_path(key)? }
    } else {
        let made = demo_ca::ensure(&state.join("tls"), hostname, SystemClock.now());
        made.map_err(|error| failed(&error))?.files
    };
    Pem::read(files).map(Some).map_err(|error| failed(&error))
}

fn secret_path(secret: &lamppost_config::Secret) -> Result<PathBuf, Failure> {
    secret.path().ok_or_else(|| {
        Failure::new(Code::Config, "[tls] names a credential, and systemd gave none")
            .cure("start the program by a unit with LoadCredential=, or name a file")
    })
}
