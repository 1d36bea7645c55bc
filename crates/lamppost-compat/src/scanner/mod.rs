//! `qmail-envelope-scanner FROM TO`: what a patched qmail-smtpd asks about each recipient, as the old recipe
//! has it. The running greylist answers; nothing else is read, and what cannot be asked is accepted.

mod asking;
mod notice;

use std::env::{var, var_os};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use lamppost_delegation::{Question, RECIPE};

use self::asking::Place;
use crate::own_stamp;

/// The socket where the greylist of an installed system is asked, once the file says so.
pub const GREYLIST_SOCKET: &str = "/run/lamppost/greylist.sock";
/// The environment variable that names another place.
const PLACE_VARIABLE: &str = "LAMPPOST_GREYLIST_SOCKET";
/// The exit codes that refuse; qmail-smtpd accepts at any other.
const LATER: u8 = 101;
const NEVER: u8 = 100;
/// The command line is wrong (sysexits.h).
const USAGE: u8 = 64;
/// Bytes of an address that are asked about; qmail-queue takes no longer ones.
const ADDRESS_BYTES_MAX: usize = 1003;
/// Bytes of a variable of the recipe that are told.
const VARIABLE_BYTES_MAX: usize = 255;
/// Values of `GREYLISTING` by which a rule excepts a client.
const EXCEPTS: [&[u8]; 3] = [b"off", b"no", b"0"];

/// `qmail-envelope-scanner FROM TO`
pub fn envelope_scanner(arguments: &[OsString]) -> ExitCode {
    let [sender, recipient] = arguments else { return usage(arguments) };
    if is_excepted() {
        return ExitCode::SUCCESS;
    }
    let Some(client) = client() else {
        notice::tell(
            "neither TCPREMOTEIP nor TCP6REMOTEIP is an address, so that the greylist cannot be asked, and the \
             recipient is accepted; tcpserver sets them",
        );
        return ExitCode::SUCCESS;
    };
    let question = Question {
        stage: "RCPT".into(),
        client: Some(client),
        sender: untagged(&text(sender, ADDRESS_BYTES_MAX)).to_owned(),
        recipient: text(recipient, ADDRESS_BYTES_MAX),
        recipe: recipe(),
        ..Question::default()
    };
    let heard = place().and_then(|place| place.ask(&question));
    match heard {
        Ok(heard) => {
            if let Some(remark) = heard.remark {
                notice::tell(&remark);
            }
            ExitCode::from(code(&heard.action))
        }
        Err(why) => {
            notice::tell(&format!(
                "the greylist cannot be asked, and the recipient is accepted: {why}"
            ));
            ExitCode::SUCCESS
        }
    }
}

fn usage(arguments: &[OsString]) -> ExitCode {
    let text = "usage: qmail-envelope-scanner FROM TO\n\
                It asks the running lamppost, and ends with 101 (later), 100 (never) or 0 (now); \
                lamppost-qmail-envelope-scanner(1) tells more.\n";
    match arguments {
        [one] if one == "--help" => {
            drop(io::stdout().write_all(text.as_bytes()));
            ExitCode::SUCCESS
        }
        _ => {
            drop(io::stderr().write_all(text.as_bytes()));
            ExitCode::from(USAGE)
        }
    }
}

/// Whether a rule lets the client relay, or excepts it.
fn is_excepted() -> bool {
    let greylisting = var_os("GREYLISTING").unwrap_or_default();
    var_os("RELAYCLIENT").is_some() || excepts(greylisting.as_bytes())
}

/// Whether a value of `GREYLISTING` excepts.
pub(crate) fn excepts(value: &[u8]) -> bool {
    EXCEPTS.iter().any(|one| value.eq_ignore_ascii_case(one))
}

/// The client's address, as tcpserver tells it; its variant for IPv6 has other names too.
fn client() -> Option<IpAddr> {
    let mut names = ["TCPREMOTEIP", "TCP6REMOTEIP"];
    if var_os("PROTO").is_some_and(|protocol| protocol == "TCP6") {
        names.reverse();
    }
    names.iter().find_map(|name| address(&var(name).ok()?))
}

/// An address, be it of a link or of IPv4 written as IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.split('%').next().unwrap_or_default();
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// A word as text; what is longer is cut, so that nobody is excepted by it.
fn text(word: &OsStr, bytes_max: usize) -> String {
    let mut text = word.to_string_lossy().into_owned();
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

/// A sender without the tag of BATV, which is another each day: `prvs=0123456789=user@domain`.
fn untagged(sender: &str) -> &str {
    let (tagged, rest) = sender.split_at(sender.floor_char_boundary("prvs=".len()));
    let original = rest.split_once('=').filter(|(tag, original)| {
        let is_tag = !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_tag && !original.is_empty() && !original.starts_with('@')
    });
    match original {
        Some((_, original)) if tagged.eq_ignore_ascii_case("prvs=") => original,
        _ => sender,
    }
}

/// What the environment says of the greylist; never a password.
fn recipe() -> Vec<(&'static str, String)> {
    let said = RECIPE.into_iter().filter_map(|name| Some((name, var_os(name)?)));
    said.map(|(name, value)| (name, text(&value, VARIABLE_BYTES_MAX))).collect()
}

/// Where the greylist is asked.
fn place() -> Result<Place, String> {
    let named = var_os(PLACE_VARIABLE);
    let named = named.or_else(|| own_stamp()?.greylist.map(OsString::from));
    let named = named.unwrap_or_else(|| GREYLIST_SOCKET.into());
    Place::of(&named).ok_or_else(|| {
        let named = named.to_string_lossy();
        format!("`{named}` is no socket's path and no ADDRESS:PORT ({PLACE_VARIABLE})")
    })
}

/// The exit code for an action (access(5)); what neither defers nor refuses accepts.
fn code(action: &str) -> u8 {
    let word = action.split(' ').next().unwrap_or_default().to_ascii_uppercase();
    let is_reply = |class: u8| {
        matches!(word.as_bytes(), [first, rest @ ..] if *first == class
            && rest.len() == 2 && rest.iter().all(u8::is_ascii_digit))
    };
    match word.as_str() {
        "DEFER" | "DEFER_IF_PERMIT" => LATER,
        "REJECT" => NEVER,
        _ if is_reply(b'4') => LATER,
        _ if is_reply(b'5') => NEVER,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn actions_have_codes() {
        for (action, expected) in [
            ("DUNNO", 0),
            ("OK", 0),
            ("PREPEND X-Greylist: delayed", 0),
            ("DEFER_IF_PERMIT 4.7.1 greylisted", 101),
            ("defer_if_permit 4.7.1 greylisted", 101),
            ("DEFER", 101),
            ("450 4.7.1 later", 101),
            ("REJECT no", 100),
            ("550 no", 100),
            ("200", 0),
            ("45x", 0),
            ("5500", 0),
            ("", 0),
        ] {
            assert_eq!(code(action), expected, "{action}");
        }
    }

    #[test]
    fn senders_lose_the_tag_of_batv() {
        for (sender, expected) in [
            ("prvs=0123456789=a@b.test", "a@b.test"),
            ("PRVS=4321abcdef=a=b@c.test", "a=b@c.test"),
            ("prvs=a@b.test", "prvs=a@b.test"),
            ("prvs==a@b.test", "prvs==a@b.test"),
            ("prvs=12=@b.test", "prvs=12=@b.test"),
            ("prvs=1/2=a@b.test", "prvs=1/2=a@b.test"),
            ("prv\u{e9}=1=a@b.test", "prv\u{e9}=1=a@b.test"),
            ("", ""),
        ] {
            assert_eq!(untagged(sender), expected);
        }
    }

    #[test]
    fn addresses_are_those_of_clients() {
        let parsed = |text| address(text).map(|address| address.to_string());
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(parsed(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        /// Whatever the words hold, they are text of bounded length, and the rest of a tagged sender is its end.
        #[test]
        fn words_are_bounded_text(bytes: Vec<u8>, sender in "(?i:prvs=)?\\PC{0,20}", bytes_max in 0..40_usize) {
            prop_assert!(text(OsStr::from_bytes(&bytes), bytes_max).len() <= bytes_max);
            prop_assert!(sender.ends_with(untagged(&sender)));
        }
    }
}
