//! Postfix's smtp-sink, which takes every message and keeps none: the same load's limit without a
//! server's work.

use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use super::await_port;
use super::load::{Load, postfix_libraries};
use super::process::leashed;
use crate::setup;

const ADDRESS: &str = "127.0.0.1:22529";
/// Connections that may wait to be accepted.
const BACKLOG: &str = "500";

pub(crate) struct Sink(Child);

impl Sink {
    /// Messages per second of a load.
    pub(crate) fn measure(load: Load) -> Result<f64> {
        let _sink = Self::start()?;
        let begun = Instant::now();
        load.send(ADDRESS)?;
        Ok(f64::from(load.messages) / begun.elapsed().as_secs_f64())
    }

    fn start() -> Result<Self> {
        let program = setup::postfix().join("usr/sbin/smtp-sink");
        let words = [program.into(), "-u".into(), "nobody".into(), ADDRESS.into(), BACKLOG.into()];
        let child = leashed(&words)
            .env("LD_LIBRARY_PATH", postfix_libraries())
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run smtp-sink")?;
        let sink = Self(child);
        await_port(ADDRESS)?;
        Ok(sink)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
