//! `database` in `[mail.greylist]`: where the greylist is kept.

use std::fmt;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use crate::reader::{self, Wrong};

/// The port of a database that names none.
const PORT: u16 = 3306;
const EXAMPLE: &str = "write \"mysql://USER@HOST/NAME\", \"mysql://USER@localhost/NAME?socket=/PATH\" or \"sqlite:/PATH\"";

/// Where the greylist is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GreylistDatabase {
    /// In a file of the state folder.
    #[default]
    State,
    /// In this file.
    File(PathBuf),
    /// In a database that several servers may share.
    Shared(SharedDatabase),
}

/// A database that several servers may share.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedDatabase {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its UNIX socket, which is taken instead.
    pub socket: Option<PathBuf>,
    /// The name to authenticate by.
    pub user: String,
    /// The password, if it stands here.
    pub password: Option<String>,
    /// The name of the database.
    pub name: String,
    /// The file of authorities for TLS; without it there is none.
    pub ca: Option<PathBuf>,
}

impl fmt::Debug for SharedDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, socket, user, name, .. } = self;
        write!(f, "mysql://{user}@{host}:{port}/{name}?socket={socket:?}")
    }
}

/// Reads the place of a greylist; the state folder when empty.
pub(super) fn database(value: &Spanned<DeValue<'_>>) -> Result<GreylistDatabase, Wrong> {
    let text = reader::text(value)?;
    if text.is_empty() {
        return Ok(GreylistDatabase::State);
    }
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return Err(Wrong::new("names no absolute path", "write \"sqlite:/PATH\""));
        }
        return Ok(GreylistDatabase::File(PathBuf::from(path)));
    }
    let rest = text.strip_prefix("mysql://").or_else(|| text.strip_prefix("mariadb://"));
    let Some(rest) = rest else {
        return Err(Wrong::new("begins with no kind of database that is known", EXAMPLE));
    };
    shared(rest).map(GreylistDatabase::Shared)
}

fn shared(rest: &str) -> Result<SharedDatabase, Wrong> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let Some((authority, name)) = rest.rsplit_once('/').filter(|(_, name)| !name.is_empty()) else {
        return Err(Wrong::new("names no database", EXAMPLE));
    };
    let Some((user, place)) = authority.rsplit_once('@') else {
        return Err(Wrong::new("names no user", EXAMPLE));
    };
    let (user, password) = match user.split_once(':') {
        Some((user, password)) => (user, Some(decoded(password)?)),
        None => (user, None),
    };
    let user = decoded(user)?;
    if user.is_empty() {
        return Err(Wrong::new("names no user", EXAMPLE));
    }
    let (host, port) = host_and_port(place)?;
    let mut found = SharedDatabase {
        host: host.to_owned(),
        port,
        socket: None,
        user,
        password: password.filter(|password| !password.is_empty()),
        name: decoded(name)?,
        ca: None,
    };
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let path = decoded(value)?;
        let place = match key {
            "socket" => &mut found.socket,
            "ca" => &mut found.ca,
            _ => {
                let what = format!("has a part that nobody knows, `{key}`");
                return Err(Wrong::new(what, "leave it out: `socket=` and `ca=` are known"));
            }
        };
        if !path.starts_with('/') {
            let cure = format!("write `{key}=/PATH`");
            return Err(Wrong::new(format!("names no absolute path by `{key}`"), cure));
        }
        *place = Some(PathBuf::from(path));
    }
    Ok(found)
}

fn host_and_port(place: &str) -> Result<(&str, u16), Wrong> {
    let (host, port) = match place.strip_prefix('[').and_then(|place| place.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = port.map_or(Some(PORT), |port| port.parse().ok().filter(|&port: &u16| port > 0));
    let is_host = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte));
    match port {
        Some(port) if is_host => Ok((host, port)),
        _ => Err(Wrong::new("names no host", EXAMPLE)),
    }
}

/// A part of a URL with its `%40` and the like.
fn decoded(text: &str) -> Result<String, Wrong> {
    let wrong = || Wrong::new("has a % that no two digits follow", "write %25 for it");
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|digit| {
            digit
                .and_then(|digit| char::from(digit).to_digit(16))
                .and_then(|d| u8::try_from(d).ok())
        });
        let [Some(high), Some(low)] = digits else { return Err(wrong()) };
        bytes.push(high * 16 + low);
    }
    String::from_utf8(bytes).map_err(|_| Wrong::new("is no text", "write it as UTF-8"))
}

/// The URL as it may be shown: without a password.
pub(crate) fn shown(url: &str) -> String {
    let password = url.split_once("://").and_then(|(scheme, rest)| {
        let end = rest.rfind('@')?;
        let begin = rest[..end].find(':')?;
        let begin = scheme.len() + 3 + begin + 1;
        Some(begin..scheme.len() + 3 + end)
    });
    let mut shown = url.to_owned();
    if let Some(password) = password {
        shown.replace_range(password, "…");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<GreylistDatabase, String> {
        let text = format!("url = \"{url}\"");
        let table = toml::de::DeTable::parse(&text).unwrap();
        let value = table.get_ref().get("url").unwrap();
        database(value).map_err(|wrong| wrong.each().into_iter().map(|wrong| wrong.what).collect())
    }

    #[test]
    fn a_database_is_named_by_a_url() {
        let of = |url: &str| match read(url).unwrap() {
            GreylistDatabase::Shared(shared) => shared,
            other => panic!("{other:?}"),
        };
        let base = SharedDatabase {
            host: "db.example.org".into(),
            port: 3306,
            socket: None,
            user: "grey".into(),
            password: None,
            name: "relaydelay".into(),
            ca: None,
        };
        assert_eq!(of("mysql://grey@db.example.org/relaydelay"), base);
        let secret = SharedDatabase { password: Some("a@b:c%".into()), port: 3307, ..base.clone() };
        assert_eq!(of("mariadb://grey:a%40b:c%25@db.example.org:3307/relaydelay"), secret);
        assert!(!format!("{secret:?}").contains("a@b"));
        let v6 = SharedDatabase { host: "2001:db8::1".into(), ..base.clone() };
        assert_eq!(of("mysql://grey@[2001:db8::1]:3306/relaydelay"), v6);
        let socket = Some("/run/mysqld/mysqld.sock".into());
        let local = SharedDatabase { host: "localhost".into(), socket, ..base.clone() };
        assert_eq!(of("mysql://grey@localhost/relaydelay?socket=/run/mysqld/mysqld.sock"), local);
        let ca = Some("/etc/ssl/db.pem".into());
        assert_eq!(of("mysql://grey@db.example.org/relaydelay?ca=/etc/ssl/db.pem").ca, ca);
        assert_eq!(read(""), Ok(GreylistDatabase::State));
        assert_eq!(read("sqlite:/srv/g.db"), Ok(GreylistDatabase::File("/srv/g.db".into())));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_told() {
        let check = |url: &str, expected: &str| {
            let found = read(url).unwrap_err();
            assert!(found.contains(expected), "{url}: {found}");
        };
        check("postgres://a@b/c", "no kind of database");
        check("sqlite:here", "no absolute path");
        check("mysql://db.example.org/grey", "no user");
        check("mysql://grey@db.example.org", "no database");
        check("mysql://grey@db.example.org/", "no database");
        check("mysql://grey@:3306/grey", "no host");
        check("mysql://grey@db:0/grey", "no host");
        check("mysql://grey@db:port/grey", "no host");
        check("mysql://grey@db/grey?sockets=/x", "`sockets`");
        check("mysql://grey@db/grey?socket=x", "no absolute path by `socket`");
        check("mysql://gr%4@db/grey", "no two digits");
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(shown("\"mysql://grey:secret@db/x\""), "\"mysql://grey:…@db/x\"");
        assert_eq!(shown("\"mysql://grey:a:b@c@db:1/x\""), "\"mysql://grey:…@db:1/x\"");
        assert_eq!(shown("\"mysql://grey@db:3306/x\""), "\"mysql://grey@db:3306/x\"");
        assert_eq!(shown("\"\""), "\"\"");
    }
}
