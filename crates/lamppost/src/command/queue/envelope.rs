//! The envelope beside a file that is imported: as `queue export` writes it, or as the queue's
//! quarantine keeps it.

use std::io;
use std::path::Path;

use lamppost_roles::MessageView;
use lamppost_smtp::Address;
use serde::Deserialize;

use super::import::unread;
use crate::exit::{Code, Failure};

/// What the quarantine says of a damaged message.
#[derive(Deserialize)]
struct Kept {
    /// Why it is there.
    #[serde(rename = "lost")]
    _lost: String,
    message: Option<MessageView>,
}

/// Reads an envelope; nothing when there is none.
pub(super) fn read(path: &Path) -> Result<Option<MessageView>, Failure> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unread(path, &error)),
    };
    if let Ok(kept) = serde_json::from_slice::<Kept>(&text) {
        return kept.message.map(Some).ok_or_else(|| {
            let what = format!("{} does not know whose message it was", path.display());
            Failure::new(Code::Data, what).cure("say the envelope with --from and --to")
        });
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| wrong(path, &text, &error))
}

/// Says what is wrong with an envelope in the words of its format.
fn wrong(path: &Path, text: &[u8], error: &serde_json::Error) -> Failure {
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    let at = format!("line {}, column {}", error.line(), error.column());
    let what = if is_json {
        format!(
            "{} is no exported envelope ({at}): it must have `id`, `sender`, `size`, `held` and \
             `recipients`, a list in which each has `address`, `state` and `attempts`",
            path.display()
        )
    } else {
        format!("{} is no JSON ({at})", path.display())
    };
    Failure::new(Code::Data, what).cure(
        "compare it with what `lamppost queue export` writes, or say the envelope with --from and \
         --to, which are used instead",
    )
}

/// What to tell of a file without an envelope.
pub(super) fn absent(path: &Path) -> Failure {
    let json = path.with_extension("json");
    let what = format!("there is no {} that says the envelope", json.display());
    Failure::new(Code::Data, what).cure("say it with --from and --to")
}

/// The recipients that have not got their mail.
pub(super) fn waiting(message: &MessageView) -> Result<Vec<Address>, Failure> {
    let open = message.recipients.iter().filter(|recipient| !recipient.state.is_settled());
    let parsed = open.map(|recipient| {
        recipient.address.parse().map_err(|error| {
            let step = format!("the recipient `{}` of its .json file", recipient.address);
            Failure::at(Code::Data, &step, &error)
        })
    });
    parsed.collect()
}
