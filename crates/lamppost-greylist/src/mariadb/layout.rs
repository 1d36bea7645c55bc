//! How a table holds triplets: what names them there, and what it has room for.

use std::fmt::Write as _;
use std::net::IpAddr;

use ring::digest::{SHA256, digest};

use crate::Triplet;

/// What rows are found by: sixteen bytes of a digest that the database makes of each row, also of those
/// that old nodes write. Rows of several triplets may have the same.
pub(super) const KEY: &str = "lamppost_key";

/// Characters of the digest that ends an address which the table has no room for.
const DIGEST_CHARACTERS: usize = 24;

/// How the database makes [`KEY`]; [`Layout::keys`] makes the same.
pub(super) const KEY_EXPRESSION: &str = "UNHEX(LEFT(SHA2(LOWER(CONCAT(\
    CASE WHEN IS_IPV4(relay_ip) THEN SUBSTRING_INDEX(relay_ip, '.', 3) \
    WHEN IS_IPV6(relay_ip) THEN HEX(LEFT(INET6_ATON(relay_ip), 8)) \
    ELSE COALESCE(relay_ip, '') END, '|', \
    TRIM(LEADING '<' FROM TRIM(TRAILING '>' FROM CONVERT(mail_from USING ascii))), '|', \
    TRIM(LEADING '<' FROM TRIM(TRAILING '>' FROM CONVERT(rcpt_to USING ascii))))), 256), 32))";

/// What the columns of `relaytofrom` can hold, and how this database writes addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Characters of `relay_ip`, `mail_from` and `rcpt_to`.
    pub(super) room: [usize; 3],
    /// Whether they hold all that UTF-8 can tell.
    pub(super) is_unicode: bool,
    /// Whether addresses stand in angle brackets, as relaydelay writes them.
    pub(super) brackets: bool,
}

impl Layout {
    /// A triplet as a row names it, without brackets.
    pub(super) fn stored(&self, triplet: &Triplet) -> Triplet {
        let Triplet { network, sender, recipient } = triplet;
        let [of_network, of_sender, of_recipient] = self.room;
        Triplet {
            network: self.fitting(network, of_network),
            sender: self.fitting(sender, of_sender.saturating_sub(2)),
            recipient: self.fitting(recipient, of_recipient.saturating_sub(2)),
        }
    }

    /// The keys of all rows that may be of a triplet: those of its network, and those of any.
    pub(super) fn keys(&self, triplet: &Triplet) -> [String; 2] {
        let Triplet { network, sender, recipient } = self.stored(triplet);
        let network = match network.parse() {
            Ok(IpAddr::V4(v4)) => {
                let [a, b, c, _] = v4.octets();
                format!("{a}.{b}.{c}")
            }
            Ok(IpAddr::V6(v6)) => hex(&v6.octets()[..8]),
            Err(_) => network,
        };
        [network.as_str(), ""].map(|network| key(&format!("{network}|{sender}|{recipient}")))
    }

    /// An address as this database writes it.
    pub(super) fn address(&self, address: &str) -> String {
        if self.brackets { format!("<{address}>") } else { address.to_owned() }
    }

    /// A text, or what stands for it where the column has no room for it.
    fn fitting(&self, text: &str, room: usize) -> String {
        let is_short = text.chars().count() <= room;
        // They would be taken for those that some databases write around addresses.
        let has_brackets = text.starts_with('<') || text.ends_with('>');
        if is_short && !has_brackets && (self.is_unicode || text.is_ascii()) {
            return text.to_owned();
        }
        let whole = hex(digest(&SHA256, text.as_bytes()).as_ref());
        let digest = &whole[..DIGEST_CHARACTERS];
        // The domain stays readable, if there is room for it.
        let text = ascii(text).replace(['<', '>'], "?");
        let (user, domain) = text.split_at(text.rfind('@').unwrap_or(text.len()));
        let room = room.saturating_sub(DIGEST_CHARACTERS + 1);
        let domain = if domain.len() < room { domain } else { "" };
        let begin = &user[..user.len().min(room - domain.len())];
        format!("{begin}#{digest}{domain}")
    }
}

/// An address as it stands in a row, without brackets and in lower case.
pub(super) fn bare(address: &str) -> String {
    address.trim_start_matches('<').trim_end_matches('>').to_lowercase()
}

/// Whether a row's network is that of a triplet: the same, or an address in it, as old nodes write.
pub(super) fn is_network(row: Option<&str>, network: &str) -> bool {
    let Some(row) = row else { return true };
    if row.eq_ignore_ascii_case(network) {
        return true;
    }
    match (row.parse(), network.parse()) {
        (Ok(IpAddr::V4(row)), Ok(IpAddr::V4(network))) => {
            network.octets()[3] == 0 && row.octets()[..3] == network.octets()[..3]
        }
        (Ok(IpAddr::V6(row)), Ok(IpAddr::V6(network))) => {
            network.octets()[8..] == [0; 8] && row.octets()[..8] == network.octets()[..8]
        }
        _ => false,
    }
}

/// A text as SQL, which no text can break out of.
pub(super) fn literal(text: &str) -> String {
    format!("_utf8mb4 x'{}'", hex(text.as_bytes()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// A key as SQL.
fn key(text: &str) -> String {
    let whole = digest(&SHA256, ascii(text).to_lowercase().as_bytes());
    format!("x'{}'", hex(&whole.as_ref()[..16]))
}

/// As `CONVERT(… USING ascii)`.
pub(super) fn ascii(text: &str) -> String {
    text.chars().map(|letter| if letter.is_ascii() { letter } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(is_unicode: bool) -> Layout {
        Layout { room: [100, 255, 255], is_unicode, brackets: false }
    }

    fn triplet(network: &str, sender: &str) -> Triplet {
        let (network, sender) = (network.to_owned(), sender.to_owned());
        Triplet { network, sender, recipient: "me@lamppost.test".into() }
    }

    #[test]
    fn what_there_is_no_room_for_is_named_by_a_digest() {
        let stored =
            |text: &str, is_unicode| layout(is_unicode).stored(&triplet("192.0.2.0", text)).sender;
        assert_eq!(stored("a@b.test", false), "a@b.test");
        assert_eq!(stored("jürgen@b.test", true), "jürgen@b.test");
        let named = stored("jürgen@b.test", false);
        assert!(named.starts_with("j?rgen#") && named.ends_with("@b.test"), "{named}");
        assert_ne!(named, stored("jörgen@b.test", false));
        let long = format!("{}@{}.test", "l".repeat(300), "d".repeat(60));
        let named = stored(&long, true);
        assert!(named.len() <= 253 && named.ends_with("d.test"), "{named}");
        assert_ne!(named, stored(&long.replace("lll@", "llm@"), true));
        let longer = format!("{}@{}", "l".repeat(300), "d".repeat(400));
        assert!(stored(&longer, true).len() <= 253);
        let odd = stored("<a@b.test>", true);
        assert_eq!(bare(&odd), odd);
    }

    #[test]
    fn rows_of_a_network_count_for_it() {
        assert!(is_network(Some("192.0.2.77"), "192.0.2.0"));
        assert!(is_network(Some("192.0.2.0"), "192.0.2.0"));
        assert!(!is_network(Some("192.0.3.77"), "192.0.2.0"));
        assert!(!is_network(Some("192.0.2.77"), "192.0.2.64"));
        assert!(is_network(Some("2001:db8:1:2:3::4"), "2001:db8:1:2::"));
        assert!(!is_network(Some("2001:db8:1:3::4"), "2001:db8:1:2::"));
        assert!(is_network(Some("spf:Elsewhere.test"), "spf:elsewhere.test"));
        assert!(!is_network(Some("spf:elsewhere.test"), "192.0.2.0"));
        assert!(is_network(None, "192.0.2.0"));
    }

    #[test]
    fn rows_of_a_network_have_one_key() {
        let keys =
            |network| layout(true).keys(&triplet(network, "A@b.test".to_lowercase().as_str()));
        assert_eq!(keys("192.0.2.0"), keys("192.0.2.77"));
        assert_eq!(keys("2001:db8:1:2::"), keys("2001:db8:1:2:3::4"));
        assert_ne!(keys("192.0.2.0"), keys("192.0.3.0"));
        // As SHA2() says of 192.0.2|a@b.c|d@e.f.
        let triplet = Triplet {
            network: "192.0.2.0".into(),
            sender: "a@b.c".into(),
            recipient: "d@e.f".into(),
        };
        assert_eq!(layout(true).keys(&triplet)[0], "x'821f472738fdaa3ed931df67f6059ffc'");
    }
}
