//! Where tcpserver listens: the one address that is named, and no other.

use std::ffi::OsStr;
use std::io;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, ToSocketAddrs as _,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::options::Options;
use crate::words;

/// The list of ports' names.
const SERVICES: &str = "/etc/services";

/// The port; what it is not is what is to be told.
pub(super) fn port(name: &OsStr) -> Result<u16, String> {
    let name = name.to_string_lossy();
    let unknown = || format!("tcpserver: fatal: unable to figure out port number for {name}");
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
        return name.parse().map_err(|_| unknown());
    }
    let services = std::fs::read_to_string(SERVICES).unwrap_or_default();
    let found = services.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let (first, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        let is_it = first == name || words.any(|alias| alias == name);
        is_it.then(|| port.parse().ok()).flatten()
    });
    found.ok_or_else(unknown)
}

/// The address of the host; of several, the first.
pub(super) fn address(options: &Options) -> Result<IpAddr, String> {
    let host = options.host.to_string_lossy();
    if host.is_empty() || host == "0" {
        let any: (IpAddr, IpAddr) = (Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into());
        return Ok(if options.ipv6 { any.0 } else { any.1 });
    }
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let found = (&*host, 0).to_socket_addrs().map_err(|error| {
        let words = words::of(&error);
        format!("tcpserver: fatal: temporarily unable to figure out IP address for {host}: {words}")
    })?;
    let mut found = found.map(|address| address.ip());
    let is_family = |address: &IpAddr| address.is_ipv6() == options.ipv6;
    found.find(is_family).ok_or_else(|| format!("tcpserver: fatal: no IP address for {host}"))
}

/// A socket that listens there.
pub(super) fn bound(address: IpAddr, port: u16, options: &Options) -> Result<TcpListener, String> {
    let at = |step: &str| {
        let step = format!("tcpserver: fatal: unable to {step}: ");
        move |error: rustix::io::Errno| step + &words::of(&io::Error::from(error))
    };
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(at("create socket"))?;
    sockopt::set_socket_reuseaddr(&socket, true).map_err(at("bind"))?;
    let address = match address {
        IpAddr::V4(_) => SocketAddr::new(address, port),
        IpAddr::V6(address) => {
            // Both families, whatever the machine's default is.
            sockopt::set_ipv6_v6only(&socket, false).map_err(at("bind"))?;
            let scope = options.interface.as_ref().map_or(Ok(0), |name| {
                rustix::net::netdevice::name_to_index(&socket, &name.to_string_lossy())
            });
            SocketAddrV6::new(address, port, 0, scope.map_err(at("bind"))?).into()
        }
    };
    bind(&socket, &address).map_err(at("bind"))?;
    listen(&socket, options.backlog).map_err(at("listen"))?;
    Ok(socket.into())
}
