//! An attempt to deliver a message, as a line tells it.

use std::net::IpAddr;
use std::time::Duration;

use lamppost_evidence::{Evidence, Spf, SpfResult};
use serde::Deserialize;

/// An attempt to deliver a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When it was made, since 1970.
    pub at: Duration,
    /// The client's address.
    pub peer: IpAddr,
    /// What the client calls itself.
    pub helo: String,
    /// Its confirmed names, if that is known.
    pub names: Option<Vec<String>>,
    /// The sender; empty for the null sender.
    pub sender: String,
    /// The recipients.
    pub recipients: Vec<String>,
    /// Whether the client authenticated.
    pub is_authenticated: bool,
    /// What SPF said.
    pub spf: Spf,
    /// Whether lists in the DNS held the client.
    pub is_listed: bool,
    /// What became of the message, had nobody been greylisted.
    pub end: End,
}

/// What becomes of a message once its recipients are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client leaves before it sends the message.
    Left,
    /// The message is refused for what is in it.
    Refused,
    /// It is taken.
    Taken,
}

/// A line that tells no attempt.
#[derive(Debug, thiserror::Error)]
pub enum NotADelivery {
    /// It is no JSON object with the members of one.
    #[error("the line is no attempt in JSON")]
    Json(#[source] serde_json::Error),
    /// A time that cannot be.
    #[error("`t` is {0}, which is no time in seconds since 1970")]
    Time(f64),
    /// A word that SPF does not know.
    #[error("`spf` is {0:?}, which is no result of SPF")]
    Spf(String),
    /// A word that says nothing of a message's end.
    #[error("`data` is {0:?}: write true, false or \"reject\"")]
    Data(String),
}

#[derive(Deserialize)]
struct Line {
    t: f64,
    ip: IpAddr,
    #[serde(default)]
    helo: Option<String>,
    #[serde(default, deserialize_with = "names")]
    host: Option<Vec<String>>,
    from: Option<String>,
    to: OneOrMore,
    #[serde(default)]
    auth: bool,
    #[serde(default)]
    spf: Option<SpfLine>,
    #[serde(default)]
    listed: bool,
    #[serde(default)]
    data: Option<DataLine>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SpfLine {
    Result(String),
    Whole {
        result: String,
        #[serde(default)]
        domain: Option<String>,
        /// Whether few enough may send for it to count as one network.
        #[serde(default = "yes")]
        narrow: bool,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum DataLine {
    Word(String),
    IsSent(bool),
}

fn yes() -> bool {
    true
}

/// What is there and null is known to be none.
fn names<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let name = Option::<String>::deserialize(from)?;
    Ok(Some(name.into_iter().collect()))
}

impl Delivery {
    /// Reads a line of JSON.
    ///
    /// # Errors
    /// When it tells no attempt.
    pub fn of_json(line: &str) -> Result<Self, NotADelivery> {
        let line: Line = serde_json::from_str(line).map_err(NotADelivery::Json)?;
        let at = Duration::try_from_secs_f64(line.t).map_err(|_| NotADelivery::Time(line.t))?;
        // What a number with a fraction cannot hold exactly is no part of the time.
        let at =
            Duration::from_millis(u64::try_from((at.as_micros() + 500) / 1000).unwrap_or(u64::MAX));
        let helo = line.helo.unwrap_or_default();
        let sender = bare(&line.from.unwrap_or_default()).to_owned();
        let recipients = match line.to {
            OneOrMore::One(to) => vec![to],
            OneOrMore::More(to) => to,
        };
        Ok(Self {
            at,
            peer: line.ip.to_canonical(),
            spf: spf(line.spf, &sender, &helo)?,
            helo,
            names: line.host,
            sender,
            recipients: recipients.iter().map(|to| bare(to).to_owned()).collect(),
            is_authenticated: line.auth,
            is_listed: line.listed,
            end: match line.data {
                None | Some(DataLine::IsSent(true)) => End::Taken,
                Some(DataLine::IsSent(false)) => End::Left,
                Some(DataLine::Word(word)) => match &word[..] {
                    "accept" => End::Taken,
                    "reject" => End::Refused,
                    _ => return Err(NotADelivery::Data(word)),
                },
            },
        })
    }

    /// What is known of the client.
    pub fn evidence(&self) -> Evidence {
        let evidence = Evidence::of(self.peer, self.spf.clone(), self.names.as_deref());
        Evidence { is_listed: self.is_listed, ..evidence }
    }
}

/// An address without the brackets that envelopes have.
pub(super) fn bare(address: &str) -> &str {
    let address = address.trim();
    address.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(address)
}

fn spf(line: Option<SpfLine>, sender: &str, helo: &str) -> Result<Spf, NotADelivery> {
    let (result, domain, is_narrow) = match line {
        None => return Ok(Spf::default()),
        Some(SpfLine::Result(result)) => (result, None, true),
        Some(SpfLine::Whole { result, domain, narrow }) => (result, domain, narrow),
    };
    let Some(result) = SpfResult::of_name(&result) else { return Err(NotADelivery::Spf(result)) };
    // The domain of HELO is asked about for the null sender (RFC 7208 §2.4).
    let asked = || sender.rsplit_once('@').map_or(helo, |(_, domain)| domain).to_owned();
    let domain = domain.unwrap_or_else(asked).to_lowercase();
    Ok(Spf { result, domain, is_narrow })
}

#[cfg(test)]
mod tests {
    use lamppost_evidence::{ConfirmedName, ReverseName};

    use super::*;

    #[test]
    fn a_line_tells_an_attempt() {
        let line = r#"{"t": 1700000000.25, "ip": "::ffff:192.0.2.1", "helo": "mx.a.test", "host": "MX.a.test",
            "from": "<S@a.test>", "to": ["x@here.test", "<y@here.test>"], "auth": false, "spf": "pass",
            "data": true, "more": 1}"#;
        let delivery = Delivery::of_json(line).unwrap();
        assert_eq!(delivery.at, Duration::from_millis(1_700_000_000_250));
        assert_eq!(delivery.peer.to_string(), "192.0.2.1");
        assert_eq!(
            (&delivery.sender[..], &delivery.recipients[1][..]),
            ("S@a.test", "y@here.test")
        );
        let evidence = delivery.evidence();
        assert_eq!(evidence.spf.domain, "a.test");
        assert_eq!(evidence.name, ReverseName::Confirmed(ConfirmedName::of("mx.a.test")));
        let line = r#"{"t": 0, "ip": "2001:db8::1", "from": "", "to": "x@here.test", "helo": "H.test",
            "host": null, "spf": {"result": "pass", "narrow": false}, "data": "reject"}"#;
        let delivery = Delivery::of_json(line).unwrap();
        assert_eq!((delivery.end, delivery.spf.is_narrow), (End::Refused, false));
        assert_eq!((&delivery.spf.domain[..], &delivery.names), ("h.test", &Some(vec![])));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let check = |line: &str, expected: &str| {
            let error = Delivery::of_json(line).unwrap_err();
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            assert_eq!(format!("{error}{}", source.unwrap_or_default()), expected);
        };
        let with =
            |rest: &str| format!(r#"{{"t":1,"ip":"192.0.2.1","from":"","to":["a@b.test"]{rest}}}"#);
        check("x", "the line is no attempt in JSON: expected value at line 1 column 1");
        check(
            r#"{"t":1}"#,
            "the line is no attempt in JSON: missing field `ip` at line 1 column 7",
        );
        check(&with(r#","spf":"good""#), "`spf` is \"good\", which is no result of SPF");
        check(&with(r#","data":"maybe""#), "`data` is \"maybe\": write true, false or \"reject\"");
        check(
            &with("").replace("\"t\":1", "\"t\":-1"),
            "`t` is -1, which is no time in seconds since 1970",
        );
    }
}
