//! What `check` finds odd beyond the file itself: the files that it names, and where the state is.

use std::path::{Path, PathBuf};

use lamppost_config::{Config, Problems, Remark, Secret, read_file};
use lamppost_disk::{FileSystem, file_system};
use lamppost_net::{KeyPair, ServerTls};

use crate::exit::{Failure, chain};
use crate::place::{self, Place};

/// All that is odd about a file that can be read, at its places.
pub(super) fn of(file: &Path, config: &Config, state: Option<&Path>) -> Result<Problems, Failure> {
    let mut remarks = config.remarks();
    let before = remarks.len();
    remarks.extend(named_files(config));
    if remarks.len() == before {
        remarks.extend(certificate(config));
    }
    let place = Place { config: Some(file.to_owned()), state: state.map(PathBuf::from) };
    let opened = place.open()?;
    remarks.extend(state_folder(&opened.state, config));
    let text = read_file(file).map_err(|error| place::unread(&error))?;
    Ok(lamppost_config::placed(file, &text, remarks))
}

/// Files that cannot be read.
fn named_files(config: &Config) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for (key, path) in config.named_files() {
        let opened = std::fs::File::open(&path).and_then(|file| file.metadata());
        let what = match opened {
            Ok(found) if found.is_file() => continue,
            Ok(_) => format!("{} is no file", path.display()),
            Err(error) => format!("{} cannot be read: {error}", path.display()),
        };
        let cure = "name a file that the user whom lamppost runs as may read";
        remarks.push(Remark::error(key, what, cure));
    }
    for (key, name) in absent_credentials(config) {
        let what = format!("the credential {name} is not looked at: only systemd's units have it");
        let cure = format!("`systemd-run -P -p LoadCredential={name}:FILE lamppost check` has it");
        remarks.push(Remark::warning(key, what, cure));
    }
    remarks
}

fn absent_credentials<'c>(config: &'c Config) -> Vec<(&'static str, &'c str)> {
    let mut secrets = Vec::new();
    if let Some((certificate, key)) = &config.tls.files {
        secrets.extend([("tls.certificate", certificate), ("tls.key", key)]);
    }
    let login = config.mail.relay.login.as_ref();
    secrets.extend(login.map(|(_, password)| ("mail.relay.password", password)));
    let absent = |(key, secret): (&'static str, &'c Secret)| match secret {
        Secret::Credential(name) if secret.path().is_none() => Some((key, name.as_str())),
        _ => None,
    };
    secrets.into_iter().filter_map(absent).collect()
}

/// A certificate or a key that is none, or that do not belong together.
fn certificate(config: &Config) -> Option<Remark> {
    let (certificate, key) = config.tls.files.as_ref()?;
    let files = KeyPair { certificate: certificate.path()?, key: key.path()? };
    let error = ServerTls::load(files).err()?;
    let cure = "name a certificate chain and the key that belongs to it, both in PEM";
    Some(Remark::error("tls.certificate", chain(&error), cure))
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
