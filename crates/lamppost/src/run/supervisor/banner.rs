//! What a start tells: what listens where.

use std::fmt::Write as _;

use super::Supervisor;
use crate::command::out;
use crate::run::local::Local;

impl Supervisor {
    /// What listens where.
    pub(super) fn banner(&self) -> String {
        let mut text = format!("Lamppost {}\n\n", env!("CARGO_PKG_VERSION"));
        let file = self
            .opened
            .file
            .as_ref()
            .map_or("none (the built-in demo)".into(), |file| file.display().to_string());
        let _infallible =
            writeln!(text, "  file      {file}\n  state     {}", self.opened.state.display());
        for bound in self.mail.iter().filter(|bound| !bound.is_skipped) {
            let status = bound.status();
            let waiting = if status.listening { "" } else { ", once the address appears" };
            let (kind, tls) = out::words_of(&status);
            let _infallible = match bound.listen {
                Some(_) => {
                    writeln!(text, "  smtp      {} for {kind}, TLS: {tls}{waiting}", status.address)
                }
                None => writeln!(text, "  greylist  {} for {kind}", status.address),
            };
        }
        for address in self.metrics.iter().filter_map(|socket| socket.local_addr().ok()) {
            let _infallible = writeln!(text, "  metrics   http://{address}/metrics");
        }
        for Local { purpose, path, .. } in &self.locals {
            let _infallible = writeln!(text, "  {:<9} {}", purpose.name(), path.display());
        }
        let _infallible = writeln!(text, "  control   {}", self.opened.control_socket.display());
        for part in self.paused.iter().map(|part| part.name()) {
            let _infallible = writeln!(text, "  paused    {part}, until `lamppost resume {part}`");
        }
        let pem = self.setup.pem.as_ref();
        if let Some(pem) = pem {
            let _infallible = writeln!(text, "  TLS       {}", pem.files.certificate.display());
        }
        let tls = &self.config().tls;
        if tls.self_signed && tls.files.is_none() && pem.is_some() {
            let ca = self.opened.state.join("tls/ca.pem");
            let _infallible =
                writeln!(text, "  CA        {} (self-made; for trying out only)", ca.display());
        }
        text
    }
}
