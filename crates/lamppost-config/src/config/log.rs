//! `[log]`: how log lines look, and which there are.

use super::{GIB, KIB, count_to, size_within};
use crate::reader::{self, Findings, Section};
use crate::unit::ByteSize;

/// `[log]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Log {
    pub format: LogFormat,
    pub level: Level,
    pub outcomes_size_max: ByteSize,
    pub outcomes_files_max: usize,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub enum LogFormat {
    Auto,
    Text,
    Json,
    Journal,
}

/// How important log lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the usual ones")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Log {
    pub(super) fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        const FORMATS: [(&str, LogFormat); 4] = [
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
            ("journal", LogFormat::Journal),
        ];
        const LEVELS: [(&str, Level); 5] = [
            ("error", Level::Error),
            ("warn", Level::Warn),
            ("info", Level::Info),
            ("debug", Level::Debug),
            ("trace", Level::Trace),
        ];
        let format =
            section.read("format", |value| reader::choice(value, &FORMATS), findings).value;
        let level = section.read("level", |value| reader::choice(value, &LEVELS), findings).value;
        let log = Self {
            format,
            level,
            outcomes_size_max: size_within(
                &mut section,
                "outcomes-size-max",
                (64 * KIB, 1024 * GIB),
                findings,
            )
            .value,
            outcomes_files_max: count_to(&mut section, "outcomes-files-max", 1000, findings),
        };
        section.finish(findings);
        log
    }
}
