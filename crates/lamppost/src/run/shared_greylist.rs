//! What it takes to get at a greylist that several servers share.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::Duration;

use lamppost_config::{Config, GreylistDatabase, SharedDatabase};
use lamppost_greylist::{Password, Server, ServerPlace};
use lamppost_smtp::Secret;
use serde::{Deserialize, Serialize};

use crate::exit::{Code, Failure};
use crate::named_files::{self, Wrong};

/// How long the database's name may take to be found.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// What files and the DNS tell about the database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SharedGreylist {
    /// The addresses of its host; none where they were not found.
    addresses: Vec<IpAddr>,
    password: Option<Secret>,
    authorities: Option<Vec<u8>>,
}

impl SharedGreylist {
    /// Reads and asks; nothing where the greylist is no shared one.
    pub(crate) fn gather(config: &Config) -> Result<Option<Self>, Failure> {
        let greylist = &config.mail.greylist;
        let GreylistDatabase::Shared(shared) = &greylist.database else { return Ok(None) };
        let failed = |key: &str, Wrong { what, cure }| {
            Failure::new(Code::Config, format!("mail.greylist.{key}: {what}")).cure(cure)
        };
        let password = match (&shared.password, &greylist.database_password) {
            (Some(password), _) => Some(Secret::new(password.clone())),
            (None, Some(secret)) => {
                let password = named_files::password(secret);
                Some(password.map_err(|wrong| failed("database-password", wrong))?)
            }
            (None, None) => None,
        };
        let authorities = shared.ca.as_ref().map(|path| {
            named_files::readable(path).map_err(|wrong| failed("database", wrong))?;
            std::fs::read(path).map_err(|error| Failure::at(Code::Config, "mail.greylist", &error))
        });
        let authorities = authorities.transpose()?;
        Ok(Some(Self { addresses: addresses(shared), password, authorities }))
    }

    /// The server as the store is told of it.
    pub(crate) fn server(&self, shared: &SharedDatabase) -> Server {
        let SharedDatabase { host, port, socket, user, name, .. } = shared.clone();
        let addresses = self.addresses.clone();
        Server {
            at: match socket {
                Some(path) => ServerPlace::Socket(path),
                None => ServerPlace::Tcp { host, addresses, port },
            },
            user,
            password: self.password.as_ref().map(|password| Password(password.expose().into())),
            database: name,
            authorities: self.authorities.clone(),
        }
    }
}

/// The addresses of the database's host. It is asked now, since the role that connects cannot ask; a name
/// server that is silent must not hold up the start.
fn addresses(shared: &SharedDatabase) -> Vec<IpAddr> {
    if shared.socket.is_some() {
        return Vec::new();
    }
    let place = (shared.host.clone(), shared.port);
    let (to, found) = mpsc::channel();
    std::thread::spawn(move || {
        let found = place.to_socket_addrs().map(|found| found.map(|one| one.ip()).collect());
        drop(to.send(found.unwrap_or_default()));
    });
    found.recv_timeout(LOOKUP_TIMEOUT).unwrap_or_default()
}
