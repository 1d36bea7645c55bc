//! The service's own files: the certificate, the databases, and who may read what.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lamppost_accounts::Accounts;
use lamppost_config::TlsMode;
use lamppost_database::{Database, Survives};
use lamppost_net::{Certificate, Clock as _, SystemClock};

use super::Finding;
use crate::command::out;
use crate::exit::chain;
use crate::place::Opened;

/// How long before its end a certificate should have been renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The certificate that clients see: until when, and for which name.
pub(super) fn certificate(opened: &Opened) -> Vec<Finding> {
    let (area, config) = ("certificate", &opened.config);
    if config.mail.listen.iter().all(|listen| listen.tls == TlsMode::Off) {
        return Vec::new();
    }
    let path = match &config.tls.files {
        Some((certificate, _)) => certificate.path(),
        None => Some(opened.state.join("tls/certificate.pem")),
    };
    let Some(path) = path.filter(|path| path.exists()) else {
        let cure = "`lamppost check` tells about its files; one of the demo is made at the start";
        return vec![Finding::warn(area, "it is not there to be looked at", cure)];
    };
    let shown = path.display();
    let certificate = match Certificate::read(&path) {
        Ok(Some(certificate)) => certificate,
        Ok(None) => {
            let what = format!("{shown} holds no certificate in PEM");
            return vec![Finding::fail(area, what, "name a certificate chain in PEM")];
        }
        Err(error) => {
            let what = format!("{shown} cannot be read: {error}");
            let cure = "run this as root, or as the user that lamppost runs as";
            return vec![Finding::fail(area, what, cure)];
        }
    };
    let renew = "renew it: the running program takes new files by itself";
    let left = certificate.ends().map(|ends| ends.checked_sub(SystemClock.now()));
    let term = match left {
        None => Finding::warn(area, format!("{shown} does not tell when it ends"), renew),
        Some(None) => Finding::fail(area, format!("{shown} has ended"), renew),
        Some(Some(left)) => {
            let what = format!("{shown} ends in {}", out::age(left));
            if left < RENEWED_BEFORE {
                Finding::warn(area, what, renew)
            } else {
                Finding::ok(area, what)
            }
        }
    };
    let hostname = opened.hostname();
    let name = if certificate.is_for(&hostname) {
        Finding::ok(area, format!("it is for {hostname}"))
    } else {
        let what = format!("it is not for {hostname}, by which this host greets");
        Finding::warn(area, what, "get one with that name, or set `hostname` in [server]")
    };
    let mut findings = vec![term, name];
    if config.tls.files.is_none() {
        let what = "it is made by this program itself: others do not trust it";
        let cure = "name one of a public authority in [tls]";
        findings.push(Finding::warn(area, what, cure));
    }
    findings
}

/// Whether the databases open, and whether anybody could get mail.
pub(super) async fn databases(opened: &Opened) -> Vec<Finding> {
    let area = "database";
    let greylist = opened.state.join("greylist.db");
    let mut findings = Vec::new();
    let cure =
        "run this as the user that lamppost runs as; a damaged file comes back from a backup";
    let file = opened.accounts();
    let (shown, add) = (file.display(), "`lamppost account add ADDRESS` makes one");
    if file.exists() {
        findings.push(match accounts(&file).await {
            Ok(0) => Finding::warn(area, format!("{shown} opens, and nobody has an account"), add),
            Ok(count) => Finding::ok(area, format!("{shown}, {}", out::count(count, "account"))),
            Err(why) => Finding::fail(area, why, cure),
        });
    } else {
        let what = format!("{shown} is not there yet: nobody has an account");
        findings.push(Finding::warn(area, what, add));
    }
    if greylist.exists() {
        findings.push(match Database::open(&greylist, Survives::Kill) {
            Ok(_) => Finding::ok(area, greylist.display().to_string()),
            Err(error) => Finding::fail(area, chain(&error), cure),
        });
    }
    findings
}

async fn accounts(path: &Path) -> Result<u64, String> {
    let database = Database::open(path, Survives::PowerCut).map_err(|error| chain(&error))?;
    let accounts = Accounts::open(database, lamppost_accounts::Settings::default()).await;
    let listed = accounts.map_err(|error| chain(&error))?.list().await;
    listed.map(|listed| listed.len() as u64).map_err(|error| chain(&error))
}

/// Whether secrets are kept from others.
pub(super) fn permissions(opened: &Opened) -> Vec<Finding> {
    let area = "permissions";
    let mut findings = Vec::new();
    let mut secrets = vec![opened.accounts(), opened.state.join("tls/key.pem")];
    let config = &opened.config;
    secrets.extend(config.tls.files.as_ref().and_then(|(_, key)| key.path()));
    secrets.extend(config.mail.relay.login.as_ref().and_then(|(_, secret)| secret.path()));
    // What nobody may enter hides what is in it.
    let is_hidden =
        |path: &PathBuf| path.starts_with(&opened.state) && !is_open(&opened.state, 0o077);
    for path in secrets.iter().filter(|path| path.exists() && !is_hidden(path)) {
        if is_open(path, 0o007) {
            let what = format!("everybody may read or change the secret {}", path.display());
            findings.push(Finding::fail(area, what, format!("chmod o-rwx {}", path.display())));
        }
    }
    if opened.state.exists() && is_open(&opened.state, 0o077) {
        let shown = opened.state.display();
        let what = format!("others may enter the state folder {shown}, where all mail lies");
        findings.push(Finding::warn(area, what, format!("chmod 0700 {shown}")));
    }
    if opened.control_socket.exists() && is_open(&opened.control_socket, 0o007) {
        let shown = opened.control_socket.display();
        let what = format!("everybody may write to {shown}; connections of others are closed");
        findings.push(Finding::warn(area, what, format!("chmod 0600 {shown}")));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(area, "secrets and state are kept from others"));
    }
    findings
}

/// Whether a file's mode has any of these bits.
fn is_open(path: &Path, bits: u32) -> bool {
    path.metadata().is_ok_and(|found| found.permissions().mode() & bits != 0)
}
