//! What several tests of deliveries begin with.

use lamppost_roles::{Content, DeliveryJob, Origin, Placement, QueueId, Timestamp};
use lamppost_smtp::Address;

/// A message to the mailbox of this name.
pub(crate) fn job(id: u64, local: &str, content: Content) -> DeliveryJob {
    let mailbox: Address = format!("{local}@lamppost.test").parse().unwrap();
    DeliveryJob {
        placement: Placement { id: QueueId(id), index: 0, mailbox: mailbox.clone() },
        sender: "sender@elsewhere.test".parse().unwrap(),
        recipient: mailbox,
        origin: Origin {
            session: "s1".into(),
            peer: "192.0.2.1".parse().unwrap(),
            helo: "client.test".into(),
            host: "mail.lamppost.test".into(),
            protocol: "ESMTP".into(),
            tls: None,
            account: None,
            received: Timestamp(1_800_000_000_000),
        },
        content,
    }
}
