//! From the greeting to a connection that is ready for mail.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use zeroize::Zeroizing;

use crate::Status;

use super::extensions::Extensions;
use super::message::Complaint;
use super::reply::{HostReply, ReplyReader};
use super::{Awaited, Client, ClientAction, Credentials, StartTls, State};

impl Client {
    pub(super) fn greeted(&mut self, reply: &HostReply) {
        match reply.class() {
            2 => self.say_hello("EHLO"),
            _ => self.end(Complaint::said(reply)),
        }
    }

    pub(super) fn say_hello(&mut self, verb: &str) {
        let awaited = if verb == "EHLO" { Awaited::Ehlo } else { Awaited::Helo };
        let line = format!("{verb} {}", self.settings.hostname);
        self.say(&line, awaited);
    }

    pub(super) fn ehlo_answered(&mut self, reply: &HostReply) {
        match reply.class() {
            2 => {
                self.extensions = Extensions::read(reply);
                self.begin_tls();
            }
            // An old host does not know EHLO (RFC 5321 §3.2).
            5 => self.say_hello("HELO"),
            _ => self.end(Complaint::said(reply)),
        }
    }

    pub(super) fn helo_answered(&mut self, reply: &HostReply) {
        match reply.class() {
            2 => self.begin_tls(),
            _ => self.end(Complaint::said(reply)),
        }
    }

    fn begin_tls(&mut self) {
        match self.settings.starttls {
            _ if self.tls => self.authenticate(),
            StartTls::Never => self.authenticate(),
            _ if self.extensions.starttls => self.say("STARTTLS", Awaited::StartTls),
            StartTls::WhenOffered => self.authenticate(),
            StartTls::Required => self.end(Complaint::own(
                Status::POLICY,
                "the host does not offer STARTTLS, which is required",
            )),
        }
    }

    pub(super) fn starttls_answered(&mut self, reply: &HostReply) {
        if reply.code != 220 {
            return match self.settings.starttls {
                StartTls::WhenOffered if reply.class() >= 4 => self.authenticate(),
                _ => self.end(Complaint::said(reply)),
            };
        }
        if !self.input.is_empty() {
            // What came before TLS could have been put there by anybody (RFC 3207 §6).
            let text = "something came in clear after the reply to STARTTLS";
            return self.end(Complaint::own(Status::POLICY, text));
        }
        self.state = State::Tls;
        self.actions.push_back(ClientAction::StartTls);
    }

    fn authenticate(&mut self) {
        let Some(credentials) = self.settings.credentials.clone() else {
            self.state = State::Ready;
            return;
        };
        if !self.tls && !credentials.without_tls {
            let text = "the password is not sent without TLS, and there is none";
            return self.end(Complaint::own(Status::POLICY, text));
        }
        if self.extensions.auth_plain {
            self.say_plain(&credentials);
        } else if self.extensions.auth_login {
            self.say("AUTH LOGIN", Awaited::LoginUser);
        } else {
            let text = "the host offers neither AUTH PLAIN nor AUTH LOGIN";
            self.end(Complaint::own(Status::POLICY, text));
        }
    }

    /// RFC 4616 §2; the host derives the identity to act as.
    fn say_plain(&mut self, credentials: &Credentials) {
        let Credentials { user, password, .. } = credentials;
        let response = Zeroizing::new(format!("\0{user}\0{}", password.expose()));
        let line = Zeroizing::new(format!("AUTH PLAIN {}", STANDARD.encode(response.as_bytes())));
        self.say(&line, Awaited::Authenticated);
    }

    pub(super) fn login_asked(&mut self, reply: &HostReply, asked: Awaited) {
        let Some(credentials) = self.settings.credentials.clone().filter(|_| reply.code == 334)
        else {
            return self.authentication_failed(reply);
        };
        let (text, next) = match asked {
            Awaited::LoginUser => (credentials.user.as_str(), Awaited::LoginPassword),
            _ => (credentials.password.expose(), Awaited::Authenticated),
        };
        let line = Zeroizing::new(STANDARD.encode(text));
        self.say(&line, next);
    }

    pub(super) fn authenticated(&mut self, reply: &HostReply) {
        match reply.class() {
            2 => self.state = State::Ready,
            _ => self.authentication_failed(reply),
        }
    }

    fn authentication_failed(&mut self, reply: &HostReply) {
        let said = Complaint::said(reply);
        let is_clear = reply.class() != 5 || reply.enhanced().is_some();
        let status = if is_clear { said.status } else { Status::AUTH_FAILED };
        self.end(Complaint { status, ..said });
    }

    /// TLS has begun: whatever the host said before is forgotten (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        self.tls = true;
        self.extensions = Extensions::default();
        self.input = BytesMut::new();
        self.replies = ReplyReader::default();
        if matches!(self.state, State::Tls) {
            self.state = State::Listening;
            self.say_hello("EHLO");
        }
    }
}
