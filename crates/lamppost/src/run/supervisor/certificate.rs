//! Looking after the certificate's files.

use lamppost_telemetry::State;
use tracing::{error, info, warn};

use super::Supervisor;
use super::group::Group;
use crate::exit::chain;
use crate::run::setup::Setup;

impl Supervisor {
    /// Reads the certificate again when its files changed.
    pub(super) async fn look_at_certificate(&mut self, group: &mut Group) {
        let Some(mut watch) = self.certificate.clone() else { return };
        let look = move || {
            let found = watch.changed();
            (watch, found)
        };
        let Ok((watch, found)) = self.files.read(look).await else {
            warn!("the certificate's files could not be looked at in time; the one in force stays");
            return;
        };
        self.certificate = Some(watch);
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
