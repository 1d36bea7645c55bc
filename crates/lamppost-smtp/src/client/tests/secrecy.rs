//! TLS, and passwords that travel under it alone.

use super::*;

#[test]
fn tls_begins_and_everything_is_asked_again() {
    let mut talk =
        Talk::with(ClientSettings { starttls: StartTls::Required, ..with_password(false) });
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    talk.hears(
        &offer(&["STARTTLS", "AUTH LOGIN", "PIPELINING"]),
        "STARTTLS\r\n",
        &ClientAction::Read,
    );
    talk.hears("220 Go\r\n", "", &ClientAction::StartTls);
    talk.0.tls_started();
    talk.hears("", "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    talk.hears(&offer(&["AUTH PLAIN"]), "AUTH PLAIN AGRlbW8AcGFzcw==\r\n", &ClientAction::Read);
    talk.hears("235 2.7.0 Ok\r\n", "", &ClientAction::Ready);
    // What was offered before TLS counts no more.
    talk.sends(outgoing(&["a@elsewhere.test"]), "MAIL FROM:<demo@lamppost.test>\r\n");
}

#[test]
fn nothing_is_taken_from_before_tls() {
    let mut talk = Talk::with(settings(StartTls::WhenOffered));
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    talk.hears(&offer(&["STARTTLS"]), "STARTTLS\r\n", &ClientAction::Read);
    let text = "here 4.7.0: something came in clear after the reply to STARTTLS";
    talk.unusable("220 Go\r\n250 mx\r\n", text);
}

#[test]
fn tls_that_is_not_to_be_had() {
    let mut talk = Talk::with(settings(StartTls::Required));
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    talk.unusable(OK, "here 4.7.0: the host does not offer STARTTLS, which is required");
    for (tls, usable) in [(StartTls::WhenOffered, true), (StartTls::Required, false)] {
        let mut talk = Talk::with(settings(tls));
        talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
        talk.hears(&offer(&["STARTTLS"]), "STARTTLS\r\n", &ClientAction::Read);
        let declined = "454 4.7.0 No certificate\r\n";
        if usable {
            talk.hears(declined, "", &ClientAction::Ready);
        } else {
            talk.unusable(declined, "by host 4.7.0: 454 4.7.0 No certificate");
        }
    }
}

#[test]
fn login_asks_for_name_and_password() {
    let mut talk = Talk::with(with_password(true));
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    talk.hears(&offer(&["AUTH LOGIN CRAM-MD5"]), "AUTH LOGIN\r\n", &ClientAction::Read);
    talk.hears("334 VXNlcm5hbWU6\r\n", "ZGVtbw==\r\n", &ClientAction::Read);
    talk.hears("334 UGFzc3dvcmQ6\r\n", "cGFzcw==\r\n", &ClientAction::Read);
    talk.unusable("535 5.7.8 Wrong\r\n", "by host 4.7.8: 535 5.7.8 Wrong");
}

#[test]
fn a_password_is_not_sent_where_it_can_be_overheard() {
    let mut talk = Talk::with(with_password(false));
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    let text = "here 4.7.0: the password is not sent without TLS, and there is none";
    talk.unusable(&offer(&["AUTH PLAIN"]), text);
    let mut talk = Talk::with(with_password(true));
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    let text = "here 4.7.0: the host offers neither AUTH PLAIN nor AUTH LOGIN";
    talk.unusable(&offer(&["AUTH XOAUTH2"]), text);
}
