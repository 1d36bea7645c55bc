//! `[mail.greylist.service]`: where other mail servers ask the greylist.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::listen::{Network, networks};
use super::sendmail::mode;
use super::{DAY, KIB, MIB, SECOND, count_to, non_empty, path, size_within, time_within};
use crate::reader::{self, Findings, Section};
use crate::unit::ByteSize;

/// `[mail.greylist.service]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct GreylistService {
    pub listen: Vec<SocketAddr>,
    pub allow_from: Vec<Network>,
    pub socket: Option<PathBuf>,
    pub socket_mode: u32,
    pub socket_group: Option<String>,
    pub connections_max: usize,
    pub request_size_max: ByteSize,
    pub request_timeout: Duration,
    pub idle_timeout: Duration,
}

impl GreylistService {
    pub(super) fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        let from = &mut section;
        let addresses = |value: &_| reader::entries(value, reader::address);
        let listen = from.read("listen", addresses, findings);
        for (place, address) in listen.value.iter().enumerate() {
            if listen.value[..place].contains(address) {
                let cure = Some("remove one of the two".into());
                let what = format!("{address} is listened on twice");
                findings.push(listen.span.clone(), what, cure);
            }
        }
        let timeouts = (SECOND, DAY);
        let service = Self {
            listen: listen.value,
            allow_from: from.read("allow-from", networks, findings).value,
            socket: path(from, "socket", findings),
            socket_mode: from.read("socket-mode", mode, findings).value,
            socket_group: non_empty(from.read("socket-group", reader::text, findings).value),
            connections_max: count_to(from, "connections-max", 100_000, findings),
            request_size_max: size_within(from, "request-size-max", (KIB, MIB), findings).value,
            request_timeout: time_within(from, "request-timeout", timeouts, findings).value,
            idle_timeout: time_within(from, "idle-timeout", timeouts, findings).value,
        };
        section.finish(findings);
        service
    }

    /// Whether anybody can ask.
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty() || self.socket.is_some()
    }
}
