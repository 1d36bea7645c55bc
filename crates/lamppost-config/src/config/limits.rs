//! `[mail.limits]` and `[mail.auth]`.

use std::time::Duration;

use super::{
    DAY, GIB, KIB, MIB, SECOND, count, count_to, size, size_within, small_count, time, time_within,
};
use crate::reader::{Findings, Section};
use crate::unit::ByteSize;

/// `[mail.limits]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Limits {
    pub sessions_max: usize,
    pub sessions_per_address_max: usize,
    pub greeting_delay: Duration,
    pub command_line_max: ByteSize,
    pub auth_line_max: ByteSize,
    pub data_line_max: ByteSize,
    pub recipients_max: usize,
    pub message_size_max: ByteSize,
    pub commands_max: usize,
    pub errors_max: usize,
    pub messages_max: usize,
    pub auth_tries_max: usize,
    pub hops_max: usize,
    pub command_timeout: Duration,
    pub data_start_timeout: Duration,
    pub data_block_timeout: Duration,
    pub tls_handshake_timeout: Duration,
    pub proxy_header_timeout: Duration,
    pub data_rate_min: ByteSize,
    pub data_rate_grace: Duration,
    pub content_memory_max: ByteSize,
    pub write_timeout: Duration,
}

/// `[mail.auth]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Auth {
    pub failures_per_address_max: u32,
    pub failures_per_account_max: u32,
    pub failure_window: Duration,
    pub failure_delay: Duration,
    pub hashes_at_once_max: usize,
    pub hash_wait: Duration,
    pub messages_per_hour_max: u32,
    pub recipients_per_hour_max: u32,
    pub password_length_min: usize,
}

impl Limits {
    pub(super) fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        let from = &mut section;
        let limits = Self {
            sessions_max: count(from, "sessions-max", findings),
            sessions_per_address_max: count(from, "sessions-per-address-max", findings),
            greeting_delay: time(from, "greeting-delay", findings),
            // RFC 5321 §4.5.3.1.4 and §4.5.3.1.6, RFC 4954 §4.
            command_line_max: size_within(from, "command-line-max", (512, MIB), findings).value,
            auth_line_max: size_within(from, "auth-line-max", (KIB, MIB), findings).value,
            data_line_max: size_within(from, "data-line-max", (1000, 16 * MIB), findings).value,
            recipients_max: count(from, "recipients-max", findings),
            message_size_max: size(from, "message-size-max", findings),
            commands_max: count(from, "commands-max", findings),
            errors_max: count(from, "errors-max", findings),
            messages_max: count(from, "messages-max", findings),
            auth_tries_max: count(from, "auth-tries-max", findings),
            hops_max: count(from, "hops-max", findings),
            command_timeout: time(from, "command-timeout", findings),
            data_start_timeout: time(from, "data-start-timeout", findings),
            data_block_timeout: time(from, "data-block-timeout", findings),
            tls_handshake_timeout: time(from, "tls-handshake-timeout", findings),
            proxy_header_timeout: time(from, "proxy-header-timeout", findings),
            data_rate_min: size(from, "data-rate-min", findings),
            data_rate_grace: time(from, "data-rate-grace", findings),
            content_memory_max: size_within(
                from,
                "content-memory-max",
                (MIB, 1024 * GIB),
                findings,
            )
            .value,
            write_timeout: time_within(from, "write-timeout", (SECOND, DAY), findings).value,
        };
        section.finish(findings);
        limits
    }
}

impl Auth {
    pub(super) fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        let from = &mut section;
        let auth = Self {
            failures_per_address_max: small_count(from, "failures-per-address-max", findings),
            failures_per_account_max: small_count(from, "failures-per-account-max", findings),
            failure_window: time(from, "failure-window", findings),
            failure_delay: time(from, "failure-delay", findings),
            hashes_at_once_max: count_to(from, "hashes-at-once-max", 1000, findings),
            hash_wait: time_within(from, "hash-wait", (SECOND, DAY), findings).value,
            messages_per_hour_max: small_count(from, "messages-per-hour-max", findings),
            recipients_per_hour_max: small_count(from, "recipients-per-hour-max", findings),
            // Those that are made have more letters.
            password_length_min: count_to(from, "password-length-min", 20, findings),
        };
        section.finish(findings);
        auth
    }
}
