//! Policy: accounts, the greylist, the rules of connections and lists in the DNS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lamppost_config::{self as config, Config, Dns, DnsList};
use lamppost_console::Blocked;
use lamppost_database::{Database, Survives};
use lamppost_dns::NameServers;
use lamppost_greylist::{Greylist, SqliteStore};
use lamppost_mail::policy::{ConnectionRules, DnsLists, Policy};
use lamppost_net::SystemClock;
use lamppost_telemetry::Health;
use parking_lot::Mutex;
use tracing::error;

use super::inquiries::Inquiries;
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
    asking: Asking,
    inquiries: Inquiries,
}

/// Those who ask name servers, and what the configuration said of that when they were set.
struct Asking {
    lists: DnsLists,
    rules: ConnectionRules,
    set: Mutex<Option<Box<SetBy>>>,
}

/// All that lists in the DNS and the names of clients depend on.
type SetBy = (Dns, config::DnsLists, Vec<DnsList>, Duration, Vec<SocketAddr>);

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
    let lists = DnsLists::new(health.clone(), start.metrics.clone(), Arc::new(SystemClock));
    let policy = policy.asking(users).ruled_by(rules.clone());
    let policy = policy.counting(start.metrics.clone());
    let policy = policy.asking_lists(lists.clone());
    let asking = Asking { lists, rules: rules.clone(), set: Mutex::new(None) };
    asking.set(config, setup)?;
    let inquiries = Inquiries::of(&policy);
    inquiries.set(config, setup)?;
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
    Ok(Running { policy, greylist, rules, asking, inquiries })
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
    pub(super) fn apply(&self, config: &Config, setup: &Setup) -> Result<(), Failure> {
        self.greylist.set_policy(settings::greylist(config));
        self.policy.set_settings(settings::policy(config, &setup.hostname));
        self.rules.set_file(config.mail.rules.file.as_deref());
        self.inquiries.set(config, setup)?;
        self.asking.set(config, setup)
    }

    /// Writes what is in memory alone.
    pub(super) async fn finish(self, grace: Duration) {
        // A store that does not answer must not hold up the end.
        drop(tokio::time::timeout(grace, self.policy.write()).await);
    }
}

/// Whether the name servers could be asked as the configuration says.
pub(super) fn check(config: &Config, setup: &Setup) -> Result<(), Failure> {
    name_servers(config, setup).map(drop)
}

pub(super) fn name_servers(config: &Config, setup: &Setup) -> Result<NameServers, Failure> {
    NameServers::new(&setup.name_servers, settings::name_servers(config))
        .map_err(|error| Failure::at(Code::Config, "dns.servers", &error))
}

impl Asking {
    /// Asks as the configuration says; what is known of lists is kept where that is as before.
    fn set(&self, config: &Config, setup: &Setup) -> Result<(), Failure> {
        let mail = &config.mail;
        let by = Box::new((
            config.dns.clone(),
            mail.dns_lists.clone(),
            mail.dns_list.clone(),
            mail.rules.name_timeout,
            setup.name_servers.clone(),
        ));
        let mut set = self.set.lock();
        if set.as_ref() != Some(&by) && (set.is_some() || settings::asks_name_servers(config)) {
            let resolver = Arc::new(name_servers(config, setup)?);
            self.lists.set(settings::dns_lists(config), resolver.clone());
            self.rules.set_resolver(resolver, mail.rules.name_timeout);
            *set = Some(by);
        }
        Ok(())
    }
}
