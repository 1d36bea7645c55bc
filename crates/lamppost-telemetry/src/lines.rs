//! Lines that a thread of its own writes, many at once: neither a slow disk nor a full pipe makes
//! mail wait for its log.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait to be written; what comes beyond is dropped and counted.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The time between two writes of lines that are not urgent: an idle server's line is written at
/// once, and a busy one's are written together.
const GATHER: Duration = Duration::from_millis(5);
/// How long the end of the program waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where lines are handed in; clones hand in to the same.
#[derive(Clone, Debug)]
pub(crate) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something was handed in that is to be written.
    handed_in: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Lines that found no room since it was last told.
    dropped: u64,
    /// Somebody waits for what is there.
    is_urgent: bool,
    has_ended: bool,
    /// Everything is written, and nothing more will be.
    is_written: bool,
}

/// The thread that writes; dropped, it writes out what waits and ends.
#[derive(Debug)]
pub(crate) struct Writer(Lines);

impl Lines {
    /// Begins a thread that passes what is handed in to `write`, with how many lines were dropped
    /// before it.
    pub(crate) fn begin(
        name: &str,
        mut write: impl FnMut(&[u8], u64) + Send + 'static,
    ) -> io::Result<(Self, Writer)> {
        let lines = Self(Arc::default());
        let shared = lines.0.clone();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            let (mut bytes, mut not_before) = (Vec::new(), Instant::now());
            while let Some(dropped) = shared.take(&mut bytes, not_before) {
                write(&bytes, dropped);
                bytes.clear();
                not_before = Instant::now() + GATHER;
            }
            shared.waiting.lock().is_written = true;
            shared.written.notify_one();
        })?;
        Ok((lines.clone(), Writer(lines)))
    }

    /// Hands in whole lines. Those of level warning and above are written at once.
    pub(crate) fn hand_in(&self, lines: &[u8], level: Level) {
        let mut waiting = self.0.waiting.lock();
        if waiting.bytes.len() + lines.len() > WAITING_BYTES_MAX {
            waiting.dropped += 1;
            return;
        }
        let was_empty = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(lines);
        let is_urgent = level <= Level::WARN;
        waiting.is_urgent |= is_urgent;
        if was_empty || is_urgent {
            self.0.handed_in.notify_one();
        }
    }
}

impl Shared {
    /// Waits for lines and takes all; tells how many were dropped, or nothing at the end.
    fn take(&self, into: &mut Vec<u8>, not_before: Instant) -> Option<u64> {
        let mut waiting = self.waiting.lock();
        while waiting.bytes.is_empty() {
            if waiting.has_ended {
                return None;
            }
            self.handed_in.wait(&mut waiting);
        }
        let gathers = |waiting: &mut Waiting| !waiting.is_urgent && !waiting.has_ended;
        self.handed_in.wait_while_until(&mut waiting, gathers, not_before);
        std::mem::swap(&mut waiting.bytes, into);
        waiting.is_urgent = false;
        Some(std::mem::take(&mut waiting.dropped))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Shared { waiting, handed_in, written } = &*self.0.0;
        let mut waiting = waiting.lock();
        waiting.has_ended = true;
        handed_in.notify_one();
        written.wait_while_for(&mut waiting, |waiting| !waiting.is_written, LAST_LINES);
    }
}

/// One event's text on its way.
pub(crate) struct Event<'a> {
    lines: &'a Lines,
    level: Level,
}

impl io::Write for Event<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.lines.hand_in(text, self.level);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event { lines: self, level: Level::INFO }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Event<'a> {
        Event { lines: self, level: *meta.level() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn all_lines_are_written_in_order_before_the_end() {
        let (to, from) = channel();
        let (lines, writer) = Lines::begin("test", move |bytes, dropped| {
            to.send((bytes.to_vec(), dropped)).unwrap();
        })
        .unwrap();
        let mut wanted = Vec::new();
        for number in 0..1000 {
            let line = format!("{number}\n");
            lines.hand_in(line.as_bytes(), Level::INFO);
            wanted.extend_from_slice(line.as_bytes());
        }
        drop(writer);
        let (written, dropped): (Vec<_>, Vec<_>) = from.into_iter().unzip();
        assert_eq!(written.concat(), wanted);
        assert_eq!(dropped.iter().sum::<u64>(), 0);
    }

    #[test]
    fn a_writer_that_hangs_holds_nobody_up_and_what_it_costs_is_counted() {
        let (go_on, held) = channel::<()>();
        let (to, from) = channel();
        let (lines, writer) = Lines::begin("test", move |bytes, dropped| {
            to.send((bytes.len(), dropped)).unwrap();
            let _ended = held.recv();
        })
        .unwrap();
        lines.hand_in(b"first\n", Level::ERROR);
        assert_eq!(from.recv(), Ok((6, 0)));
        let line = vec![b'x'; WAITING_BYTES_MAX / 4];
        for _ in 0..6 {
            lines.hand_in(&line, Level::INFO);
        }
        drop(go_on);
        drop(writer);
        assert_eq!(from.recv(), Ok((WAITING_BYTES_MAX, 2)));
    }

    #[test]
    fn the_end_waits_for_a_writer_that_hangs_for_a_bounded_time_only() {
        let (_go_on, held) = channel::<()>();
        let (lines, writer) = Lines::begin("test", move |_, _| {
            let _ended = held.recv();
        })
        .unwrap();
        lines.hand_in(b"x\n", Level::ERROR);
        drop(writer);
    }
}
