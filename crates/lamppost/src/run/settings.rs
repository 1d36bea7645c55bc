//! From the checked configuration to the settings of each service.

use std::path::Path;
use std::sync::Arc;

use lamppost_config as config;
use lamppost_config::Config;
use lamppost_delivery::{MaildirTemplate, OwnersSettings, Relay, TemplateError};
use lamppost_greylist::{Adaptive, Algorithm, Policy as GreylistPolicy, Stage, Terms};
use lamppost_mail::policy::{
    Elsewhere, ListKind, ListSettings, ListsFailure, ListsSettings, LocalSettings, PolicySettings,
    StoreFailure,
};
use lamppost_mail::{
    FrontLimits, FrontSettings, GreylistServiceSettings, Ground, ListenerSettings, TlsMode,
};
use lamppost_net::Network;
use lamppost_queue::Durability;
use lamppost_smtp::{AuthOffer, Kind, Limits};
use lamppost_telemetry::Health;

pub(crate) fn greylist(config: &Config) -> GreylistPolicy {
    let greylist = &config.mail.greylist;
    let rules = &greylist.rules;
    let terms = rules.exceptions.iter().flat_map(|exception| {
        let terms = Terms { enabled: exception.enabled, delay: exception.delay };
        exception.recipients.iter().map(move |recipient| (recipient.clone(), terms))
    });
    GreylistPolicy {
        enabled: greylist.enabled,
        algorithm: match rules.policy {
            config::GreylistAlgorithm::Relaydelay => Algorithm::Relaydelay,
            config::GreylistAlgorithm::Adaptive => Algorithm::Adaptive(Adaptive {
                good_delay: rules.good_delay,
                good_domains: rules.good_domains.clone(),
                // What the file says was checked; the default must leave time to come back too.
                suspect_delay: rules.suspect_delay.min(greylist.retry_window / 2),
                promote_after: rules.promote_after,
                promote_within: rules.promote_within,
                demote_after: rules.demote_after,
                answer_window: rules.answer_window,
            }),
        },
        stage: match rules.stage {
            config::GreylistStage::Data => Stage::Data,
            config::GreylistStage::Rcpt => Stage::Rcpt,
        },
        terms: terms.collect(),
        delay: greylist.delay,
        retry_window: greylist.retry_window,
        lifetime: greylist.lifetime,
        ipv4_prefix: greylist.ipv4_prefix,
        ipv6_prefix: greylist.ipv6_prefix,
    }
}

pub(super) fn policy(config: &Config, hostname: &str) -> PolicySettings {
    PolicySettings {
        hostname: hostname.to_owned(),
        domains: config.mail.domains.clone(),
        user_domains: config.mail.system_users.domains.clone(),
        // What is no address was refused when the file was read.
        postmaster: config.mail.postmaster.as_deref().and_then(|address| address.parse().ok()),
        when_store_fails: match config.mail.greylist.when_store_fails {
            // What this server knows itself fails only with its own disk.
            config::StoreFailure::Accept | config::StoreFailure::Local => StoreFailure::Accept,
            config::StoreFailure::Defer => StoreFailure::Defer,
        },
        observes: config.mail.greylist.mode == config::GreylistMode::Observe,
        logs_to_store: config.mail.greylist.log_to_database,
        elsewhere: match config.mail.relay_to {
            None => Elsewhere::Nowhere,
            Some(_) => Elsewhere::Relay,
        },
        local: LocalSettings {
            domain: local_domain(config, hostname),
            trusted_users: config.mail.sendmail.trusted_users.clone(),
        },
    }
}

pub(super) fn dns_lists(config: &Config) -> ListsSettings {
    let lists = &config.mail.dns_lists;
    ListsSettings {
        lists: config.mail.dns_list.iter().map(dns_list).collect(),
        threshold: lists.threshold,
        deadline: lists.deadline,
        temporary: lists.temporary,
        when_lists_fail: match lists.when_lists_fail {
            config::WhenListsFail::Accept => ListsFailure::Accept,
            config::WhenListsFail::Defer => ListsFailure::Defer,
        },
        failures_max: lists.failures_max,
        pause: lists.pause,
        check_every: lists.check_every,
    }
}

fn dns_list(list: &config::DnsList) -> ListSettings {
    ListSettings {
        zone: list.zone.clone(),
        kind: match list.kind {
            config::DnsListKind::Block => ListKind::Block,
            config::DnsListKind::Allow => ListKind::Allow,
        },
        weight: list.weight,
        answers: list.answers.iter().map(|range| range.first..=range.last).collect(),
        text: list.text.clone(),
    }
}

/// Whether policy asks name servers: about lists, for the names of clients that rules may be about, or what there
/// is to know of clients that the greylist does not know.
pub(super) fn asks_name_servers(config: &Config) -> bool {
    !config.mail.dns_list.is_empty() || config.mail.rules.file.is_some() || investigates(config)
}

/// Whether the greylist asks name servers about clients. A rule may greylist some though all others are not.
pub(super) fn investigates(config: &Config) -> bool {
    let greylist = &config.mail.greylist;
    let is_on = greylist.enabled
        || config.mail.rules.file.is_some()
        || greylist.rules.exceptions.iter().any(|exception| exception.enabled);
    is_on
        && greylist.rules.policy == config::GreylistAlgorithm::Adaptive
        && !greylist.rules.lookup_timeout.is_zero()
}

/// How often a question is asked again that no name server answers.
const TRIES_MORE: usize = 2;

pub(super) fn name_servers(config: &Config) -> lamppost_dns::Patience {
    lamppost_dns::Patience {
        each_try: config.dns.try_timeout,
        tries_more: TRIES_MORE,
        at_once_max: config.dns.questions_at_once_max,
        answers_max: config.dns.answers_max as u64,
    }
}

pub(super) fn accounts(config: &Config) -> lamppost_accounts::Settings {
    let auth = &config.mail.auth;
    lamppost_accounts::Settings {
        failures_per_address_max: auth.failures_per_address_max,
        failures_per_account_max: auth.failures_per_account_max,
        failure_window: auth.failure_window,
        hashes_at_once_max: auth.hashes_at_once_max,
        messages_per_hour_max: auth.messages_per_hour_max,
        recipients_per_hour_max: auth.recipients_per_hour_max,
        hash_wait: auth.hash_wait,
    }
}

pub(super) fn queue(config: &Config, state: &Path, hostname: &str) -> lamppost_queue::Settings {
    let queue = &config.mail.queue;
    lamppost_queue::Settings {
        directory: state.join("spool"),
        durability: match queue.durability {
            config::Durability::Each => Durability::Each,
            config::Durability::Group => Durability::Group,
            config::Durability::None => Durability::None,
        },
        segment_size: queue.segment_size.0,
        memory_max: bytes(queue.memory_max),
        free_space_min: queue.free_space_min.0,
        lifetime: queue.lifetime,
        retry_first: queue.retry_first,
        retry_max: queue.retry_max,
        deliveries_at_once_max: queue.deliveries_at_once_max,
        batch_max: queue.batch_max,
        batch_size_max: queue.batch_size_max.0,
        uploads_max: queue.uploads_max,
        upload_pause_max: queue.upload_pause_max,
        spare_segments_max: queue.spare_segments_max,
        damage_told_max: queue.damage_told_max,
        delivery_lag: queue.delivery_lag,
        delay_notice_after: queue.delay_notice_after,
        notice_every: queue.notice_every,
        accept_volatile: queue.accept_volatile,
        relays_at_once_max: config.mail.relay.connections_max,
        hostname: hostname.to_owned(),
        ..lamppost_queue::Settings::default()
    }
}

/// Where Maildirs are, with only the account left open.
pub(super) fn maildir(config: &Config, state: &Path) -> String {
    config.mail.maildir.replace("{state}", &state.display().to_string())
}

pub(super) fn delivery(
    config: &Config,
    state: &Path,
    hostname: &str,
    (relay, health): (&Relay, &Health),
) -> Result<lamppost_delivery::Settings, TemplateError> {
    Ok(lamppost_delivery::Settings {
        maildir: MaildirTemplate::new(maildir(config, state))?,
        hostname: hostname.to_owned(),
        writers_max: config.mail.queue.writers_max,
        blocking: lamppost_disk::Blocking::Threads,
        patience: config.mail.queue.maildir_timeout,
        silent_max: config.mail.queue.silent_mailboxes_max,
        health: health.clone(),
        way: None,
        relay: relay.clone(),
        owners: None,
    })
}

/// What delivery is told of users of this machine; nothing where none gets mail.
pub(super) fn owners(config: &Config, health: &Health) -> Option<OwnersSettings> {
    let users = &config.mail.system_users;
    (!users.domains.is_empty()).then(|| OwnersSettings {
        domains: users.domains.clone(),
        processes_max: users.processes_max,
        idle: users.process_idle,
        patience: config.mail.queue.maildir_timeout,
        health: health.clone(),
    })
}

/// What the process of a user is told: whose mail it is was decided by others.
pub(super) fn owner(
    config: &Config,
    hostname: &str,
    maildir: &Path,
) -> lamppost_delivery::Settings {
    /// Files that one process writes at once.
    const WRITERS_MAX: usize = 8;
    lamppost_delivery::Settings {
        maildir: MaildirTemplate::one(maildir.to_owned()),
        hostname: hostname.to_owned(),
        writers_max: WRITERS_MAX.min(config.mail.queue.writers_max),
        blocking: lamppost_disk::Blocking::Threads,
        patience: config.mail.queue.maildir_timeout,
        silent_max: 1,
        health: Health::default(),
        way: None,
        relay: Relay::default(),
        owners: None,
    }
}

/// What connections are decided by.
pub(super) fn grounds(config: &Config) -> Vec<Ground> {
    let mail = &config.mail;
    let rules = mail.rules.file.is_some().then_some(Ground::Rules);
    let lists = (!mail.dns_list.is_empty()).then_some(Ground::Lists);
    rules.into_iter().chain(lists).collect()
}

pub(super) fn front(config: &Config, hostname: &str) -> FrontSettings {
    let limits = &config.mail.limits;
    FrontSettings {
        hostname: hostname.to_owned(),
        limits: FrontLimits {
            sessions_max: limits.sessions_max,
            sessions_per_address_max: limits.sessions_per_address_max,
            greeting_delay: limits.greeting_delay,
            tls_handshake_timeout: limits.tls_handshake_timeout,
            proxy_header_timeout: limits.proxy_header_timeout,
            data_rate_min: limits.data_rate_min.0,
            data_rate_grace: limits.data_rate_grace,
            hops_max: limits.hops_max,
            inline_max: bytes(config.mail.queue.body_aside_from),
            content_memory_max: bytes(limits.content_memory_max),
            write_timeout: limits.write_timeout,
            auth_failure_delay: config.mail.auth.failure_delay,
        },
        grounds: grounds(config),
    }
}

pub(super) fn greylist_service(config: &Config, hostname: &str) -> GreylistServiceSettings {
    let service = &config.mail.greylist.service;
    GreylistServiceSettings {
        hostname: hostname.to_owned(),
        allow_from: networks(&service.allow_from),
        connections_max: service.connections_max,
        request_size_max: bytes(service.request_size_max),
        request_timeout: service.request_timeout,
        idle_timeout: service.idle_timeout,
        recipe: crate::recipe::facts(config),
    }
}

pub(super) fn listener(
    config: &Config,
    listen: &config::Listen,
    name: &str,
    hostname: &str,
) -> ListenerSettings {
    let smtp = lamppost_smtp::Settings {
        hostname: hostname.to_owned(),
        kind: match listen.kind {
            config::Kind::Mx => Kind::Mx,
            config::Kind::Submission => Kind::Submission,
        },
        starttls: listen.tls == config::TlsMode::StartTls,
        auth: match (listen.kind, listen.plaintext_auth) {
            (config::Kind::Mx, _) => AuthOffer::Never,
            (config::Kind::Submission, true) => AuthOffer::Always,
            (config::Kind::Submission, false) => AuthOffer::UnderTls,
        },
        limits: session_limits(config),
    };
    ListenerSettings {
        name: name.to_owned(),
        smtp: Arc::new(smtp),
        tls: tls_mode(listen.tls),
        proxy_from: networks(&listen.proxy_protocol_from),
        fix_for: networks(&listen.bare_newline_fix_for),
    }
}

/// The socket of local users. What a session calls this host is what names without a domain are given.
pub(super) fn local_listener(config: &Config, name: &str, hostname: &str) -> ListenerSettings {
    let smtp = lamppost_smtp::Settings {
        hostname: local_domain(config, hostname),
        kind: Kind::Submission,
        starttls: false,
        auth: AuthOffer::Never,
        limits: session_limits(config),
    };
    ListenerSettings {
        name: name.to_owned(),
        smtp: Arc::new(smtp),
        tls: TlsMode::Off,
        proxy_from: Vec::new(),
        fix_for: Vec::new(),
    }
}

/// The domain of the users of this machine.
fn local_domain(config: &Config, hostname: &str) -> String {
    config.mail.sendmail.domain.clone().unwrap_or_else(|| hostname.to_owned())
}

fn session_limits(config: &Config) -> Limits {
    let limits = &config.mail.limits;
    Limits {
        command_line_max: bytes(limits.command_line_max),
        auth_line_max: bytes(limits.auth_line_max),
        data_line_max: bytes(limits.data_line_max),
        recipients_max: limits.recipients_max,
        message_size_max: limits.message_size_max.0,
        commands_max: limits.commands_max,
        errors_max: limits.errors_max,
        messages_max: limits.messages_max,
        auth_tries_max: limits.auth_tries_max,
        command_timeout: limits.command_timeout,
        data_start_timeout: limits.data_start_timeout,
        data_block_timeout: limits.data_block_timeout,
    }
}

fn tls_mode(mode: config::TlsMode) -> TlsMode {
    match mode {
        config::TlsMode::Off => TlsMode::Off,
        config::TlsMode::StartTls => TlsMode::StartTls,
        config::TlsMode::Implicit => TlsMode::Implicit,
    }
}

fn networks(networks: &[config::Network]) -> Vec<Network> {
    networks.iter().filter_map(|network| Network::new(network.address, network.prefix)).collect()
}

fn bytes(size: config::ByteSize) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}
