//! One connection: looked up, allowed or denied, and served by a program.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Command;
use std::sync::Arc;

use lamppost_rules::Client;

use super::lines::{self, Announcement, Ends};
use super::names::Names;
use super::options::{Options, Verbosity};
use super::places::{Place, Places};
use super::ruling::{Ruling, Verdict};
use super::{environment, ident};
use crate::words;

/// The statuses of a process that denied a connection, or gave it up, as wait(2) tells them.
const DENIED: i32 = 100 << 8;
const GIVEN_UP: i32 = 111 << 8;
/// The variable of a rule that says how many connections an address may have at once.
const ADDRESS_LIMIT: &[u8] = b"MAXCONNIP";

/// What all connections share.
#[derive(Debug)]
pub(super) struct Server {
    options: Options,
    pub(super) places: Arc<Places>,
    names: Names,
    ruling: Ruling,
}

/// What was found of a connection.
#[derive(Debug)]
pub(super) struct Found {
    /// As the socket has them, where IPv4 in IPv6 is IPv6.
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// As others know them: IPv4 in IPv6 is IPv4, unless that is not wanted.
    pub(super) local_ip: IpAddr,
    pub(super) remote_ip: IpAddr,
    pub(super) local_name: Option<Vec<u8>>,
    pub(super) remote_name: Option<String>,
    pub(super) user: Option<Vec<u8>>,
}

/// Why no program serves a connection.
enum End {
    Denied,
    GivenUp(Vec<u8>),
}

impl Server {
    pub(super) fn new(options: Options) -> Self {
        let places = Places::new(options.limit, options.verbosity >= Verbosity::All);
        Self { options, places, names: Names::default(), ruling: Ruling::default() }
    }

    /// Serves a connection to its end.
    pub(super) fn serve(&self, stream: TcpStream, remote: SocketAddr, mut place: Place) {
        // It is closed after all is told of it, or once a program has it.
        let mut stream = Some(stream);
        let count = place.count(remote.ip());
        let mut ends = None;
        let looked = stream.as_ref().map(|stream| self.look(stream, remote, count));
        let served = looked.unwrap_or(Err(End::Denied)).and_then(|found| {
            let ends = &*ends.insert(found.ends());
            let verdict = self.rule(&found, count)?;
            self.run(&mut stream, (&found, ends), verdict)
        });
        let line = match served {
            Ok((process, status)) => lines::ends(process, status),
            Err(end) => {
                let (own, status) = self.give_up(remote, ends.as_ref(), end);
                lines::ends(own, status)
            }
        };
        place.tell_last(line);
    }

    /// Tells why no program serves it; the thread stands for the process that there is not.
    fn give_up(&self, remote: SocketAddr, ends: Option<&Ends>, end: End) -> (u32, i32) {
        let own = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let ip = self.known(remote).to_string();
        let (status, why, decided) = match end {
            End::Denied => (DENIED, None, ends.map(|ends| ("deny", ends))),
            End::GivenUp(why) => (GIVEN_UP, Some(why), None),
        };
        if self.options.verbosity >= Verbosity::All {
            Announcement::new(&ip, decided).write(own);
        }
        if let Some(why) = why.filter(|_| self.options.verbosity >= Verbosity::Warnings) {
            lines::dropped(&why);
        }
        (own, status)
    }

    /// Finds what is wanted of a connection, each within its time.
    fn look(&self, mut stream: &TcpStream, remote: SocketAddr, count: u64) -> Result<Found, End> {
        let options = &self.options;
        within(count, options.address_limit, remote)?;
        if !options.keeps_route {
            forget_ip_options(stream);
        }
        if options.no_delay {
            // What is sent a little later is sent all the same.
            drop(stream.set_nodelay(true));
        }
        let at = |step: &'static str| {
            move |error: io::Error| End::GivenUp(format!("{step}: {}", words::of(&error)).into())
        };
        stream.write_all(&options.banner).map_err(at("unable to print banner"))?;
        let local = stream.local_addr().map_err(at("unable to get local address"))?;
        let patience = options.name_patience;
        let own_name = || self.names.of(local.ip().to_canonical(), patience, false);
        let local_name = match &options.local_name {
            Some(name) => Some(name.clone()),
            None => own_name().map(String::into_bytes),
        };
        let name = || self.names.of(remote.ip().to_canonical(), patience, options.paranoid);
        let remote_name = options.names.then(name).flatten();
        let user = || ident::user(local, remote, options.ident_patience);
        Ok(Found {
            local,
            remote,
            local_ip: self.known(local),
            remote_ip: self.known(remote),
            local_name,
            remote_name,
            user: options.ident.then(user).flatten(),
        })
    }

    /// An address as others know it: IPv4 in IPv6 is IPv4, unless that is not wanted.
    fn known(&self, address: SocketAddr) -> IpAddr {
        if self.options.ipv6 { address.ip() } else { address.ip().to_canonical() }
    }

    /// What the rules say of it.
    fn rule(&self, found: &Found, count: u64) -> Result<Verdict, End> {
        let Some(file) = &self.options.rules else { return Ok(Verdict::default()) };
        let ip = found.remote_ip.to_string();
        let client = Client {
            ip: ip.as_bytes(),
            host: found.remote_name.as_deref().map(str::as_bytes),
            info: found.user.as_deref(),
        };
        let ruled = self.ruling.of(file, self.options.may_lack_rules, &client);
        let verdict = ruled.map_err(|why| {
            let file = file.as_bytes();
            End::GivenUp([b"unable to read ", file, b": ", why.as_bytes()].concat())
        })?;
        if verdict.is_denied {
            return Err(End::Denied);
        }
        let limit = verdict.variables.iter().rfind(|(name, _)| name == ADDRESS_LIMIT);
        let limit = limit.and_then(|(_, value)| str::from_utf8(value).ok()?.parse().ok());
        within(count, limit.unwrap_or(0), found.remote)?;
        Ok(verdict)
    }

    /// Has the program serve it; tells its process and how that ended.
    fn run(
        &self,
        stream: &mut Option<TcpStream>,
        (found, ends): (&Found, &Ends),
        verdict: Verdict,
    ) -> Result<(u32, i32), End> {
        let program = &self.options.program;
        let unrun = |error: io::Error| {
            let name = program.first().map(|name| name.as_bytes()).unwrap_or_default();
            let words = words::of(&error);
            End::GivenUp([b"unable to run ", name, b": ", words.as_bytes()].concat())
        };
        let (Some((name, arguments)), Some(socket)) = (program.split_first(), &stream) else {
            return Err(End::Denied);
        };
        let mut command = Command::new(name);
        command.args(arguments);
        environment::set(&mut command, found);
        for (name, value) in verdict.variables {
            if !name.is_empty() {
                command.env(OsString::from_vec(name), OsStr::from_bytes(&value));
            }
        }
        let copy = || socket.try_clone().map(OwnedFd::from).map_err(unrun);
        command.stdin(copy()?).stdout(copy()?);
        if self.options.verbosity >= Verbosity::All {
            let ip = found.remote_ip.to_string();
            let mut announcement = Announcement::new(&ip, Some(("ok", ends)));
            let announce = move || {
                announcement.write(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs());
                Ok(())
            };
            #[expect(unsafe_code, reason = "the line must come before what the program writes")]
            // SAFETY: it takes no memory and no lock, asks for the number of the process and writes once.
            unsafe {
                command.pre_exec(announce);
            }
        }
        let mut child = command.spawn().map_err(unrun)?;
        // The program alone has the connection.
        drop((command, stream.take()));
        let status = child.wait().map_err(unrun)?;
        Ok((child.id(), status.into_raw()))
    }
}

/// An address that has more connections than it may gets none.
fn within(count: u64, limit: u64, remote: SocketAddr) -> Result<(), End> {
    if limit == 0 || count <= limit {
        return Ok(());
    }
    let ip = remote.ip();
    Err(End::GivenUp(format!("{ip} has {limit} already").into()))
}

/// The way that a packet came is no way to answer it.
fn forget_ip_options(stream: &TcpStream) {
    #[expect(unsafe_code, reason = "no safe interface sets IP_OPTIONS")]
    // SAFETY: no options are passed, and the descriptor is open.
    let _set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_OPTIONS,
            std::ptr::null(),
            0,
        )
    };
}

impl Found {
    fn ends(&self) -> Ends {
        let Self { local, remote, local_name, remote_name, user, .. } = self;
        let name = remote_name.clone().unwrap_or_default().into_bytes();
        let user = user.clone().unwrap_or_default();
        Ends {
            local: (local_name.clone().unwrap_or_default(), local.ip().to_string(), local.port()),
            remote: (name, remote.ip().to_string(), user, remote.port()),
        }
    }
}
