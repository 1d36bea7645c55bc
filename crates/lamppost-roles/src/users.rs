//! Policy and delivery to the supervisor: users of this machine, whose homes hold mailboxes.
//!
//! All that is asked has one size. The supervisor may be root: it reads nothing that could be long, and believes
//! nothing that it is told; it looks a user up itself before it starts a process as that user.

use serde::{Deserialize, Serialize};

use crate::{ContentRequest, DeliveryRequest};

/// The longest name of a user, in bytes (`useradd(8)`).
const NAME_MAX: usize = 32;

/// What could be the name of a user, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UserName([u8; NAME_MAX]);

impl UserName {
    /// The name that a local part names, whatever its case; nothing when no user can be called so.
    pub fn of(local: &str) -> Option<Self> {
        let name = local.to_lowercase();
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b":/@".contains(&byte);
        let is_name = !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(is_plain);
        is_name.then(|| {
            let mut bytes = [0; NAME_MAX];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            Self(bytes)
        })
    }

    /// The name; empty when whoever sent it made it up.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(NAME_MAX);
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

/// What policy asks the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserRequest {
    /// How is the user of this number called?
    Name(u32),
    /// Does a user of this name get mail?
    Mailbox(UserName),
}

/// What the supervisor answers policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserAnswer {
    /// To Name: so, if the machine lists the user.
    Name(Option<String>),
    /// To Mailbox.
    Mailbox(UserMailbox),
}

/// Whether a user gets mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserMailbox {
    /// It does.
    Here(SystemUser),
    /// There is no such user, or it gets none.
    Unknown,
    /// It cannot get any now; the reason is for people.
    Away(String),
}

/// A user as the machine lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SystemUser {
    /// Its number.
    pub uid: u32,
    /// Tells what the machine lists of it from what it lists when the user's home or group is another.
    pub listed: u64,
}

/// What delivery asks the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerRequest {
    /// Does a user of this name get mail?
    Mailbox(UserName),
    /// Start a process that writes into the home of the user of this number, as that user.
    Process(u32),
    /// A process is done without: end it, and answer once it has ended or is known not to.
    Dropped {
        /// The number of its user.
        uid: u32,
        /// The process.
        pid: u32,
    },
}

/// What the supervisor answers delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerAnswer {
    /// To Mailbox.
    Mailbox(UserMailbox),
    /// To Process: it is started, and two ends of links to it come as descriptors of these numbers.
    Started {
        /// The process.
        pid: u32,
        /// The number of the end by which it is asked to deliver.
        work: u32,
        /// The number of the end by which it asks ([`OwnerQuestion`]).
        questions: u32,
    },
    /// To Process: it is not; the reason is for people.
    Refused(String),
    /// To Dropped.
    Dropped,
}

/// What delivery asks of the process of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerWork {
    /// Answer, if you can: nothing for nothing.
    Answer,
    /// Deliver what is for the user.
    Deliver(DeliveryRequest),
}

/// What the process of a user asks of delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerQuestion {
    /// Nothing: it tells, in JSON's text, what it gave up (`lamppost_sandbox::InForce`).
    Restricted(String),
    /// A piece of a message that it delivers.
    Content(ContentRequest),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users_have_one_size() {
        let name = |local: &str| UserName::of(local).map(|name| name.as_str().to_owned());
        assert_eq!(name("Alice").as_deref(), Some("alice"));
        assert_eq!(name(&"x".repeat(32)), Some("x".repeat(32)));
        for none in ["", "a b", "a/b", "a:b", "a\0b", "ä", &"x".repeat(33)] {
            assert_eq!(name(none), None, "{none:?}");
        }
        // Whoever asks may send anything.
        assert_eq!(UserName([0xff; NAME_MAX]).as_str(), "");
    }
}
