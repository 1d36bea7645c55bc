//! The exchanges of AUTH: PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login) and, for those who ask
//! for it, CRAM-MD5 (RFC 2195).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::Secret;

/// An exchange that waits for the client's next line.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// CRAM-MD5: the user's name and a digest are awaited (RFC 2195).
    CramMd5 {
        /// What the digest is to be of.
        challenge: String,
    },
    /// LOGIN: the user's name is awaited.
    LoginUser,
    /// LOGIN: the password is awaited.
    LoginPassword {
        /// The user's name.
        user: String,
    },
    /// PLAIN: name and password are awaited.
    Plain,
}

/// What comes of a line.
#[derive(Debug)]
pub(crate) enum Step {
    /// The client gave up.
    Cancelled,
    /// Ask for the next line with this challenge, in base64.
    Challenge(Exchange, &'static str),
    /// The line is not what the mechanism expects.
    Malformed,
    /// A name and a digest are there.
    Proved {
        /// Who wants in.
        user: String,
        /// What was to be proved on.
        challenge: String,
        /// As the client says it.
        digest: String,
    },
    /// Name and password are there.
    Tried {
        /// Who wants in.
        user: String,
        /// With which password.
        password: Secret,
    },
    /// The client wants to act for somebody else, which is not offered.
    WrongIdentity,
}

/// `Username:` in base64.
const USERNAME: &str = "VXNlcm5hbWU6";
/// `Password:` in base64.
const PASSWORD: &str = "UGFzc3dvcmQ6";

/// Begins an exchange; nothing for a mechanism that is not offered.
pub(crate) fn begin(mechanism: &str, initial: Option<&str>) -> Option<Step> {
    let (exchange, challenge) = match mechanism {
        "PLAIN" => (Exchange::Plain, ""),
        "LOGIN" => (Exchange::LoginUser, USERNAME),
        _ => return None,
    };
    Some(match initial {
        None => Step::Challenge(exchange, challenge),
        // An empty initial response (RFC 4954 §4).
        Some("=") => exchange.take(b""),
        Some(line) => exchange.take(line.as_bytes()),
    })
}

impl Exchange {
    /// Goes on with the client's line.
    pub(crate) fn take(self, line: &[u8]) -> Step {
        if line == b"*" {
            return Step::Cancelled;
        }
        let Ok(decoded) = STANDARD.decode(line).map(Zeroizing::new) else {
            return Step::Malformed;
        };
        let Ok(text) = std::str::from_utf8(&decoded) else {
            return Step::Malformed;
        };
        match self {
            Self::Plain => plain(text),
            Self::CramMd5 { challenge } => proved(text, challenge),
            _ if text.contains('\0') => Step::Malformed,
            Self::LoginUser if text.is_empty() => Step::Malformed,
            Self::LoginUser => {
                Step::Challenge(Self::LoginPassword { user: text.to_owned() }, PASSWORD)
            }
            Self::LoginPassword { user } => {
                Step::Tried { user, password: Secret::new(text.to_owned()) }
            }
        }
    }
}

/// `user SP digest` (RFC 2195 §2).
fn proved(text: &str, challenge: String) -> Step {
    match text.rsplit_once(' ') {
        Some((user, digest)) if !user.is_empty() && !digest.is_empty() && !text.contains('\0') => {
            Step::Proved { user: user.to_owned(), challenge, digest: digest.to_owned() }
        }
        _ => Step::Malformed,
    }
}

/// `authzid NUL authcid NUL passwd` (RFC 4616 §2).
fn plain(text: &str) -> Step {
    let mut parts = text.split('\0');
    let (Some(identity), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Step::Malformed;
    };
    if user.is_empty() {
        Step::Malformed
    } else if !identity.is_empty() && identity != user {
        Step::WrongIdentity
    } else {
        Step::Tried { user: user.to_owned(), password: Secret::new(password.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &str) -> String {
        STANDARD.encode(text)
    }

    #[track_caller]
    fn tried(step: Step, user: &str, password: &str) {
        let Step::Tried { user: tried, password: with } = step else { panic!("{step:?}") };
        assert_eq!((tried.as_str(), with.expose()), (user, password));
    }

    #[test]
    fn plain_takes_one_line() {
        tried(begin("PLAIN", Some(&encode("\0demo\0secret"))).unwrap(), "demo", "secret");
        tried(Exchange::Plain.take(encode("demo\0demo\0x y").as_bytes()), "demo", "x y");
        assert!(matches!(begin("PLAIN", None), Some(Step::Challenge(Exchange::Plain, ""))));
        for bad in ["", "demo", "\0demo", "\0\0secret", "\0a\0b\0c"] {
            let step = Exchange::Plain.take(encode(bad).as_bytes());
            assert!(matches!(step, Step::Malformed), "{bad:?}");
        }
        let other = Exchange::Plain.take(encode("root\0demo\0secret").as_bytes());
        assert!(matches!(other, Step::WrongIdentity));
    }

    #[test]
    fn login_asks_twice() {
        let Some(Step::Challenge(exchange, USERNAME)) = begin("LOGIN", None) else { panic!() };
        let Step::Challenge(exchange, PASSWORD) = exchange.take(encode("demo").as_bytes()) else {
            panic!()
        };
        tried(exchange.take(encode("secret").as_bytes()), "demo", "secret");
        assert!(matches!(
            begin("LOGIN", Some(&encode("demo"))),
            Some(Step::Challenge(Exchange::LoginPassword { .. }, PASSWORD))
        ));
    }

    #[test]
    fn a_star_cancels_and_garbage_is_malformed() {
        assert!(matches!(Exchange::Plain.take(b"*"), Step::Cancelled));
        assert!(matches!(Exchange::LoginUser.take(b"not base64!"), Step::Malformed));
        assert!(matches!(Exchange::LoginUser.take(b"/w=="), Step::Malformed));
        assert!(begin("CRAM-MD5", None).is_none());
    }
}
