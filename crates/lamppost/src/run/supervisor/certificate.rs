//! Looking after the certificate's files.

use lamppost_telemetry::State;
use tracing::{error, info};

use super::Supervisor;
use super::group::Group;
use crate::exit::chain;
use crate::run::setup::Setup;

impl Supervisor {
    /// Reads the certificate again when its files changed.
    pub(super) async fn look_at_certificate(&mut self, group: &mut Group) {
        let Some(watch) = &mut self.certificate else { return };
        let found = watch.changed();
        let done = match found {
            Ok(None) => return,
            Ok(Some(pem)) => {
                let certificate = pem.files.certificate.clone();
                let setup = Setup { pem: Some(pem), ..self.setup.clone() };
                let taken = self.pass_on(group, setup).await;
                taken.map(|()| certificate).map_err(|failure| failure.text().to_owned())
            }
            Err(error) => Err(chain(&error)),
        };
        match done {
            Ok(certificate) => {
                info!(certificate = %certificate.display(), "certificate read again");
                self.health.set("certificate", State::Ok, "read again");
            }
            Err(text) => {
                error!(reason = text, "the new certificate cannot be used; the old one stays");
                self.health.set("certificate", State::Fail, &text);
            }
        }
    }
}
