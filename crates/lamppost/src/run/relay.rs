//! From the checked configuration to the way out: the host of `relay-to`, its password, its TLS.

use lamppost_config::{self as config, Config, HostPort};
use lamppost_console::RelayStatus;
use lamppost_delivery::{RelayFault, RelayReach, RelaySettings, RelayStanding, RelayTls};
use lamppost_net::{ClientTls, Trust};
use lamppost_smtp::{ClientTimeouts, Credentials};

use crate::exit::{Code, Failure};
use crate::run::setup::Setup;

/// The host that takes mail for elsewhere; nothing when there is none.
pub(super) fn settings(config: &Config, setup: &Setup) -> Result<Option<RelaySettings>, Failure> {
    let Some(HostPort { host, port }) = &config.mail.relay_to else {
        return Ok(None);
    };
    let relay = &config.mail.relay;
    let credentials = match &relay.login {
        None => None,
        Some((user, _)) => Some(Credentials {
            user: user.clone(),
            password: setup.relay_password.clone().ok_or_else(not_told)?,
            without_tls: relay.plaintext_auth,
        }),
    };
    let authorities = || setup.relay_trust.clone().ok_or_else(not_told);
    let tls = |trust| {
        ClientTls::new(&trust).map_err(|error| Failure::at(Code::Config, "mail.relay", &error))
    };
    let tls = match relay.tls {
        config::RelayTls::Off => RelayTls::Off,
        config::RelayTls::Opportunistic => RelayTls::Opportunistic(tls(Trust::Anybody)?),
        config::RelayTls::StartTls => RelayTls::StartTls(tls(authorities()?)?),
        config::RelayTls::Implicit => RelayTls::Implicit(tls(authorities()?)?),
    };
    Ok(Some(RelaySettings {
        host: host.clone(),
        port: *port,
        hostname: setup.hostname.clone(),
        tls,
        credentials,
        connections_max: relay.connections_max,
        connect_timeout: relay.connect_timeout,
        idle_timeout: relay.idle_timeout,
        timeouts: ClientTimeouts::default(),
    }))
}

/// How it stands with the host, for those who ask.
pub(super) fn status(standing: RelayStanding) -> RelayStatus {
    let RelayStanding { name, reach, connections, fault } = standing;
    let (up, since) = match reach {
        RelayReach::Untried => (None, None),
        RelayReach::Up(since) => (Some(true), Some(since)),
        RelayReach::Down(since) => (Some(false), Some(since)),
    };
    let (last_error, last_error_ago) = fault.map(|RelayFault { text, ago }| (text, ago)).unzip();
    RelayStatus {
        host: name,
        up,
        for_s: since.map(|since| since.as_secs()),
        connections: connections as u64,
        last_error,
        last_error_ago_s: last_error_ago.map(|ago| ago.as_secs()),
    }
}

/// Only delivery is told.
fn not_told() -> Failure {
    Failure::new(Code::Software, "this role was not told how to reach the relay")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lamppost_smtp::Secret;

    use super::*;

    fn settings_of(text: &str, password: Option<&str>) -> Result<Option<RelaySettings>, String> {
        let config = Config::parse(text, Path::new("lamppost.toml")).unwrap();
        let setup = Setup {
            file: None,
            newer: None,
            state: "/state".into(),
            state_named_by: crate::run::setup::NamedBy::Nobody,
            users: crate::run::users::Users::Same,
            control_group: None,
            submit_socket: None,
            hostname: "mail.lamppost.test".into(),
            name_servers: Vec::new(),
            pem: None,
            relay_password: password.map(|password| Secret::new(password.to_owned())),
            relay_trust: None,
            greylist: None,
        };
        settings(&config, &setup).map_err(|failure| failure.text().to_owned())
    }

    #[test]
    fn no_host_is_no_way_out() {
        assert!(settings_of("", None).unwrap().is_none());
        let to = settings_of("[mail]\nrelay-to = \"[::1]:25\"\n", None).unwrap().unwrap();
        assert_eq!((to.host.as_str(), to.port), ("::1", 25));
        assert!(matches!(to.tls, RelayTls::Opportunistic(_)));
    }

    #[test]
    fn secrets_come_from_the_setup_alone() {
        let text = "[mail]\nrelay-to = \"mail.elsewhere.test:587\"\n[mail.relay]\ntls = \"off\"\n\
                    plaintext-auth = true\nuser = \"demo\"\npassword = \"/no/such/file\"\n";
        let to = settings_of(text, Some("secret word")).unwrap().unwrap();
        assert_eq!(to.credentials.unwrap().password.expose(), "secret word");
        assert!(settings_of(text, None).unwrap_err().contains("was not told"));
        let trusting = text.replace("\"off\"", "\"starttls\"");
        assert!(settings_of(&trusting, Some("secret")).unwrap_err().contains("was not told"));
    }
}
