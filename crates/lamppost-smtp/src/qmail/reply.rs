//! What qmail-smtpd says, word for word; what it has no words for is said in ours, in its form.

use crate::reply::{Say, reply};
use crate::{Reply, SyntaxError};

/// What is to be said, in qmail's words.
#[rustfmt::skip]
pub(crate) fn worded(say: Say<'_>) -> Reply {
    match say {
        Say::AuthAgain => reply(503, "5.5.0", "you're already authenticated"),
        Say::AuthCancelled => reply(501, "5.0.0", "auth exchange canceled"),
        Say::AuthInTransaction => reply(503, "5.5.0", "no auth during mail transaction"),
        Say::AuthMalformed => reply(501, "5.5.4", "malformed auth input"),
        Say::AuthMechanism => reply(504, "5.5.1", "auth type unimplemented"),
        Say::AuthNotOffered => reply(503, "5.3.3", "auth not available"),
        Say::AuthWrongIdentity => reply(535, "5.7.1", "authentication failed"),
        Say::Authenticated => reply(235, "2.0.0", "ok, go ahead"),
        Say::BareNewline => reply(451, "", "See http://pobox.com/~djb/docs/smtplf.html."),
        Say::Bye(greeting) => reply(221, "", greeting.to_owned()),
        Say::GoAhead => reply(354, "", "go ahead"),
        Say::Greeting(greeting) => reply(220, "", format!("{greeting} ESMTP")),
        Say::Help => reply(214, "", "HELO EHLO MAIL RCPT DATA RSET NOOP VRFY AUTH HELP QUIT, as qmail-smtpd has them"),
        Say::MessageTooBig(_) => reply(552, "5.3.4", "sorry, that message size exceeds my databytes limit"),
        Say::NeedsRecipient => reply(503, "5.5.1", "RCPT first"),
        Say::NeedsSender => reply(503, "5.5.1", "MAIL first"),
        Say::Ok | Say::RecipientOk | Say::SenderOk => reply(250, "", "ok"),
        Say::Reset => reply(250, "", "flushed"),
        Say::Stored(id) => reply(250, "", format!("ok {id}")),
        Say::Syntax(SyntaxError::Unknown) | Say::Unsupported => reply(502, "5.5.1", "unimplemented"),
        Say::Syntax(_) => reply(555, "5.5.4", "syntax error"),
        Say::Timeout | Say::TooSlow => reply(451, "4.4.2", "timeout"),
        Say::Vrfy => reply(252, "", "send some mail, i'll try my best"),
        other => other.into(),
    }
}
