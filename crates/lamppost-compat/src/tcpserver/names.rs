//! The names of addresses, by the system's resolver and within a deadline: one that does not answer holds
//! up a connection no longer than that.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Lookups that may be under way at once, those too that nobody waits for any more.
const UNDER_WAY_MAX: usize = 200;
/// Bytes of the stack of a look-up, which the system's library makes use of.
const STACK_BYTES: usize = 256 * 1024;
/// Bytes of a name (getnameinfo(3)).
const NAME_MAX: usize = 1025;

/// Who looks names up.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<AtomicUsize>);

impl Names {
    /// The name of an address; nothing when there is none, or not in time. `confirmed` wants the address
    /// to be found again by the name.
    pub(super) fn of(
        &self,
        address: IpAddr,
        patience: Duration,
        confirmed: bool,
    ) -> Option<String> {
        let under_way = self.0.clone();
        if under_way.fetch_add(1, Ordering::Relaxed) >= UNDER_WAY_MAX {
            under_way.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let (tell, told) = mpsc::channel();
        let look = move || {
            let name = name_of(address).filter(|name| !confirmed || leads_to(name, address));
            under_way.fetch_sub(1, Ordering::Relaxed);
            // Nobody may wait any more.
            drop(tell.send(name));
        };
        let thread = thread::Builder::new().name("names".into()).stack_size(STACK_BYTES);
        if thread.spawn(look).is_err() {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        told.recv_timeout(patience).ok().flatten()
    }
}

fn leads_to(name: &str, address: IpAddr) -> bool {
    let found = (name, 0).to_socket_addrs();
    found.is_ok_and(|mut found| found.any(|one| one.ip().to_canonical() == address))
}

/// What the system calls an address; a name that is none, as anybody may put into the DNS, is nothing.
fn name_of(address: IpAddr) -> Option<String> {
    let mut name = [0_u8; NAME_MAX];
    let found = getnameinfo(address, &mut name);
    let length = name.iter().position(|&byte| byte == 0).filter(|_| found)?;
    let name = str::from_utf8(&name[..length]).ok()?;
    let is_right = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_right)).then(|| name.to_owned())
}

/// Asks the system's resolver; the name ends with a zero.
fn getnameinfo(address: IpAddr, name: &mut [u8; NAME_MAX]) -> bool {
    let family = |family| libc::sa_family_t::try_from(family).unwrap_or_default();
    match address {
        IpAddr::V4(address) => {
            let address = libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: 0,
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                sin_zero: [0; 8],
            };
            ask(&address, name)
        }
        IpAddr::V6(address) => {
            let address = libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.octets() },
                sin6_scope_id: 0,
            };
            ask(&address, name)
        }
    }
}

/// `address` is one of the system's structures of addresses.
fn ask<T>(address: &T, name: &mut [u8; NAME_MAX]) -> bool {
    let size = |bytes: usize| libc::socklen_t::try_from(bytes).unwrap_or_default();
    let (from, from_size) = ((&raw const *address).cast(), size(size_of::<T>()));
    let (to, to_size) = (name.as_mut_ptr().cast(), size(NAME_MAX));
    let (service, flags) = (std::ptr::null_mut(), libc::NI_NAMEREQD);
    #[expect(unsafe_code, reason = "no safe interface tells the names of addresses")]
    // SAFETY: both live until the call ends, and their sizes are told.
    let failed = unsafe { libc::getnameinfo(from, from_size, to, to_size, service, 0, flags) };
    failed == 0
}
