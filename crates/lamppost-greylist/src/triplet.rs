//! Who meets whom: the key of the greylist, and the other keys that are remembered beside it.

use lamppost_evidence::registrable;

/// What stands for the network in the name of mail that somebody may answer.
const ANSWER: &str = "answer";

/// A network, a sender and a recipient.
///
/// Large senders come back from a neighbour of the address that they tried first, hence the network. Some
/// change the case of addresses from one attempt to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Triplet {
    /// The first address of the client's network, in the usual notation; `spf:` or `name:` and a domain for
    /// everybody whom that domain lets send, or whose confirmed name is below it.
    pub network: String,
    /// The sender in lower case; empty for the null sender.
    pub sender: String,
    /// The recipient in lower case.
    pub recipient: String,
}

impl Triplet {
    /// What is remembered of a network as a whole: nobody writes to no one.
    pub fn reputation(network: &str) -> Self {
        Self { network: network.to_owned(), sender: String::new(), recipient: String::new() }
    }

    /// What is remembered of mail from somebody here to somebody in another domain, who may answer. The
    /// answer may come from another name below what the domain's owner registered.
    pub(crate) fn answer(domain: &str, recipient: &str) -> Self {
        let domain = domain.to_lowercase();
        let domain = registrable(&domain).unwrap_or(&domain);
        Self {
            network: ANSWER.to_owned(),
            sender: format!("@{domain}"),
            recipient: recipient.to_lowercase(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_come_from_another_name_of_the_domain() {
        let answer = |domain| Triplet::answer(domain, "Me@lamppost.test").sender;
        assert_eq!(answer("Shop.example.co.uk"), "@example.co.uk");
        assert_eq!(answer("localhost"), "@localhost");
        assert_eq!(Triplet::answer("a.test", "Me@lamppost.test").recipient, "me@lamppost.test");
    }
}
