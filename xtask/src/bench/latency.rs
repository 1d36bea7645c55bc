//! How long a server takes to answer to the end of a message.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lamppost_load::{Load, percentile};

use super::table::figure;

/// Sessions of 4 KiB on kept connections.
const SESSIONS: u32 = 20;
/// Messages a second of all sessions together where they do not send as fast as they can.
pub(crate) const PACED: u32 = 1000;

/// 99th percentiles.
pub(crate) struct Answers {
    /// Under a load that the server keeps up with: what a client waits for on a busy day.
    pub(crate) paced: Duration,
    /// Under all that the sessions can send: each waits for its turn on the processors.
    pub(crate) saturated: Duration,
}

impl Answers {
    pub(crate) fn measure(address: SocketAddr, run: Duration) -> Result<Self> {
        let paced = p99(address, run, Duration::from_secs(1) * SESSIONS / PACED)?;
        let saturated = p99(address, run, Duration::ZERO)?;
        Ok(Self { paced, saturated })
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        format!(
            "p99 of the answer to DATA at {SESSIONS} sessions of 4 KiB, kept connections: {} ms at \
             {PACED} messages a second, {} ms as fast as it goes",
            figure(self.paced.as_secs_f64() * 1e3),
            figure(self.saturated.as_secs_f64() * 1e3)
        )
    }
}

fn p99(address: SocketAddr, run: Duration, interval: Duration) -> Result<Duration> {
    let mut load = Load::new(address, &["demo@lamppost.test"]);
    load.sessions = SESSIONS as usize;
    load.duration = Some(run);
    load.interval = interval;
    let report = load.start().context("cannot start the load")?.finish();
    ensure!(report.complaints.is_empty(), "the load failed: {}", report.complaints.join("; "));
    let latencies = report.latencies();
    ensure!(!latencies.is_empty(), "no message was acknowledged");
    println!(
        "  {} messages, median {:.2} ms, p99 {:.2} ms",
        latencies.len(),
        percentile(&latencies, 0.5).as_secs_f64() * 1e3,
        percentile(&latencies, 0.99).as_secs_f64() * 1e3
    );
    Ok(percentile(&latencies, 0.99))
}
