//! What is promised, and whether it was kept.
//!
//! After a power cut at any moment and a new start, each message that was acknowledged before is in
//! the queue, in a Maildir byte for byte, with the reader, with the host for elsewhere, bounced, or
//! deleted by the administrator; no recipient has it twice; nothing that was refused is there, once
//! the disk had worked again.
//!
//! Now and then the newest checkpoint is damaged too, which must change nothing.
//!
//! Without a journal a file system may cut a rename in two: between the rename into `new/` and the
//! syncs of both folders, a file may have both names or none after a power cut. Nothing can be
//! promised for a file in that moment, and nothing is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lamppost_roles::{ControlAnswer, ControlRequest, Filter, MessageView, QueueId, RecipientState};
use lamppost_sim::{FileSystemKind, Lot, Operation, SimulatedDisk, World};

use crate::mailboxes::{GONE, maildir, name, read_one};
use crate::story::{Fact, Facts, Life, Message, Story, runtime, start, submit};

/// What the operations of a disk did to mailboxes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    /// Files that were renamed from `tmp/` to `new/`.
    published: BTreeSet<String>,
    /// Files whose names changed in folders that were not synced since.
    loose: BTreeMap<String, BTreeSet<PathBuf>>,
    /// Files for which nothing is promised.
    exempt: BTreeSet<String>,
}

impl Past {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Rename { from, to } => {
                let (Some(name), Some(parents)) = (mailed(to), from.parent().zip(to.parent()))
                else {
                    return;
                };
                if from.parent().is_some_and(|parent| parent.ends_with("tmp")) {
                    self.published.insert(name.clone());
                }
                let folders = self.loose.entry(name).or_default();
                folders.extend([parents.0.to_owned(), parents.1.to_owned()]);
            }
            Operation::Remove { path } => {
                if let Some((name, folder)) = mailed(path).zip(path.parent()) {
                    self.loose.entry(name).or_default().insert(folder.to_owned());
                }
            }
            Operation::SyncFolder { path, good: true } => {
                for folders in self.loose.values_mut() {
                    folders.remove(path);
                }
            }
            // The reader's and delivery's folders are all on the file system of the mailboxes.
            Operation::SyncFileSystem { path, good: true } if mailed(path).is_some() => {
                self.loose.clear();
            }
            _ => {}
        }
    }

    fn crash(&mut self, kind: FileSystemKind) {
        let loose = std::mem::take(&mut self.loose).into_iter();
        if kind == FileSystemKind::Unordered {
            let names = loose.filter(|(_, folders)| !folders.is_empty()).map(|(name, _)| name);
            self.exempt.extend(names);
        }
    }
}

/// The name of a message's file, if that is one, without the reader's flags.
fn mailed(path: &Path) -> Option<String> {
    let in_mailbox = path.iter().any(|part| part == "mail");
    let name = path.file_name()?.to_str()?.split(':').next()?;
    in_mailbox.then(|| name.to_owned())
}

/// Walks through a story's operations.
pub(crate) struct Walk<'a> {
    story: &'a Story,
    log: Vec<Operation>,
    world: World,
    past: Past,
    at: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(story: &'a Story) -> Self {
        let (log, world) = (story.disk.log(), story.disk.begin());
        Self { story, log, world, past: Past::default(), at: 0 }
    }

    /// How many operations there are.
    pub(crate) fn len(&self) -> usize {
        self.log.len()
    }

    /// Goes on to the moment after so many operations.
    pub(crate) fn go_to(&mut self, operations: usize) {
        for operation in &self.log[self.at..operations] {
            self.world.apply(operation);
            self.past.apply(operation);
        }
        self.at = operations;
    }

    /// Ends the program here, starts it again, perhaps ends it again, and tells what was broken.
    pub(crate) fn check(&self, root: &Path, crash: u64) -> Result<(), String> {
        let mut lot = Lot::new(crash);
        let mut past = self.past.clone();
        let mut world = self.world.clone();
        let mut ended = end(&mut world, &mut past, &mut lot);
        if lot.one_in(3) {
            world = with_damaged_checkpoint(world, root);
        }
        let mut facts: Vec<_> = known(&self.story.facts, self.at);
        let last = facts.iter().rposition(|fact| matches!(fact, Fact::Stored { .. }));
        let refusals = facts[..last.unwrap_or(0)].to_vec();
        for number in 1..=3 {
            read(&mut world, &mut past, root, &mut lot);
            let disk = SimulatedDisk::with_world(world.clone());
            let new = Facts::default();
            let life = Life { number, facts: new.clone(), lot: None, way: self.story.way };
            let full = lot.one_in(4).then(|| lot.below(60_000));
            let views = runtime().block_on(recover(&disk, root, life, full))?;
            let relayed = facts.iter().cloned().chain(known(&new.all(), usize::MAX));
            let judge = Judge {
                before: &world,
                after: &disk.world(),
                views: views.iter().map(|view| (view.id, view)).collect(),
                past: &past,
                facts: relayed.collect(),
                refusals: &refusals,
                root,
            };
            judge.judge().map_err(|broken| format!("{broken} (life {number}, {ended})"))?;
            if !lot.one_in(3) {
                break;
            }
            let log = disk.log();
            let again = lot.index(log.len() + 1);
            for operation in &log[..again] {
                world.apply(operation);
                past.apply(operation);
            }
            facts.extend(known(&new.all(), again));
            ended += ", ";
            ended += &end(&mut world, &mut past, &mut lot);
        }
        Ok(())
    }
}

/// What ends the program: a power cut, or a kill, after which all is there that was written, and no
/// more of it is durable than before. Tells which it was.
fn end(world: &mut World, past: &mut Past, lot: &mut Lot) -> String {
    if lot.one_in(4) {
        return "killed".to_owned();
    }
    let (left, kind) = world.after_crash(lot.draw());
    past.crash(kind);
    *world = left;
    format!("{kind:?}")
}

/// The reader does something while the program does not run.
fn read(world: &mut World, past: &mut Past, root: &Path, lot: &mut Lot) {
    let disk = SimulatedDisk::with_world(world.clone());
    for _ in 0..lot.below(6) {
        read_one(&disk, root, lot);
    }
    for operation in disk.log() {
        world.apply(&operation);
        past.apply(&operation);
    }
}

/// A disk on which the newest checkpoint has gone bad: the other one and the log say the same.
fn with_damaged_checkpoint(world: World, root: &Path) -> World {
    let begin = |path: &PathBuf| {
        let head = world.file(path)?.get(8..16)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*head))
    };
    let paths = ["checkpoint", "checkpoint.2"].map(|name| root.join(name));
    let newest = paths.into_iter().filter(|path| begin(path).is_some()).max_by_key(begin);
    let Some(newest) = newest else { return world };
    let disk = SimulatedDisk::with_world(world);
    disk.damage(&newest, 40, b"damage");
    disk.world()
}

/// Runs the queue until nothing is left to do; tells what is in it then. Perhaps only so many bytes
/// are free on its disk at first.
async fn recover(
    disk: &SimulatedDisk,
    root: &Path,
    life: Life,
    full: Option<u64>,
) -> Result<Vec<MessageView>, String> {
    if let Some(left) = full {
        disk.set_quota(Some(disk.used() + left));
    }
    let (first, facts) = (u64::from(life.number) * 100_000, life.facts.clone());
    let roles = match start(disk, root, life.clone()).await {
        // A disk that is full, whose reserve is used up as well, is told at the start. The start after
        // somebody made room goes well.
        Err(told) if full.is_some() && told.contains("StorageFull") => {
            disk.set_quota(None);
            start(disk, root, life).await?
        }
        started => started?,
    };
    // New mail comes too, and goes where the old one was.
    for number in first..first + 4 {
        submit(&roles, disk, &facts, number).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    disk.set_quota(None);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let request = ControlRequest::List { after: None, limit: 1000, filter: Filter::default() };
    let answer = roles.control.ask(request).await.map_err(|gone| gone.to_string())?;
    let ControlAnswer::Listing(listing) = answer else { return Err(format!("{answer:?}")) };
    drop(roles);
    Ok(listing.messages)
}

struct Judge<'a> {
    before: &'a World,
    after: &'a World,
    views: BTreeMap<QueueId, &'a MessageView>,
    past: &'a Past,
    facts: Vec<Fact>,
    /// What was refused in the first life and followed by something that was stored in it.
    refusals: &'a [Fact],
    root: &'a Path,
}

impl Judge<'_> {
    fn judge(&self) -> Result<(), String> {
        for view in self.views.values().filter(|view| !view.held) {
            let is_idle = view.recipients.iter().all(|one| match one.state {
                RecipientState::Failed => view.sender == lamppost_smtp::ReversePath::Null,
                RecipientState::Delivered | RecipientState::Bounced => true,
                _ => false,
            });
            if !is_idle || view.fault.is_some() {
                return Err(format!("it stays in the queue: {view:?}"));
            }
        }
        let is_loose_notice = |name: &String| {
            let stored = self.facts.iter().filter_map(|fact| match fact {
                Fact::Stored { id, .. } => Some(id),
                _ => None,
            });
            !stored.into_iter().any(|id| name.contains(&format!(".{id}-")))
        };
        let notices_are_sure = !self.past.exempt.iter().any(is_loose_notice);
        for fact in &self.facts {
            if let Fact::Stored { number, id } = fact {
                let message = Message::of(*number);
                for (index, to) in message.recipients.iter().enumerate() {
                    let name = name(*id, index);
                    if !self.past.exempt.contains(&name) {
                        self.judge_one(&message, *id, (index, to), notices_are_sure).map_err(
                            |broken| format!("message {number}, {name}, to {to}: {broken}"),
                        )?;
                    }
                }
            }
        }
        self.judge_refused()
    }

    fn judge_one(
        &self,
        message: &Message,
        id: QueueId,
        (index, to): (usize, &str),
        notices_are_sure: bool,
    ) -> Result<(), String> {
        let is_asked = self.facts.contains(&Fact::DeleteAsked { id });
        let view = self.views.get(&id);
        if view.is_some() && self.facts.contains(&Fact::Deleted { id }) {
            return Err("it was deleted and is in the queue".into());
        }
        let is_queued = view.is_some_and(|view| {
            let state = view.recipients[index].state;
            !matches!(state, RecipientState::Delivered | RecipientState::Bounced)
        });
        let bounces = self.notices(message.number, to, "failed");
        let is_safe = is_asked || is_queued || bounces > 0 || !notices_are_sure;
        let times = message.recipients.iter().filter(|one| *one == to).count();
        if bounces > times {
            return Err(format!("{bounces} bounces"));
        }
        let delays = self.notices(message.number, to, "delayed");
        if delays > times {
            return Err(format!("{delays} notices of delay"));
        }
        let (local, domain) = to.split_once('@').unwrap();
        if domain != "lamppost.test" || local == GONE {
            let fact = Fact::Relayed { id, to: to.to_owned() };
            return if is_safe || self.facts.contains(&fact) { Ok(()) } else { Err("lost".into()) };
        }
        let mailbox = maildir(self.root, local);
        let name = name(id, index);
        let before = copies(self.before, &mailbox, &name).len();
        let after = copies(self.after, &mailbox, &name);
        let prepared = self.before.file(&mailbox.join("tmp").join(&name)).is_some();
        for copy in &after {
            if self.after.file(copy) != Some(&message.delivered(id, to)) {
                return Err(format!("{} is not what was sent", copy.display()));
            }
        }
        let is_published = self.past.published.contains(&name);
        match after.len() {
            count if is_published && !prepared && count == before => Ok(()),
            count if is_published && !prepared => {
                Err(format!("the reader had it: {before} copies became {count}"))
            }
            0 if is_safe => Ok(()),
            0 => Err(format!("lost; view {view:?}")),
            1 if times == 1 && bounces > 0 => Err("delivered and bounced".into()),
            1 => Ok(()),
            count => Err(format!("{count} copies: {after:?}")),
        }
    }

    /// How many notices about a recipient of a message are there, of failure or of delay.
    fn notices(&self, number: u64, to: &str, action: &str) -> usize {
        let senders = ["s0", "s1"].map(|sender| maildir(self.root, sender).join("new"));
        let tells = |path: &&PathBuf| {
            let text = self.after.file(path).unwrap_or_default();
            senders.iter().any(|new| path.parent() == Some(new)) && {
                let text = String::from_utf8_lossy(text);
                let told = format!("Final-Recipient: rfc822; {to}\nAction: {action}\n");
                text.contains(&format!("\nX-Number: {number}\n")) && text.contains(&told)
            }
        };
        self.after.paths().filter(tells).count()
    }

    /// What was refused is nowhere, once a later message was stored: the void that says so is durable
    /// with that.
    fn judge_refused(&self) -> Result<(), String> {
        for fact in self.refusals {
            let Fact::Refused { number } = fact else { continue };
            let message = Message::of(*number);
            let session = format!("s{number}");
            let is_queued = self.views.values().any(|view| {
                view.origin.as_ref().is_some_and(|origin| origin.session == session)
                    && view.recipients.len() == message.recipients.len()
                    && view.recipients.iter().zip(&message.recipients).all(|(a, b)| a.address == *b)
            });
            let head = format!("\nX-Number: {number}\n");
            let is_delivered = self.after.paths().any(|path| {
                let is_mail = path.iter().any(|part| part == "new" || part == "cur");
                let text = String::from_utf8_lossy(self.after.file(path).unwrap_or_default());
                is_mail && text.contains(&head)
            });
            if is_queued || is_delivered {
                return Err(format!("message {number} was refused and came all the same"));
            }
        }
        Ok(())
    }
}

/// Where a message lies in a mailbox.
fn copies(world: &World, mailbox: &Path, name: &str) -> Vec<PathBuf> {
    let is_copy = |path: &&PathBuf| {
        let folder = path.parent();
        (folder == Some(&mailbox.join("new")) || folder == Some(&mailbox.join("cur")))
            && mailed(path).is_some_and(|found| found == name)
    };
    world.paths().filter(is_copy).cloned().collect()
}

/// What was known when the disk had done so many operations.
fn known(facts: &[(usize, Fact)], operations: usize) -> Vec<Fact> {
    let known = facts.iter().filter(|(at, _)| *at <= operations);
    known.map(|(_, fact)| fact.clone()).collect()
}
