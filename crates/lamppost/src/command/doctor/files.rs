//! The service's own files: the certificate, the databases, and who may read what.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use lamppost_config::{GreylistDatabase, TlsMode};
use lamppost_database::{Database, DatabaseError};
use lamppost_greylist::Workshop;
use lamppost_net::{CertificateFacts, Clock as _, SystemClock};

use super::Finding;
use crate::command::greylist::init;
use crate::command::{out, remarks};
use crate::exit::chain;
use crate::named_files::{self, Wrong};
use crate::place::Opened;
use crate::run::shared_greylist::SharedGreylist;
use crate::state_files;

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
    let hostname = opened.hostname();
    let facts = path.as_ref().and_then(|path| CertificateFacts::read(path, &hostname));
    let (Some(path), Some(facts)) = (path, facts) else {
        // What is wrong with files that the configuration names is told with the configuration.
        let own = "the one that the program makes itself is not there, or cannot be read";
        let cure = "it is made at the start; run this as root or as the user that lamppost runs as";
        let is_named = config.tls.files.is_some();
        return if is_named { Vec::new() } else { vec![Finding::warn(area, own, cure)] };
    };
    let left = facts.not_after.map(|end| end.checked_sub(SystemClock.now()));
    let wrong = named_files::ages(&path, &hostname);
    let mut findings: Vec<_> = wrong
        .into_iter()
        .map(|Wrong { what, cure }| match left {
            Some(None) => Finding::fail(area, what, cure),
            _ => Finding::warn(area, what, cure),
        })
        .collect();
    if findings.is_empty() {
        let term = left.flatten().map(|left| format!(", and ends in {}", out::age(left)));
        let what = format!("{} is for {hostname}{}", path.display(), term.unwrap_or_default());
        findings.push(Finding::ok(area, what));
    }
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
    let greylist = state_files::database(&opened.state, state_files::GREYLIST);
    let mut findings = Vec::new();
    let cure =
        "run this as the user that lamppost runs as; a damaged file comes back from a backup";
    let file = opened.accounts();
    let (shown, add) = (file.display(), "`lamppost account add ADDRESS` makes one");
    findings.push(match file.try_exists() {
        Ok(true) => match accounts(&file).await {
            Ok(0) => Finding::warn(area, format!("{shown} opens, and nobody has an account"), add),
            Ok(count) => Finding::ok(area, format!("{shown}, {}", out::count(count, "account"))),
            Err(error) => Finding::fail(area, chain(&error), cure),
        },
        Ok(false) => {
            let what = format!("{shown} is not there yet: nobody has an account");
            Finding::warn(area, what, add)
        }
        Err(error) => Finding::fail(area, format!("{shown} cannot be looked at: {error}"), cure),
    });
    if let Some(finding) = shared_greylist(opened).await {
        findings.push(finding);
    } else if greylist.exists() {
        findings.push(match readable(&greylist).await {
            Ok(()) => Finding::ok(area, greylist.display().to_string()),
            Err(error) => Finding::fail(area, chain(&error), cure),
        });
    }
    findings
}

/// Whether the greylist's database answers and has its tables, where several servers share one.
async fn shared_greylist(opened: &Opened) -> Option<Finding> {
    let area = "database";
    let GreylistDatabase::Shared(shared) = &opened.config.mail.greylist.database else {
        return None;
    };
    let server = match SharedGreylist::gather(&opened.config) {
        Ok(how) => how?.server(shared),
        Err(failure) => {
            return Some(Finding::fail(area, failure.text(), "correct [mail.greylist]"));
        }
    };
    let planned = async { Workshop::open(&server).await?.plan().await };
    Some(match planned.await {
        Ok(steps) if steps.is_empty() => {
            Finding::ok(area, format!("{}, whose tables are as they should be", server.name()))
        }
        Ok(steps) => {
            let first = steps.first().map(|step| step.does.clone()).unwrap_or_default();
            let what = format!("{} is not ready: it is yet to {first}", server.name());
            Finding::fail(area, what, "run `lamppost greylist init`")
        }
        Err(error) => Finding::fail(area, chain(&error), init::cure(&error)),
    })
}

async fn accounts(path: &Path) -> Result<u64, DatabaseError> {
    let database = Database::open_to_read(path)?;
    Ok(lamppost_accounts::listed(&database).await?.len() as u64)
}

async fn readable(path: &Path) -> Result<(), DatabaseError> {
    let database = Database::open_to_read(path)?;
    // To open what is no database does not fail; to ask it something does.
    let ask = "SELECT count(*) FROM sqlite_schema";
    database.run("read", move |connection| connection.query_row(ask, [], |_| Ok(()))).await
}

/// Whether secrets are kept from others.
pub(super) fn permissions(opened: &Opened) -> Vec<Finding> {
    let area = "permissions";
    let open = remarks::open_to_everybody(opened);
    let mut findings: Vec<_> = open.into_iter().map(|remark| Finding::of(area, remark)).collect();
    let socket = &opened.control_socket;
    let mode = socket.metadata().map_or(0, |found| found.permissions().mode());
    if mode & 0o002 != 0 {
        let shown = socket.display();
        let what = format!("everybody may write to {shown}; connections of others are closed");
        findings.push(Finding::warn(area, what, format!("`chmod 600 {shown}`")));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(area, "secrets and state are kept from others"));
    }
    findings
}
