//! Whether every message in the queue has its record and its content.

use std::path::Path;

use lamppost_roles::QueueId;

use super::Examination;
use crate::StartError;
use crate::check::Severity;
use crate::index::{Index, Place};
use crate::load::aside_sum;

impl Examination<'_> {
    fn lose(&mut self, id: QueueId, path: &Path, why: String) {
        let cure = "--repair copies what is left of it to quarantine/; the next start gives it up and \
                    tells its sender";
        let what = format!("message {id} is lost: {why}");
        self.find(Severity::Damage, path, (what, cure), Some(id));
        self.out.lost.push((id, why));
    }

    /// Every message in the queue has a whole record, and its content.
    pub(super) fn messages(&mut self, index: &Index) -> Result<(), StartError> {
        for (id, message) in index.after(None) {
            self.out.report.messages += 1;
            self.out.report.content_bytes += message.size;
            let place = message.place;
            if !self.seen.segments.contains(&place.segment) {
                let path = self.settings.segment(place.segment);
                self.lose(id, &path, "its segment is lost".into());
            } else if self.seen.known.get(&(place.segment, place.at)) == Some(&id) {
                let why = format!("its content in the record at {} is damaged", place.at);
                self.lose(id, &self.settings.segment(place.segment), why);
            } else if self.whole(place, id).is_none() {
                let why = format!("its record at {} is damaged", place.at);
                self.not_torn(place);
                // Its record is one of those that are missing, and not unknown.
                self.out.report.unknown = self.out.report.unknown.saturating_sub(1);
                self.lose(id, &self.settings.segment(place.segment), why);
            } else if message.aside {
                let path = self.settings.body(id);
                match self.length(&path)? {
                    Some(length) if length == message.size => {
                        let sum = aside_sum(self.disk, &path).map(|(_, sum)| sum);
                        if sum.ok() != self.whole(place, id) {
                            self.lose(id, &path, "its content is damaged".into());
                        }
                    }
                    Some(length) => {
                        let why = format!("its content has {length} bytes, not {}", message.size);
                        self.lose(id, &path, why);
                    }
                    None => match self.quarantined.get(&id).cloned() {
                        Some(why) => self.note(
                            &path,
                            format!("message {id} is damaged: {why}"),
                            "the next start gives it up and tells its sender; what is left of it \
                             is in quarantine/",
                        ),
                        None => self.lose(id, &path, "its content is not there".into()),
                    },
                }
            }
        }
        Ok(())
    }

    /// The sum of a message's content aside, when its record is whole.
    fn whole(&self, place: Place, id: QueueId) -> Option<u32> {
        let known = self.seen.whole.get(&(place.segment, place.at));
        known.filter(|(known, _)| *known == id).map(|(_, sum)| *sum)
    }

    /// A damaged end is no torn write when a message in the queue is in it.
    fn not_torn(&mut self, place: Place) {
        let tail = self.seen.tails.get(&place.segment).copied();
        if let Some((at, length)) =
            tail.filter(|(at, length)| (*at..at + length).contains(&place.at))
        {
            self.seen.tails.remove(&place.segment);
            self.hole(place.segment, at, length);
        }
    }
}
