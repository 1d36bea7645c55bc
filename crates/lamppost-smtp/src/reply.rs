//! Everything the server ever says: one table of codes (RFC 5321 §4.2), enhanced codes (RFC 3463)
//! and texts.

use std::borrow::Cow;
use std::time::Duration;

use bytes::BytesMut;

use crate::{Address, AddressError, Refusal, SyntaxError};

/// A reply to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The code.
    pub code: u16,
    /// The enhanced code; empty where RFC 2034 §4 wants none.
    pub enhanced: &'static str,
    /// The text; a line feed begins another line of the reply.
    pub text: Cow<'static, str>,
}

/// In whose words the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// In ours, with enhanced codes first (RFC 2034).
    Own,
    /// In qmail-smtpd's, with enhanced codes last.
    Qmail,
}

/// Something that can be said in either manner.
pub(crate) trait Words {
    fn reply(self, manner: Manner) -> Reply;
}

impl Words for Reply {
    fn reply(self, _: Manner) -> Reply {
        self
    }
}

impl Words for &Refusal {
    fn reply(self, _: Manner) -> Reply {
        self.into()
    }
}

impl Words for Say<'_> {
    fn reply(self, manner: Manner) -> Reply {
        match manner {
            Manner::Own => self.into(),
            Manner::Qmail => crate::qmail::worded(self),
        }
    }
}

/// What the server has to say.
#[derive(Clone, Debug)]
pub(crate) enum Say<'a> {
    AuthAgain,
    AuthCancelled,
    AuthChallenge(&'a str),
    AuthInTransaction,
    AuthMalformed,
    AuthMechanism,
    AuthNeedsTls,
    AuthNotOffered,
    AuthRequired,
    AuthWrongIdentity,
    Authenticated,
    BareNewline,
    BdatAfterData,
    Bye(&'a str),
    ChunkTaken(u64),
    ContentLineTooLong(usize),
    EarlyTalker,
    Ehlo(&'a str),
    GoAhead,
    Greeting(&'a str),
    Hello(&'a str),
    Help,
    InTransaction,
    LineTooLong,
    MessageTooBig(u64),
    NeedsHello,
    NeedsRecipient,
    NeedsSender,
    Nobody,
    NotUtf8Address,
    Ok,
    PipelinedBehindStartTls,
    ReadyForTls,
    RecipientOk,
    Reset,
    SenderOk,
    ShuttingDown,
    StartTlsNotOffered,
    Stored(&'a str),
    Syntax(SyntaxError),
    Timeout,
    TlsAlready,
    TooManyAuthFailures,
    TooManyCommands,
    TooManyErrors,
    TooManyMessages,
    TooManyRecipients(usize),
    TooManySessions,
    TooSlow,
    Unavailable,
    Unsupported,
    Vrfy,
}

pub(crate) fn reply(
    code: u16,
    enhanced: &'static str,
    text: impl Into<Cow<'static, str>>,
) -> Reply {
    Reply { code, enhanced, text: text.into() }
}

impl From<Say<'_>> for Reply {
    #[rustfmt::skip]
    fn from(say: Say<'_>) -> Self {
        match say {
            Say::AuthAgain => reply(503, "5.5.1", "you are authenticated already"),
            Say::AuthCancelled => reply(501, "5.7.0", "authentication cancelled"),
            Say::AuthChallenge(challenge) => reply(334, "", challenge.to_owned()),
            Say::AuthInTransaction => reply(503, "5.5.1", "AUTH must come before MAIL"),
            Say::AuthMalformed => reply(501, "5.5.2", "the response is not what the mechanism expects, in base64"),
            Say::AuthMechanism => reply(504, "5.5.4", "the mechanisms are PLAIN and LOGIN"),
            Say::AuthNeedsTls => reply(538, "5.7.11", "passwords need TLS: say STARTTLS first"),
            Say::AuthNotOffered => reply(503, "5.5.1", "AUTH is not offered here"),
            Say::AuthRequired => reply(530, "5.7.0", "authenticate first"),
            Say::AuthWrongIdentity => reply(535, "5.7.8", "an account acts for itself only"),
            Say::Authenticated => reply(235, "2.7.0", "authenticated"),
            Say::BareNewline => reply(550, "5.6.0", "lines must end in CR LF; a CR or LF alone is refused"),
            Say::BdatAfterData => reply(503, "5.5.1", "a message comes by DATA or by BDAT, not both"),
            Say::Bye(host) => reply(221, "2.0.0", format!("{host} says goodbye")),
            Say::ChunkTaken(length) => reply(250, "2.0.0", format!("{length} bytes taken")),
            Say::ContentLineTooLong(max) => reply(554, "5.6.0", format!("a line of the message is longer than {max} bytes")),
            Say::EarlyTalker => reply(554, "5.5.1", "you talked before the greeting"),
            Say::Ehlo(lines) => reply(250, "", lines.to_owned()),
            Say::GoAhead => reply(354, "", "send the message, then a line with a dot alone"),
            Say::Greeting(host) => reply(220, "", format!("{host} ESMTP Lamppost")),
            Say::Hello(host) => reply(250, "", host.to_owned()),
            Say::Help => reply(214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY AUTH STARTTLS HELP QUIT\nsee RFC 5321"),
            Say::InTransaction => reply(503, "5.5.1", "a message is under way: RSET gives it up"),
            Say::LineTooLong => reply(500, "5.5.2", "the line is too long"),
            Say::MessageTooBig(max) => reply(552, "5.3.4", format!("a message may have {max} bytes")),
            Say::NeedsHello => reply(503, "5.5.1", "say EHLO or HELO first"),
            Say::NeedsRecipient => reply(503, "5.5.1", "no recipient was accepted: say RCPT first"),
            Say::NeedsSender => reply(503, "5.5.1", "say MAIL first"),
            Say::Nobody => reply(421, "4.7.0", "it cannot be told who you are: come back later"),
            Say::NotUtf8Address => reply(553, "5.6.7", "an address beyond ASCII needs SMTPUTF8 in MAIL"),
            Say::Ok | Say::Reset => reply(250, "2.0.0", "ok"),
            Say::PipelinedBehindStartTls => reply(554, "5.5.1", "nothing may follow STARTTLS before TLS has begun"),
            Say::ReadyForTls => reply(220, "2.0.0", "begin TLS"),
            Say::RecipientOk => reply(250, "2.1.5", "recipient ok"),
            Say::SenderOk => reply(250, "2.1.0", "sender ok"),
            Say::ShuttingDown => reply(421, "4.3.2", "the server is shutting down: come back later"),
            Say::StartTlsNotOffered => reply(502, "5.5.1", "STARTTLS is not offered here"),
            Say::Stored(id) => reply(250, "2.0.0", format!("stored as {id}")),
            Say::Syntax(error) => syntax(error),
            Say::Timeout => reply(421, "4.4.2", "the command took too long"),
            Say::TlsAlready => reply(503, "5.5.1", "TLS has begun already"),
            Say::TooManyAuthFailures => reply(421, "4.7.0", "too many failed authentications"),
            Say::TooManyCommands => reply(421, "4.7.0", "too many commands that bring no mail"),
            Say::TooManyErrors => reply(421, "4.7.0", "too many errors"),
            Say::TooManyMessages => reply(421, "4.7.0", "enough messages for one session: connect again"),
            Say::TooManyRecipients(max) => reply(452, "4.5.3", format!("a message may have {max} recipient{}: send it again to the others", if max == 1 { "" } else { "s" })),
            Say::TooManySessions => reply(421, "4.7.0", "too many sessions: come back later"),
            Say::TooSlow => reply(421, "4.4.2", "the message comes too slowly"),
            Say::Unavailable => reply(421, "4.3.0", "a part of the server does not answer: come back later"),
            Say::Unsupported => reply(502, "5.5.1", "the command is not offered here"),
            Say::Vrfy => reply(252, "2.1.5", "say RCPT and see"),
        }
    }
}

fn syntax(error: SyntaxError) -> Reply {
    match error {
        SyntaxError::Arguments => reply(501, "5.5.4", "the arguments do not fit the command"),
        SyntaxError::BodyType => reply(555, "5.5.4", "BODY may be 7BIT or 8BITMIME"),
        SyntaxError::Byte => reply(500, "5.5.2", "a command holds printable letters only"),
        SyntaxError::Parameter => reply(555, "5.5.4", "a parameter is not offered here"),
        SyntaxError::Recipient(error) => reply(501, "5.1.3", address(error)),
        SyntaxError::Sender(error) => reply(501, "5.1.7", address(error)),
        SyntaxError::Unknown => reply(500, "5.5.1", "no such command"),
    }
}

fn address(error: AddressError) -> &'static str {
    match error {
        AddressError::Syntax => "the address is not of the form <local-part@domain>",
        AddressError::TooLong => "the address is too long",
    }
}

impl From<&Refusal> for Reply {
    #[rustfmt::skip]
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::AuthBlocked => reply(454, "4.7.0", "too many failed authentications: try again later"),
            Refusal::AuthBusy => reply(454, "4.7.0", "too many authentications at once: try again later"),
            Refusal::AuthFailed => reply(535, "5.7.8", "wrong user name or password"),
            Refusal::Greylisted { reason, retry_in } => reply(451, "4.7.1", format!("greylisted ({reason}): try again in {}", in_seconds(*retry_in))),
            Refusal::ListsSilent => reply(451, "4.7.1", "lists in the DNS that may tell of you do not answer: try again later"),
            Refusal::Loop => reply(554, "5.4.6", "the message went through too many hosts: it is in a loop"),
            Refusal::MailboxAway => reply(450, "4.2.1", "the mailbox cannot take mail now: try again later"),
            Refusal::NoWayOut { domain } => reply(550, "5.7.1", format!("this server sends no mail to other hosts, so none to {domain}")),
            Refusal::QuotaExceeded { retry_in } => reply(452, "4.7.1", format!("the account sent as much as an hour allows: try again in {}", words(*retry_in))),
            Refusal::RelayDenied => reply(550, "5.7.1", "the recipient is not here, and you may not relay"),
            Refusal::SenderNotOwned { sender } => reply(553, "5.7.1", format!("{} does not belong to your account", shown(sender))),
            Refusal::SpoolFull => reply(452, "4.3.1", "no space left for a message: try again later"),
            Refusal::SpoolFailed => reply(451, "4.3.0", "the message could not be stored: try again later"),
            Refusal::Unavailable => reply(451, "4.3.0", "a part of the server does not answer: try again later"),
            Refusal::UnknownMailbox => reply(550, "5.1.1", "no such mailbox here"),
            Refusal::Listed { text, for_good: true } | Refusal::Unwanted { text, for_good: true } => reply(553, "5.7.1", text.clone()),
            Refusal::Listed { text, for_good: false } | Refusal::Unwanted { text, for_good: false } => reply(451, "4.7.1", text.clone()),
        }
    }
}

/// An address for a reply, which must be ASCII unless the client asked for more.
fn shown(address: &Address) -> &str {
    if address.is_ascii() { address.as_str() } else { "the address" }
}

/// A duration for people who wait for its end, rounded up.
fn in_seconds(duration: Duration) -> String {
    let seconds = duration.as_millis().div_ceil(1000).max(1);
    format!("{seconds} second{}", if seconds == 1 { "" } else { "s" })
}

/// A duration for people, rounded up.
fn words(duration: Duration) -> String {
    let seconds = duration.as_millis().div_ceil(1000).max(1);
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds.div_ceil(60), "minute"),
        _ => (seconds.div_ceil(3600), "hour"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

impl Reply {
    /// Writes the reply as it is sent, each line with its code (RFC 5321 §4.2.1).
    pub(crate) fn write(&self, manner: Manner, output: &mut BytesMut) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            let (code, enhanced) = (self.code, self.enhanced);
            let line = match manner {
                _ if enhanced.is_empty() => format!("{code}{separator}{line}\r\n"),
                Manner::Own => format!("{code}{separator}{enhanced} {line}\r\n"),
                Manner::Qmail => format!("{code}{separator}{line} (#{enhanced})\r\n"),
            };
            output.extend_from_slice(line.as_bytes());
        }
    }

    /// Whether the client should try again later (RFC 5321 §4.2.1).
    pub fn is_temporary(&self) -> bool {
        (400..500).contains(&self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(reply: &Reply) -> String {
        let mut output = BytesMut::new();
        reply.write(Manner::Own, &mut output);
        String::from_utf8(output.to_vec()).unwrap()
    }

    #[test]
    fn each_line_carries_the_codes() {
        let help = rendered(&Say::Help.into());
        assert!(
            help.starts_with("214-2.0.0 EHLO") && help.ends_with("\r\n214 2.0.0 see RFC 5321\r\n")
        );
        assert_eq!(rendered(&Say::AuthChallenge("").into()), "334 \r\n");
    }

    #[test]
    fn refusals_are_told_with_their_cure() {
        let refusals = [
            Refusal::AuthBlocked,
            Refusal::AuthBusy,
            Refusal::AuthFailed,
            Refusal::Greylisted { reason: "new".into(), retry_in: Duration::from_millis(299_001) },
            Refusal::Loop,
            Refusal::MailboxAway,
            Refusal::NoWayOut { domain: "elsewhere.test".into() },
            Refusal::QuotaExceeded { retry_in: Duration::from_secs(3000) },
            Refusal::RelayDenied,
            Refusal::SenderNotOwned { sender: "a@b.test".parse().unwrap() },
            Refusal::SpoolFull,
            Refusal::SpoolFailed,
            Refusal::Unavailable,
            Refusal::UnknownMailbox,
            Refusal::Unwanted { text: "no mail from you".into(), for_good: true },
            Refusal::Unwanted { text: "not now".into(), for_good: false },
        ];
        let table: String = refusals.iter().map(|refusal| rendered(&refusal.into())).collect();
        insta::assert_snapshot!(table.replace('\r', ""), @r"
        454 4.7.0 too many failed authentications: try again later
        454 4.7.0 too many authentications at once: try again later
        535 5.7.8 wrong user name or password
        451 4.7.1 greylisted (new): try again in 300 seconds
        554 5.4.6 the message went through too many hosts: it is in a loop
        450 4.2.1 the mailbox cannot take mail now: try again later
        550 5.7.1 this server sends no mail to other hosts, so none to elsewhere.test
        452 4.7.1 the account sent as much as an hour allows: try again in 50 minutes
        550 5.7.1 the recipient is not here, and you may not relay
        553 5.7.1 a@b.test does not belong to your account
        452 4.3.1 no space left for a message: try again later
        451 4.3.0 the message could not be stored: try again later
        451 4.3.0 a part of the server does not answer: try again later
        550 5.1.1 no such mailbox here
        553 5.7.1 no mail from you
        451 4.7.1 not now
        ");
    }

    #[test]
    fn durations_are_rounded_up() {
        for (seconds, expected) in [
            (0, "1 second"),
            (1, "1 second"),
            (119, "119 seconds"),
            (121, "3 minutes"),
            (7200, "2 hours"),
            (90_000, "25 hours"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn enhanced_codes_agree_with_their_codes() {
        for say in [Say::Ok, Say::Vrfy, Say::Timeout, Say::BareNewline, Say::TooManyRecipients(1)] {
            let reply = Reply::from(say);
            assert_eq!(reply.enhanced.as_bytes()[0], reply.code.to_string().as_bytes()[0]);
        }
    }
}
