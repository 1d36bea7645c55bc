//! A restored state goes into its place, in one step.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::output::folder_of;
use crate::command::out;
use crate::exit::{Code, Failure};

/// What happened to what was there.
pub(super) struct Placed {
    /// Where it is now.
    pub(super) aside: Option<PathBuf>,
}

/// Gives a folder the place of the state. Until the one rename that does it the state that was there is
/// as it was; Maildirs in it, which no backup holds, go back into the new one.
pub(super) fn place_back(staged: &Path, state: &Path) -> Result<Placed, Failure> {
    let failed = |error: io::Error| {
        Failure::at(Code::Io, &format!("cannot give {} its place", state.display()), &error).cure(
            "a folder that something is mounted on cannot be replaced: name another with --state DIR",
        )
    };
    let sync = || File::open(folder_of(state)).and_then(|folder| folder.sync_all());
    let Ok(there) = state.metadata() else {
        std::fs::rename(staged, state).and_then(|()| sync()).map_err(failed)?;
        return Ok(Placed { aside: None });
    };
    give_to(staged, (there.uid(), there.gid())).map_err(failed)?;
    // An empty folder is simply replaced.
    if std::fs::rename(staged, state).is_ok() {
        sync().map_err(failed)?;
        return Ok(Placed { aside: None });
    }
    rustix::fs::renameat_with(CWD, staged, CWD, state, RenameFlags::EXCHANGE)
        .map_err(|error| failed(error.into()))?;
    let named = |second: u64| {
        let mut aside = state.as_os_str().to_owned();
        aside.push(format!(".before-{second}"));
        PathBuf::from(aside)
    };
    // What another restore put aside, in this second even, stays as it is.
    let mut names = (out::now_ms() / 1000..).map(named);
    let aside = names.find(|aside| !aside.exists()).unwrap_or_default();
    let moved = std::fs::rename(staged, &aside).and_then(|()| {
        let mail = aside.join("mail");
        if mail.exists() { std::fs::rename(mail, state.join("mail")) } else { Ok(()) }
    });
    moved.and_then(|()| sync()).map_err(|error| {
        let step = format!(
            "{} is restored, but what was there could not be put in order: look into {} and {}",
            state.display(),
            staged.display(),
            aside.display()
        );
        Failure::at(Code::Io, &step, &error)
    })?;
    Ok(Placed { aside: Some(aside) })
}

/// Root makes the state the user's who had the folder; nobody else can, or needs to.
fn give_to(folder: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid))?;
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        }
    }
    Ok(())
}
