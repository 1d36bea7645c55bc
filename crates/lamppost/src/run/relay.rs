//! From the checked configuration to the way out: the host of `relay-to`, its password, its TLS.

use std::path::Path;

use lamppost_config::{self as config, Config, HostPort};
use lamppost_delivery::{RelaySettings, RelayTls};
use lamppost_net::{ClientTls, Trust};
use lamppost_smtp::{ClientTimeouts, Credentials, Secret};

use crate::exit::{Code, Failure};

/// The largest file that can hold a password.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// The host that takes mail for elsewhere; nothing when there is none.
pub(super) fn settings(config: &Config, hostname: &str) -> Result<Option<RelaySettings>, Failure> {
    let Some(HostPort { host, port }) = &config.mail.relay_to else {
        return Ok(None);
    };
    let relay = &config.mail.relay;
    let credentials = match &relay.login {
        None => None,
        Some((user, secret)) => Some(Credentials {
            user: user.clone(),
            password: password(secret)?,
            without_tls: relay.plaintext_auth,
        }),
    };
    let authorities = relay.ca.clone().map_or(Trust::System, Trust::File);
    let tls = |trust| {
        ClientTls::new(&trust).map_err(|error| Failure::at(Code::Config, "mail.relay", &error))
    };
    let tls = match relay.tls {
        config::RelayTls::Off => RelayTls::Off,
        config::RelayTls::Opportunistic => RelayTls::Opportunistic(tls(Trust::Anybody)?),
        config::RelayTls::StartTls => RelayTls::StartTls(tls(authorities)?),
        config::RelayTls::Implicit => RelayTls::Implicit(tls(authorities)?),
    };
    Ok(Some(RelaySettings {
        host: host.clone(),
        port: *port,
        hostname: hostname.to_owned(),
        tls,
        credentials,
        connections_max: relay.connections_max,
        connect_timeout: relay.connect_timeout,
        idle_timeout: relay.idle_timeout,
        timeouts: ClientTimeouts::default(),
    }))
}

fn password(secret: &config::Secret) -> Result<Secret, Failure> {
    let path = secret.path().ok_or_else(|| {
        Failure::new(Code::Config, "[mail.relay] names a credential, and systemd gave none")
            .cure("start the program by a unit with LoadCredential=, or name a file")
    })?;
    let wrong = |why: &str| {
        let what = format!("mail.relay.password: {} {why}", path.display());
        Failure::new(Code::Config, what).cure("write the password alone into it, as one line")
    };
    let text = read(&path).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    let text = text.ok_or_else(|| wrong("is larger than a password can be"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(['\n', '\0']) {
        return Err(wrong("does not hold one line"));
    }
    Ok(Secret::new(line.to_owned()))
}

/// The text of a file; nothing when it is too large.
fn read(path: &Path) -> std::io::Result<Option<String>> {
    if std::fs::metadata(path)?.len() > PASSWORD_BYTES_MAX {
        return Ok(None);
    }
    std::fs::read_to_string(path).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_of(text: &str) -> Result<Option<RelaySettings>, String> {
        let config = Config::parse(text, Path::new("lamppost.toml")).unwrap();
        settings(&config, "mail.lamppost.test").map_err(|failure| failure.text().to_owned())
    }

    #[test]
    fn no_host_is_no_way_out() {
        assert!(settings_of("").unwrap().is_none());
        let to = settings_of("[mail]\nrelay-to = \"[::1]:25\"\n").unwrap().unwrap();
        assert_eq!((to.host.as_str(), to.port), ("::1", 25));
        assert!(matches!(to.tls, RelayTls::Opportunistic(_)));
    }

    #[test]
    fn a_password_is_one_line_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let text = format!(
            "[mail]\nrelay-to = \"mail.elsewhere.test:587\"\n[mail.relay]\ntls = \"off\"\n\
             plaintext-auth = true\nuser = \"demo\"\npassword = \"{}\"\n",
            path.display()
        );
        let check = |content: &str, expected: Result<&str, &str>| {
            std::fs::write(&path, content).unwrap();
            let found = settings_of(&text).map(|to| to.unwrap().credentials.unwrap().password);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.expose(), expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, _) => panic!("{content:?}: {found:?}"),
            }
        };
        check("secret word\n", Ok("secret word"));
        check("secret\r\n", Ok("secret"));
        check("secret", Ok("secret"));
        check("", Err("does not hold one line"));
        check("two\nlines\n", Err("does not hold one line"));
        check(&"x".repeat(5000), Err("larger than a password"));
        std::fs::remove_file(&path).unwrap();
        assert!(settings_of(&text).unwrap_err().contains("cannot be read"));
    }
}
