//! The name of a message's file in a Maildir (cr.yp.to/proto/maildir.html).

use lamppost_roles::Placement;

/// A name that follows from the message and the recipient alone, so that a delivery that is repeated
/// after a crash finds the file of the first try.
///
/// Seconds since 1970 come first, as readers expect; the host's name is last, its `/` and `:`
/// replaced.
pub(crate) fn file_name(placement: &Placement, hostname: &str) -> String {
    let seconds = placement.id.0 / 1_000_000;
    let host = hostname.replace('/', "\\057").replace(':', "\\072");
    format!("{seconds}.{}-{}.{host}", placement.id, placement.index)
}

#[cfg(test)]
mod tests {
    use lamppost_roles::QueueId;

    use super::*;

    #[test]
    fn names_follow_from_message_and_recipient() {
        let mailbox = "demo@lamppost.test".parse().unwrap();
        let placement = Placement { id: QueueId(1_800_000_000_123_456), index: 2, mailbox };
        assert_eq!(
            file_name(&placement, "mail:1/x"),
            format!("1800000000.{}-2.mail\\0721\\057x", placement.id)
        );
    }
}
