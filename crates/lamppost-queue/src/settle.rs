//! What a killed program left behind is made durable before anything is built upon it.
//!
//! After a kill the system still has all that was written, and nobody knows what of it was synced. A
//! delivery that goes on from a record which the next power cut takes back would be repeated.

use std::io;

use lamppost_disk::Disk;
use tracing::warn;

use crate::replay::Replayed;
use crate::{Durability, Settings};

/// Syncs the segments that were replayed, and the large contents that messages in them name.
///
/// Whatever was acknowledged is durable already. So a disk that refuses is no reason not to start.
pub(crate) fn settle(disk: &dyn Disk, settings: &Settings, replayed: &Replayed) {
    if settings.durability == Durability::None {
        return;
    }
    let begin = replayed.standing.covered_below();
    let segments = replayed.next.segments.range(begin..);
    let segments = segments.map(|(&number, _)| settings.segment(number));
    let large = replayed.index.after(None).filter(|(_, message)| message.aside);
    let large = large.filter(|(_, message)| message.place.segment >= begin);
    let mut bodies = large.map(|(id, _)| settings.body(id)).peekable();
    let has_bodies = bodies.peek().is_some();
    for path in segments.chain(bodies) {
        let synced = disk.open(&path).and_then(|mut file| file.sync());
        // A content that is missing is told when its turn comes.
        if let Err(error) = synced
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(path = %path.display(), reason = %error, "what was found in the spool could not be synced");
        }
    }
    let folders = [Some(settings.log()), has_bodies.then(|| settings.bodies())];
    for path in folders.into_iter().flatten() {
        if let Err(error) = disk.sync_folder(&path) {
            warn!(path = %path.display(), reason = %error, "what was found in the spool could not be synced");
        }
    }
}
