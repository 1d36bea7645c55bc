//! The file of connection rules, read for policy, which may read none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lamppost_net::link::Inbox;
use lamppost_roles::{RulesAnswer, RulesRequest};
use parking_lot::Mutex;

use crate::named_files;

/// Which file it is, and what it held when it last held rules. That outlasts the roles, so that policy has
/// rules to begin with though the file may be none by then.
#[derive(Clone, Default)]
pub(super) struct RulesFile(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    file: Option<PathBuf>,
    rules: Option<Bytes>,
}

impl RulesFile {
    /// Reads this file from now on.
    pub(super) fn set(&self, file: Option<&Path>) {
        let mut kept = self.0.lock();
        if kept.file.as_deref() != file {
            *kept = Kept { file: file.map(Path::to_owned), rules: None };
        }
    }

    /// Answers policy until it is gone.
    pub(super) async fn answer(self, mut asked: Inbox<RulesRequest, RulesAnswer>) {
        while let Some((RulesRequest, reply)) = asked.next().await {
            let file = self.clone();
            // A file system that hangs holds up nobody but those who ask.
            if let Ok(answer) = tokio::task::spawn_blocking(move || file.read()).await {
                reply.send(answer);
            }
        }
    }

    fn read(&self) -> RulesAnswer {
        let Some(file) = self.0.lock().file.clone() else {
            return RulesAnswer { stamp: None, rules: None, fault: None };
        };
        let read = named_files::rules(&file);
        let mut kept = self.0.lock();
        let (stamp, fault) = match read {
            Ok((stamp, rules, _)) => {
                // Another may have been named meanwhile.
                if kept.file.as_ref() == Some(&file) {
                    kept.rules = Some(rules);
                }
                (Some(stamp), None)
            }
            Err((stamp, wrong)) => (stamp, Some(format!("{}: {}", wrong.what, wrong.cure))),
        };
        RulesAnswer { stamp, rules: kept.rules.clone(), fault }
    }
}
