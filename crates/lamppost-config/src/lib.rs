//! `lamppost.toml`: text to a checked configuration, or every problem with its place and cure.
//!
//! Defaults stand in `defaults.toml`, `dns_list.toml` and `listen.toml` and nowhere else; the comments there are the
//! reference that `lamppost explain` prints.

mod config;
mod problem;
mod reader;
mod reference;
mod remark;
mod unit;

pub use config::{
    AnswerRange, Auth, Config, Dns, DnsList, DnsListKind, DnsLists, Durability, Greylist,
    GreylistAlgorithm, GreylistDatabase, GreylistFor, GreylistMode, GreylistRules, GreylistService,
    GreylistStage, HostPort, Kind, Level, Limits, Listen, LoadError, Log, LogFormat, Mail, Metrics,
    Network, Queue, Relay, RelayTls, Rules, Secret, Sendmail, Server, SharedDatabase, StoreFailure,
    SystemUsers, Tls, TlsMode, WhenAbsent, WhenListsFail, read_file,
};
pub use problem::{Problem, Problems, Severity};
pub use reference::{
    Entry, Key, Source, defaults_text, demo_text, explain, explain_section, init_text, reference,
    similar_key,
};
pub use remark::{Remark, line_of, placed, text_of};
pub use unit::{ByteSize, format_duration, parse_duration};
