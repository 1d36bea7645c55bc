//! What `check` finds odd beyond the file itself: the files that it names, and where the state is.

use std::path::{Path, PathBuf};

use lamppost_config::{Config, Problems, Remark, Secret, read_file};
use lamppost_disk::{FileSystem, file_system};

use crate::exit::Failure;
use crate::named_files;
use crate::place::{self, Place};

/// All that is odd about a file that can be read, at its places.
pub(super) fn of(file: &Path, config: &Config, state: Option<&Path>) -> Result<Problems, Failure> {
    let mut remarks = config.remarks();
    remarks.extend(named_files::remarks(config));
    remarks.extend(absent_credentials(config));
    let place = Place { config: Some(file.to_owned()), state: state.map(PathBuf::from) };
    let opened = place.open()?;
    remarks.extend(state_folder(&opened.state, config));
    let text = read_file(file).map_err(|error| place::unread(&error))?;
    Ok(lamppost_config::placed(file, &text, remarks))
}

/// Credentials that only systemd's units have, and that were not looked at.
fn absent_credentials(config: &Config) -> Vec<Remark> {
    let mut secrets = Vec::new();
    if let Some((certificate, key)) = &config.tls.files {
        secrets.extend([("tls.certificate", certificate), ("tls.key", key)]);
    }
    let login = config.mail.relay.login.as_ref();
    secrets.extend(login.map(|(_, password)| ("mail.relay.password", password)));
    let absent = secrets.into_iter().filter_map(|(key, secret)| match secret {
        Secret::Credential(name) if secret.path().is_none() => {
            let what =
                format!("the credential {name} is not looked at: only systemd's units have it");
            let cure =
                format!("`systemd-run -P -p LoadCredential={name}:FILE lamppost check` has it");
            Some(Remark::warning(key, what, cure))
        }
        _ => None,
    });
    absent.collect()
}

/// Where acknowledged mail would not survive a power cut.
fn state_folder(state: &Path, config: &Config) -> Option<Remark> {
    // A folder that is not there yet will be on the file system of the one above it.
    let there = state.ancestors().find(|folder| folder.exists())?;
    let accepted = config.mail.queue.accept_volatile;
    let (what, cure) = match file_system(there).ok()? {
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
    Some(Remark::warning("server.state", what, cure))
}
