//! `lamppost run`: a supervisor and a process for each role, joined by links.

mod defect;
mod demo;
mod listeners;
mod local;
mod orders;
mod own_users;
mod relay;
mod role;
mod settings;
mod setup;
pub(crate) mod shared_greylist;
mod supervisor;
mod users;

use std::path::Path;

use lamppost_accounts::Accounts;
use lamppost_config::{Config, Level, LogFormat};
use lamppost_database::{Database, Survives};
use lamppost_dns::{LookupError, NameServers};
use lamppost_telemetry::{Format, Guard, Kept, LinesTo, OutcomesTo, StartError};
use tracing::Level as LogLevel;

use crate::exit::{Code, Failure};
use crate::state_files::{database_failure, folder_failure};

pub(crate) use self::own_users::{delivery_user, maildir_template, odd_users};
pub(crate) use self::role::{Role, probe as probe_role, run as run_role};
pub(crate) use self::settings::greylist as greylist_policy;
pub(crate) use self::supervisor::run;
#[cfg(test)]
pub(crate) use self::users::user_name;

/// Finds the way for lines of the log.
fn lines_to(config: &Config) -> Result<LinesTo, Failure> {
    let format = match config.log.format {
        LogFormat::Auto => Format::Auto,
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
        LogFormat::Journal => Format::Journal,
    };
    LinesTo::reach(format).map_err(|error| Failure::of(Code::System, &error))
}

fn start_log(config: &Config, lines: LinesTo, outcomes: OutcomesTo) -> Result<Guard, Failure> {
    let level = match config.log.level {
        Level::Error => LogLevel::ERROR,
        Level::Warn => LogLevel::WARN,
        Level::Info => LogLevel::INFO,
        Level::Debug => LogLevel::DEBUG,
        Level::Trace => LogLevel::TRACE,
    };
    let settings = lamppost_telemetry::Settings { lines, level, outcomes };
    lamppost_telemetry::start(settings).map_err(|error| match &error {
        StartError::Outcomes { path, .. } => folder_failure(path, &error),
        _ => Failure::of(Code::System, &error),
    })
}

/// How much of the outcome log is kept.
fn kept(config: &Config) -> Kept {
    let log = &config.log;
    Kept { size_max: log.outcomes_size_max.0, files_max: log.outcomes_files_max }
}

/// The name servers that the service asks.
pub(crate) fn name_servers(config: &Config) -> Result<NameServers, LookupError> {
    NameServers::new(&setup::name_servers(config), settings::name_servers(config))
}

async fn open_accounts(config: &Config, path: &Path) -> Result<Accounts, Failure> {
    let failed = |error: &_| database_failure(path, error);
    let database = Database::open(path, Survives::PowerCut).map_err(|error| failed(&error))?;
    Accounts::open(database, settings::accounts(config)).await.map_err(|error| failed(&error))
}
