//! How many connections there are, in all and from each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::lines;
use crate::words;

/// Places for connections.
#[derive(Debug)]
pub(super) struct Places {
    limit: u64,
    /// Whether each change is told.
    is_told: bool,
    taken: Mutex<Taken>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    count: u64,
    by_network: HashMap<IpAddr, u64>,
}

/// A place that is free.
pub(super) struct Free<'p>(&'p Arc<Places>);

/// A place that a connection has.
pub(super) struct Place {
    places: Arc<Places>,
    /// Where the client is, once it is counted.
    network: Option<IpAddr>,
    /// What is to be told when it ends.
    last: Option<String>,
}

impl Places {
    pub(super) fn new(limit: u64, is_told: bool) -> Arc<Self> {
        let (taken, freed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { limit, is_told, taken, freed })
    }

    /// Tells how many there are.
    pub(super) fn tell(&self) {
        self.told(&self.taken());
    }

    /// Waits for a free place; the only thread that takes any calls it.
    pub(super) fn wait(self: &Arc<Self>) -> Free<'_> {
        let mut taken = self.taken();
        while taken.count >= self.limit {
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        drop(taken);
        Free(self)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, taken: &Taken) {
        if self.is_told {
            words::tell(lines::status(taken.count, self.limit).as_bytes());
        }
    }
}

impl Free<'_> {
    /// Takes it.
    pub(super) fn take(self) -> Place {
        let mut taken = self.0.taken();
        taken.count += 1;
        self.0.told(&taken);
        Place { places: self.0.clone(), network: None, last: None }
    }
}

impl Place {
    /// Counts the connection among those of its client; tells how many there are with it.
    pub(super) fn count(&mut self, client: IpAddr) -> u64 {
        let network = network(client);
        let mut taken = self.places.taken();
        let count = taken.by_network.entry(network).or_default();
        *count += 1;
        let count = *count;
        drop(taken);
        self.network = Some(network);
        count
    }

    /// Tells this when it ends.
    pub(super) fn tell_last(&mut self, line: String) {
        self.last = Some(line);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.count = taken.count.saturating_sub(1);
        if let Some(network) = self.network
            && let Some(count) = taken.by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                taken.by_network.remove(&network);
            }
        }
        if let Some(line) = self.last.as_ref().filter(|_| self.places.is_told) {
            words::tell(line.as_bytes());
        }
        self.places.told(&taken);
        drop(taken);
        self.places.freed.notify_one();
    }
}

/// What counts as one client: an address of IPv4, or the /64 of one of IPv6.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) & (u128::MAX << 64);
            Ipv6Addr::from(bits).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}
