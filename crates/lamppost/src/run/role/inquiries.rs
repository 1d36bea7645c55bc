//! Who asks name servers about clients that the greylist does not know.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lamppost_config::{Config, Dns, GreylistAlgorithm};
use lamppost_evidence::{DnsInvestigator, Investigator, Limits};
use lamppost_mail::policy::Policy;
use parking_lot::Mutex;

use super::policy::name_servers;
use crate::exit::Failure;
use crate::run::setup::Setup;

/// Those inquiries, and what the configuration said of them when they were set.
pub(super) struct Inquiries {
    policy: Policy,
    set: Mutex<Option<AskedBy>>,
}

/// All that inquiries depend on; nothing where there are none.
type AskedBy = Option<(Dns, Duration, Vec<SocketAddr>)>;

impl Inquiries {
    pub(super) fn of(policy: &Policy) -> Self {
        Self { policy: policy.clone(), set: Mutex::new(None) }
    }

    /// Asks as the configuration says; what was found is kept where that is as before.
    pub(super) fn set(&self, config: &Config, setup: &Setup) -> Result<(), Failure> {
        let rules = &config.mail.greylist.rules;
        let is_asked = rules.lookups && rules.policy == GreylistAlgorithm::Adaptive;
        let by = || (config.dns.clone(), rules.lookup_timeout, setup.name_servers.clone());
        let by = is_asked.then(by);
        let mut set = self.set.lock();
        if set.as_ref() == Some(&by) {
            return Ok(());
        }
        let limits = Limits { deadline: rules.lookup_timeout, ..Limits::default() };
        let investigator = if is_asked {
            let resolver = Arc::new(name_servers(config, setup)?);
            let investigator: Arc<dyn Investigator> =
                Arc::new(DnsInvestigator::new(resolver, limits));
            Some(investigator)
        } else {
            None
        };
        self.policy.set_investigator(investigator);
        *set = Some(by);
        Ok(())
    }
}
