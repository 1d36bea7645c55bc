//! Policy: accounts, the greylist and the rules of connections.

use std::sync::Arc;

use lamppost_config::Config;
use lamppost_console::Blocked;
use lamppost_database::{Database, Survives};
use lamppost_greylist::{Greylist, SqliteStore};
use lamppost_mail::policy::{ConnectionRules, Policy};
use lamppost_net::SystemClock;
use lamppost_telemetry::Health;
use tracing::error;

use super::{Start, handed};
use crate::exit::{Code, Failure};
use crate::run::setup::Setup;
use crate::run::{open_accounts, settings};
use crate::state_files::{self, ACCOUNTS, GREYLIST, database_failure};

/// Policy at work.
pub(super) struct Running {
    policy: Policy,
    greylist: Arc<Greylist>,
    rules: ConnectionRules,
}

pub(super) async fn begin(mut start: Start) -> Result<Running, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::of(Code::Software, error);
    let (config, setup) = (&start.config, &start.setup);
    let accounts = open_accounts(config, &state_files::database(&setup.state, ACCOUNTS)).await?;
    let greylist = Arc::new(open_greylist(config, setup).await?);
    let settings = settings::policy(config, &setup.hostname);
    let users = start.links.port("users").map_err(|error| Failure::of(Code::Software, &error))?;
    let policy = Policy::new(settings, accounts, greylist.clone(), Arc::new(SystemClock));
    let health = Health::default();
    let reader = start.links.port("rules").map_err(|error| failed(&error))?;
    let rules = ConnectionRules::new(reader, health.clone(), Arc::new(SystemClock));
    rules.set_file(config.mail.rules.file.as_deref());
    if !rules.are_known().await {
        // It was looked at a moment ago.
        let text = health.facts().into_iter().next().map(|fact| fact.text).unwrap_or_default();
        return Err(Failure::new(Code::Config, format!("no connection rules: {text}")));
    }
    let policy = policy.asking(users).ruled_by(rules.clone());
    let policy = policy.counting(start.metrics.clone());
    let told = policy.clone();
    start.inspected(move |mut condition| {
        condition.health = health.facts();
        let (addresses, accounts) = told.blocked();
        condition.blocked = Blocked { addresses: addresses as u64, accounts: accounts as u64 };
        condition
    })?;
    let links = &mut start.links;
    let (joint, questions) = links.joint(&["policy"]).map_err(|error| failed(&error))?;
    let later = links.one("handed").map_err(|error| failed(&error))?;
    handed::receive(later, move |_, end| {
        if let Err(reason) = joint.join("policy", end) {
            error!(%reason, "a new front cannot ask");
        }
    })
    .map_err(|error| failed(&error))?;
    let routes = links.inbox("routes").map_err(|error| failed(&error))?;
    let wishes = links.inbox("greylist").map_err(|error| failed(&error))?;
    tokio::spawn(policy.clone().run_control(wishes));
    tokio::spawn(policy.clone().run(questions));
    tokio::spawn(policy.clone().run_routes(routes));
    Ok(Running { policy, greylist, rules })
}

async fn open_greylist(config: &Config, setup: &Setup) -> Result<Greylist, Failure> {
    // A file of its own: a power cut may cost the last triplets, which only come back later.
    let path = state_files::database(&setup.state, GREYLIST);
    let database = Database::open(&path, Survives::Kill);
    let database = database.map_err(|error| database_failure(&path, &error))?;
    let store = SqliteStore::open(database).await;
    let store = store.map_err(|error| Failure::of(Code::Io, &error))?;
    Ok(Greylist::new(settings::greylist(config), Box::new(store)))
}

impl Running {
    pub(super) fn apply(&self, config: &Config, setup: &Setup) {
        self.greylist.set_policy(settings::greylist(config));
        self.policy.set_settings(settings::policy(config, &setup.hostname));
        self.rules.set_file(config.mail.rules.file.as_deref());
    }
}
