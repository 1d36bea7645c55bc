//! The variables that tell a program who it serves (tcp-environ(5)).

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use super::connection::Found;

/// Sets what is known, and nothing that another may have set.
pub(super) fn set(command: &mut Command, found: &Found) {
    let Found { local, remote, local_ip, remote_ip, .. } = found;
    command.env("PROTO", if remote_ip.is_ipv4() { "TCP" } else { "TCP6" });
    some(command, "TCP", found, (*local_ip, *remote_ip));
    if local.is_ipv6() {
        some(command, "TCP6", found, (local.ip(), remote.ip()));
        let interface = interface(remote);
        either(command, "TCP6INTERFACE", interface.as_deref());
    }
}

fn some(command: &mut Command, prefix: &str, found: &Found, (local, remote): (IpAddr, IpAddr)) {
    command.env(format!("{prefix}LOCALIP"), local.to_string());
    command.env(format!("{prefix}LOCALPORT"), found.local.port().to_string());
    command.env(format!("{prefix}REMOTEIP"), remote.to_string());
    command.env(format!("{prefix}REMOTEPORT"), found.remote.port().to_string());
    let name = found.local_name.as_deref().map(OsStr::from_bytes);
    either(command, &format!("{prefix}LOCALHOST"), name);
    let name = found.remote_name.as_ref().map(OsStr::new);
    either(command, &format!("{prefix}REMOTEHOST"), name);
    let user = found.user.as_deref().map(OsStr::from_bytes);
    either(command, &format!("{prefix}REMOTEINFO"), user);
}

fn either(command: &mut Command, name: &str, value: Option<&OsStr>) {
    match value {
        Some(value) => command.env(name, value),
        None => command.env_remove(name),
    };
}

/// The interface of a link-local client.
fn interface(remote: &SocketAddr) -> Option<OsString> {
    let SocketAddr::V6(remote) = remote else { return None };
    let socket = std::net::UdpSocket::bind("[::1]:0").ok().filter(|_| remote.scope_id() != 0)?;
    rustix::net::netdevice::index_to_name(&socket, remote.scope_id()).ok().map(OsString::from)
}
