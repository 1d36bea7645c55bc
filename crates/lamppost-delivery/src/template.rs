//! Where an account's Maildir is.

use std::fmt::Write as _;
use std::path::PathBuf;

use lamppost_smtp::Address;

/// A path with `{domain}` and `{local}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaildirTemplate(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Text(String),
    /// All mail goes there: that of one user.
    One(PathBuf),
}

/// Why a text is no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It does not begin with `/`.
    #[error("the path of Maildirs must begin with /")]
    Relative,
    /// Accounts would share a Maildir.
    #[error("the path of Maildirs must hold {{domain}} and {{local}}, or accounts would share one")]
    Shared,
}

impl MaildirTemplate {
    /// Checks a template.
    ///
    /// # Errors
    /// When it is relative, or two accounts would share a Maildir.
    pub fn new(text: String) -> Result<Self, TemplateError> {
        if !text.starts_with('/') {
            return Err(TemplateError::Relative);
        }
        let between = text.contains("{domain}{local}") || text.contains("{local}{domain}");
        if between || !text.contains("{domain}") || !text.contains("{local}") {
            return Err(TemplateError::Shared);
        }
        Ok(Self(Kind::Text(text)))
    }

    /// One Maildir for whatever comes, as in a process that delivers for one user.
    pub fn one(path: PathBuf) -> Self {
        Self(Kind::One(path))
    }

    /// The Maildir of an account. Two accounts share one only if they differ in case alone.
    pub fn path(&self, mailbox: &Address) -> PathBuf {
        let text = match &self.0 {
            Kind::Text(text) => text,
            Kind::One(path) => return path.clone(),
        };
        let domain = component(mailbox.domain());
        let local = component(mailbox.local());
        // Neither part holds a brace, so the second replacement finds nothing of the first.
        PathBuf::from(text.replace("{domain}", &domain).replace("{local}", &local))
    }
}

/// A text as part of a path: in lower case, and what could mean something to a file system, to a
/// shell or to the template as `%` and two hexadecimal digits a byte.
fn component(text: &str) -> String {
    let mut component = String::new();
    for (at, letter) in text.to_lowercase().char_indices() {
        let plain = letter.is_ascii_alphanumeric()
            || "-_+=~@".contains(letter)
            || (letter == '.' && at > 0);
        if plain {
            component.push(letter);
        } else {
            for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                let _infallible = write!(component, "%{byte:02x}");
            }
        }
    }
    component
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(mailbox: &str) -> String {
        let template = MaildirTemplate::new("/mail/{domain}/{local}/Maildir".into()).unwrap();
        template.path(&mailbox.parse().unwrap()).to_str().unwrap().to_owned()
    }

    #[test]
    fn ordinary_addresses_read_well() {
        assert_eq!(path("Demo@Lamppost.test"), "/mail/lamppost.test/demo/Maildir");
        assert_eq!(path("first.last+tag@b.test"), "/mail/b.test/first.last+tag/Maildir");
    }

    #[test]
    fn nothing_leaves_its_folder() {
        assert_eq!(path("a/b@c.test"), "/mail/c.test/a%2fb/Maildir");
        assert_eq!(path("\"../x\"@c.test"), "/mail/c.test/%22..%2fx%22/Maildir");
        assert_eq!(path("\"..\"@c.test"), "/mail/c.test/%22..%22/Maildir");
        assert_eq!(path("{domain}@c.test"), "/mail/c.test/%7bdomain%7d/Maildir");
    }

    #[test]
    fn templates_are_checked() {
        let error = |text: &str| MaildirTemplate::new(text.into()).unwrap_err();
        assert_eq!(error("mail/{domain}/{local}"), TemplateError::Relative);
        assert_eq!(error("/mail/{local}"), TemplateError::Shared);
        assert_eq!(error("/mail/{domain}{local}"), TemplateError::Shared);
    }

    proptest! {
        #[test]
        fn no_two_accounts_share_a_maildir(
            a in "[a-z0-9!#$%&'*/=?^_`{|}~.-]{1,12}",
            b in "[a-z0-9!#$%&'*/=?^_`{|}~.-]{1,12}",
        ) {
            prop_assert_eq!(component(&a) == component(&b), a == b);
            prop_assert!(!component(&a).contains('/') && !component(&a).starts_with('.'));
        }
    }
}
