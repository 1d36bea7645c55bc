//! Somebody who reads mail while it comes: flags, files and deletes messages, and keeps a record.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lamppost_load::{Random, Token};

use super::{Server, files};

/// A message that was seen in `new/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Whose Maildir.
    pub(crate) mailbox: String,
    /// The queue's id of the message, from the file's name.
    pub(crate) id: String,
    /// What it was made from; its bytes were compared.
    pub(crate) token: Token,
}

/// What the reader saw and did.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) arrivals: Vec<Arrival>,
    /// Files that were not what was sent, or not where they were put.
    pub(crate) problems: Vec<String>,
    pub(crate) flagged: usize,
    pub(crate) filed: usize,
    pub(crate) deleted: usize,
    pub(crate) left: usize,
    /// Where messages were left or put.
    kept: HashSet<PathBuf>,
}

/// The reader at work.
pub(crate) struct Reader {
    ending: Arc<AtomicBool>,
    thread: JoinHandle<Notes>,
    maildirs: Vec<PathBuf>,
}

impl Reader {
    /// Begins to read the mail of these accounts.
    pub(crate) fn start(server: &Server, accounts: &[&str], seed: u64) -> Self {
        let maildirs: Vec<_> =
            accounts.iter().map(|&one| (one.to_owned(), server.maildir(one))).collect();
        let folders = maildirs.iter().map(|(_, path)| path.clone()).collect();
        let ending = Arc::new(AtomicBool::new(false));
        let told = ending.clone();
        let thread = std::thread::spawn(move || {
            let mut random = Random::new(seed);
            let mut notes = Notes::default();
            loop {
                // Read before the pass: what came before the end was told is seen by the last pass.
                let is_last = told.load(Ordering::SeqCst);
                for (mailbox, maildir) in &maildirs {
                    notes.pass(mailbox, maildir, &mut random);
                }
                if is_last {
                    return notes;
                }
                std::thread::park_timeout(Duration::from_millis(2));
            }
        });
        Self { ending, thread, maildirs: folders }
    }

    /// Looks once more, and returns the record; that what was kept is still there is part of it.
    pub(crate) fn finish(self) -> Notes {
        self.ending.store(true, Ordering::SeqCst);
        let mut notes = self.thread.join().unwrap();
        let mut there = HashSet::new();
        for maildir in &self.maildirs {
            for folder in ["new", "cur", ".Archive/cur"] {
                there.extend(files(&maildir.join(folder)));
            }
        }
        for path in notes.kept.difference(&there) {
            notes.problems.push(format!("{} was kept and is gone", path.display()));
        }
        for path in there.difference(&notes.kept) {
            notes.problems.push(format!("{} was not put there by the reader", path.display()));
        }
        notes
    }
}

impl Notes {
    fn pass(&mut self, mailbox: &str, maildir: &Path, random: &mut Random) {
        for path in files(&maildir.join("new")) {
            if self.kept.contains(&path) {
                continue;
            }
            let Ok(bytes) = fs::read(&path) else {
                self.problems.push(format!("{} vanished from new/", path.display()));
                continue;
            };
            match (Token::recognise(&bytes), id(&path)) {
                (Ok(token), Some(id)) => {
                    self.arrivals.push(Arrival { mailbox: mailbox.to_owned(), id, token });
                }
                (Ok(_), None) => self.problems.push(format!("{}: a strange name", path.display())),
                (Err(error), _) => self.problems.push(format!("{}: {error}", path.display())),
            }
            self.handle(&path, maildir, random);
        }
    }

    /// What is noted is done away with, or not.
    fn handle(&mut self, path: &Path, maildir: &Path, random: &mut Random) {
        let name = path.file_name().unwrap().to_string_lossy();
        let (count, to) = match random.below(10) {
            0..5 => (&mut self.flagged, maildir.join(format!("cur/{name}:2,FS"))),
            5..7 => {
                let archive = maildir.join(".Archive");
                for folder in ["tmp", "new", "cur"] {
                    fs::create_dir_all(archive.join(folder)).unwrap();
                }
                (&mut self.filed, archive.join(format!("cur/{name}:2,S")))
            }
            7..9 => {
                self.deleted += 1;
                return fs::remove_file(path).unwrap();
            }
            _ => {
                self.left += 1;
                self.kept.insert(path.to_owned());
                return;
            }
        };
        *count += 1;
        fs::rename(path, &to).unwrap();
        self.kept.insert(to);
    }
}

/// The queue's id in `SECONDS.QUEUEID-INDEX.HOST`.
fn id(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    Some(name.split('.').nth(1)?.split_once('-')?.0.to_owned())
}
