//! The options of tcpserver: those of ucspi-tcp 0.88 and of its variant for IPv6, and a few of ours.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::time::Duration;

use crate::letters::{Letter, Letters, number};

/// Letters of options; those with a colon take a word.
const LETTERS: &[u8] = b"dDvqQhHrR1UXx:t:u:g:l:b:B:c:pPoO46I:C:T:";
/// What is told of a command line that is wrong.
pub(super) const USAGE: &str = "tcpserver: usage: tcpserver [ -461UXpPhHrRoOdDqQv ] [ -c limit ] \
     [ -C limit per address ] [ -x rules.cdb ] [ -B banner ] [ -g gid ] [ -u uid ] [ -b backlog ] \
     [ -l localname ] [ -t timeout ] [ -T timeout of names ] [ -I interface ] host port program";

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a letter of the command line")]
pub(super) struct Options {
    /// Connections at once (`-c`).
    pub(super) limit: u64,
    /// Connections at once from one address, for IPv6 from one /64 (`-C`); 0 for any number.
    pub(super) address_limit: u64,
    /// Connections that the system keeps until they are taken (`-b`).
    pub(super) backlog: i32,
    /// The cdb of rules (`-x`).
    pub(super) rules: Option<OsString>,
    /// Whether everybody may connect where there is no such file (`-X`).
    pub(super) may_lack_rules: bool,
    /// What is said before anything is looked up (`-B`).
    pub(super) banner: Vec<u8>,
    /// Whom the process becomes once it listens (`-u`, `-g`, `-U`); 0 for nobody else.
    pub(super) user: u32,
    pub(super) group: u32,
    /// The name of this host (`-l`); looked up otherwise.
    pub(super) local_name: Option<Vec<u8>>,
    /// Whether the client's name is looked up (`-h`, `-H`), and must lead back to its address (`-p`, `-P`).
    pub(super) names: bool,
    pub(super) paranoid: bool,
    /// How long each name may take (`-T`).
    pub(super) name_patience: Duration,
    /// Whether the client is asked for its user (`-r`, `-R`), and how long (`-t`).
    pub(super) ident: bool,
    pub(super) ident_patience: Duration,
    /// Whether IP options of a connection stay (`-o`, `-O`), and whether it sends at once (`-D`, `-d`).
    pub(super) keeps_route: bool,
    pub(super) no_delay: bool,
    /// Whether the port is printed once it listens (`-1`).
    pub(super) prints_port: bool,
    /// Nothing, warnings, or everything is told (`-q`, `-Q`, `-v`).
    pub(super) verbosity: Verbosity,
    /// IPv6 for names and for `0`, and an IPv4 client is one of IPv6 (`-6`).
    pub(super) ipv6: bool,
    /// The interface of a link-local address (`-I`).
    pub(super) interface: Option<OsString>,
    pub(super) host: OsString,
    pub(super) port: OsString,
    pub(super) program: Vec<OsString>,
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verbosity {
    Nothing,
    Warnings,
    All,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limit: 40,
            address_limit: 0,
            backlog: 20,
            rules: None,
            may_lack_rules: false,
            banner: Vec::new(),
            user: 0,
            group: 0,
            local_name: None,
            names: true,
            paranoid: false,
            name_patience: Duration::from_secs(5),
            ident: true,
            ident_patience: Duration::from_secs(26),
            keeps_route: false,
            no_delay: false,
            prints_port: false,
            verbosity: Verbosity::Warnings,
            ipv6: false,
            interface: None,
            host: OsString::new(),
            port: OsString::new(),
            program: Vec::new(),
        }
    }
}

impl Options {
    /// Reads the words behind the program's name; what is wrong is what is to be told.
    pub(super) fn parse(words: &[OsString]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut letters = Letters::new("tcpserver", LETTERS, words);
        let wrong = |what| format!("{what}\n{USAGE}");
        while let Some(Letter { letter, word }) = letters.next().map_err(wrong)? {
            match word {
                None => options.set(letter),
                Some(word) => options.set_to(letter, word),
            }
        }
        let mut rest = letters.rest().iter().cloned();
        let (Some(host), Some(port)) = (rest.next(), rest.next()) else {
            return Err(USAGE.to_owned());
        };
        let program: Vec<_> = rest.collect();
        if program.is_empty() {
            return Err(USAGE.to_owned());
        }
        Ok(Self { host, port, program, ..options })
    }

    fn set(&mut self, letter: u8) {
        match letter {
            b'1' => self.prints_port = true,
            b'4' => self.ipv6 = false,
            b'6' => self.ipv6 = true,
            b'D' | b'd' => self.no_delay = letter == b'D',
            b'H' | b'h' => self.names = letter == b'h',
            b'O' | b'o' => self.keeps_route = letter == b'o',
            b'P' | b'p' => self.paranoid = letter == b'p',
            b'R' | b'r' => self.ident = letter == b'r',
            b'U' => {
                let number = |name| std::env::var_os(name).map_or(0, |text| id(text.as_bytes()));
                (self.user, self.group) = (number("UID"), number("GID"));
            }
            b'X' => self.may_lack_rules = true,
            b'Q' => self.verbosity = Verbosity::Warnings,
            b'q' => self.verbosity = Verbosity::Nothing,
            _ => self.verbosity = Verbosity::All,
        }
    }

    fn set_to(&mut self, letter: u8, word: &[u8]) {
        let text = || OsStr::from_bytes(word).to_owned();
        match letter {
            b'B' => word.clone_into(&mut self.banner),
            b'C' => self.address_limit = number(word),
            b'I' => self.interface = Some(text()),
            b'T' => self.name_patience = Duration::from_secs(number(word)),
            b'b' => self.backlog = i32::try_from(number(word)).unwrap_or(i32::MAX),
            b'c' => self.limit = number(word),
            b'g' => self.group = id(word),
            b'l' => self.local_name = Some(text().into_vec()),
            b't' => self.ident_patience = Duration::from_secs(number(word)),
            b'u' => self.user = id(word),
            _ => self.rules = Some(text()),
        }
    }
}

/// The number of a user or a group; one that is none would be root's or everybody's.
fn id(word: &[u8]) -> u32 {
    u32::try_from(number(word)).unwrap_or(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        Options::parse(&words)
    }

    #[test]
    fn options_are_read_as_there() {
        let recipe = "-H -P -R -l 0 -u 64011 -g 65534 -x /etc/tcp.smtp.cdb 192.0.2.1 smtp rblsmtpd -b qmail-smtpd";
        let options = parsed(recipe).unwrap();
        let expected = Options {
            names: false,
            ident: false,
            local_name: Some(b"0".to_vec()),
            user: 64011,
            group: 65534,
            rules: Some("/etc/tcp.smtp.cdb".into()),
            host: "192.0.2.1".into(),
            port: "smtp".into(),
            program: ["rblsmtpd", "-b", "qmail-smtpd"].map(OsString::from).to_vec(),
            ..Options::default()
        };
        assert_eq!(options, expected);
        let options = parsed("-vRHc5 -- 0 25 x").unwrap();
        assert_eq!((options.limit, options.verbosity), (5, Verbosity::All));
        assert_eq!(parsed("-c5 0 25 x").unwrap().limit, 5);
        assert_eq!(parsed("-vvQ 0 25 x").unwrap().verbosity, Verbosity::Warnings);
    }

    #[test]
    fn what_is_wrong_is_told_as_there() {
        assert_eq!(parsed("0 25").unwrap_err(), USAGE);
        assert_eq!(parsed("-v").unwrap_err(), USAGE);
        assert_eq!(parsed("-vz").unwrap_err(), format!("tcpserver: illegal option -- z\n{USAGE}"));
        let wanted = "tcpserver: option requires an argument -- c";
        assert_eq!(parsed("-vc").unwrap_err(), format!("{wanted}\n{USAGE}"));
    }
}
