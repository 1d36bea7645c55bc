//! How long a server takes to answer to the end of a message.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lamppost_load::{Load, percentile};

/// The 99th percentile under so many sessions of 4 KiB on kept connections.
pub(crate) fn answer_p99(address: SocketAddr, sessions: usize, run: Duration) -> Result<Duration> {
    let mut load = Load::new(address, &["demo@lamppost.test"]);
    load.sessions = sessions;
    load.duration = Some(run);
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
