//! Kills under load, with a reader at work, and the account of every message afterwards.

use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use lamppost_load::{Load, Random};

use super::reader::Reader;
use super::{Server, Setup, accounting, until};

/// The accounts that get mail.
pub(crate) const ACCOUNTS: [&str; 4] =
    ["demo@lamppost.test", "ada@lamppost.test", "bob@lamppost.test", "cyd@lamppost.test"];

/// Most acknowledgements between two kills.
const BETWEEN_MAX: u64 = 300;
/// Those that can be killed, beside the supervisor.
const ROLES: [&str; 5] = ["front", "policy", "queue", "delivery", "control"];
/// The longest that a moment is put off beyond that.
const DELAY_MAX_US: u64 = 30_000;
/// One of so many starts is cut short as well.
const STARTS_PER_CUT: u64 = 3;
/// The longest that such a start may run; the program is ready within that or is not.
const START_MAX_US: u64 = 200_000;

/// A number that no run before had.
pub(crate) fn fresh_seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A server for all accounts whose log goes through many segments in a round.
pub(crate) fn setup() -> Setup {
    let queue = "retry-first = \"1s\"\nsegment-size = \"1MiB\"\nfree-space-min = \"1MiB\"";
    Setup { accounts: &ACCOUNTS, queue, ..Setup::default() }
}

/// The load: sizes on both sides of where contents get files of their own, 1 to 3 recipients.
pub(crate) fn load(server: &Server, seed: u64) -> Load {
    let mut load = Load::new(server.mx, &ACCOUNTS);
    load.sessions = 6;
    load.sizes = vec![400, 2000, 4096, 4096, 20_000, 100_000, 262_143, 400_000];
    load.recipients_per_message = 1..=3;
    load.pipelining = true;
    load.reconnect = true;
    load.seed = seed;
    load
}

/// A round of kills.
pub(crate) struct Kills {
    /// From it follow the messages, the moments and what the reader does.
    pub(crate) seed: u64,
    /// How many.
    pub(crate) count: u64,
    /// The server.
    pub(crate) setup: Setup,
}

impl Default for Kills {
    fn default() -> Self {
        Self { seed: 1, count: 1, setup: setup() }
    }
}

impl Kills {
    /// Kills the server again and again, then accounts for every message; returns what happened, in
    /// a line.
    pub(crate) fn round(&self, state: Option<&Path>) -> String {
        let Self { seed, count, setup } = self;
        // A failure shows how to repeat it.
        println!("LAMPPOST_SEED={seed} LAMPPOST_KILLS={count}");
        let begun = Instant::now();
        let mut random = Random::new(*seed);
        let mut server =
            state.map_or_else(|| Server::start(setup), |state| Server::start_in(setup, state));
        let reader = Reader::start(&server, &ACCOUNTS, *seed);
        let books = tempfile::tempdir().unwrap();
        let journal = books.path().join("journal");
        let load = Load { journal: Some(journal.clone()), ..load(&server, *seed) };
        let running = load.start().unwrap();
        let (mut starts_cut, mut roles_killed) = (0, 0);
        for _ in 0..*count {
            let enough = running.acknowledged() + random.below(BETWEEN_MAX);
            assert!(until(|| running.acknowledged() >= enough), "no progress: {}", server.log());
            pause(random.below(DELAY_MAX_US));
            // The supervisor, with which all end, is a victim as often as any role.
            if random.below(2) == 0 {
                server.kill_role(ROLES[random.index(ROLES.len())]);
                roles_killed += 1;
                continue;
            }
            server.kill();
            if random.below(STARTS_PER_CUT) == 0 {
                server.begin();
                pause(random.below(START_MAX_US));
                server.kill();
                starts_cut += 1;
            }
            server.launch();
        }
        let enough = running.acknowledged() + 20;
        assert!(until(|| running.acknowledged() >= enough));
        running.stop();
        let report = running.finish();
        server.await_empty_queue();
        let notes = reader.finish();
        let mut problems = accounting::problems(std::slice::from_ref(&report), &notes.arrivals);
        problems.extend(notes.problems);
        problems.extend(accounting::journal_problems(&journal, &report));
        assert!(problems.is_empty(), "seed {seed}:\n{}", problems.join("\n"));
        format!(
            "seed {seed}: {count} kills, {roles_killed} of single roles, {starts_cut} starts cut short, in {:.1} s; {} messages \
             acknowledged, {} not answered, {} cut, {} refused; {} arrivals, of which the reader \
             flagged {}, filed {}, deleted {}, left {}; 0 lost, 0 doubled, 0 changed",
            begun.elapsed().as_secs_f64(),
            report.acknowledged().count(),
            report.unknown().count(),
            report.sent.iter().filter(|s| s.outcome == lamppost_load::Outcome::Cut).count(),
            report.refused().count(),
            notes.arrivals.len(),
            notes.flagged,
            notes.filed,
            notes.deleted,
            notes.left,
        )
    }
}

/// The moment of a kill is random in time, not only in what happened before it.
fn pause(microseconds: u64) {
    std::thread::park_timeout(Duration::from_micros(microseconds));
}
