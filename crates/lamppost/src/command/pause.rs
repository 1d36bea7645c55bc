//! pause and resume.

use clap::{Args, ValueEnum};
use lamppost_console::{ClientError, Part, Pause as Asked};

use super::{client, out, unanswered};
use crate::exit::{Code, Failure};
use crate::place::Place;

/// What can pause.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// New connections wait; sessions that are open go on
    Front,
    /// Mail is taken, and waits in the queue
    Delivery,
}

/// Have new connections, or deliveries, wait until `resume`.
///
/// A pause outlasts reloads, upgrades and restarts: only `resume` ends it.
#[derive(Args, Debug)]
pub(crate) struct Pause {
    /// What is to wait
    #[arg(value_name = "WHAT")]
    what: What,
}

/// Have connections or deliveries go on after `pause`.
#[derive(Args, Debug)]
pub(crate) struct Resume {
    /// What is to go on
    #[arg(value_name = "WHAT")]
    what: What,
}

impl Pause {
    pub(crate) async fn execute(self, place: &Place) -> Result<(), Failure> {
        ask(place, "/v1/pause", self.what).await
    }
}

impl Resume {
    pub(crate) async fn execute(self, place: &Place) -> Result<(), Failure> {
        ask(place, "/v1/resume", self.what).await
    }
}

async fn ask(place: &Place, path: &str, what: What) -> Result<(), Failure> {
    let part = match what {
        What::Front => Part::Front,
        What::Delivery => Part::Delivery,
    };
    let done = client(place)?.post::<serde_json::Value>(path, &Asked { part }).await;
    let done = done.map_err(|error| match error {
        ClientError::Refused(text) => Failure::new(Code::Unavailable, text),
        error => unanswered(&error),
    })?;
    out::print(&format!("{}\n", done["done"].as_str().unwrap_or_default()))
}
