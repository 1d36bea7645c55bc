//! File systems made for a test.

use std::path::Path;

/// The line of `[mail.queue]` without which a spool in memory is refused, where this is one and the
/// program knows the line.
pub(crate) fn volatile_line(state: &Path) -> &'static str {
    /// `statfs(2)`: `TMPFS_MAGIC`.
    const TMPFS: u64 = 0x0102_1994;
    let kind = rustix::fs::statfs(state).map(|stat| stat.f_type.cast_unsigned());
    if kind != Ok(TMPFS) {
        return "";
    }
    let defaults = super::lamppost().args(["config", "defaults"]).output().unwrap();
    let is_known = String::from_utf8_lossy(&defaults.stdout).contains("accept-volatile");
    if is_known { "accept-volatile = true" } else { "" }
}
