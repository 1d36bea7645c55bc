//! AUTH (RFC 4954).

use crate::auth::{self, Exchange, Step};
use crate::line::Line;
use crate::reply::{Manner, Say, Words};
use crate::{AuthOffer, QmailQuestion, Refusal};

use super::{Answer, Asked, Question, Session, State};

impl Session {
    pub(super) fn auth(&mut self, mechanism: &str, initial: Option<&str>) {
        if self.lacks_hello() {
            return self.error(Say::NeedsHello);
        }
        if self.account.is_some() || self.is_authenticated {
            return self.error(Say::AuthAgain);
        }
        if self.transaction.is_some() {
            return self.error(Say::AuthInTransaction);
        }
        if !self.offers_auth() {
            let later = self.settings.auth == AuthOffer::UnderTls && self.settings.starttls;
            return self.error(if later { Say::AuthNeedsTls } else { Say::AuthNotOffered });
        }
        if self.manner == Manner::Qmail && mechanism == "CRAM-MD5" {
            return self.ask(Question::Qmail(QmailQuestion::Challenge), Asked::Challenge);
        }
        match auth::begin(mechanism, initial) {
            Some(step) => self.step(step),
            None => self.error(Say::AuthMechanism),
        }
    }

    pub(super) fn next_response(&mut self, exchange: Exchange) -> bool {
        let max = self.settings.limits.auth_line_max;
        match self.lines.take(&mut self.input, max, self.link.bare_newline) {
            Line::Incomplete => {
                self.state = State::Auth(exchange);
                return false;
            }
            Line::Whole(line) => self.step(exchange.take(&line)),
            other => self.bad_line(&other),
        }
        true
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Cancelled => self.error(Say::AuthCancelled),
            Step::Challenge(exchange, challenge) => {
                self.say(Say::AuthChallenge(challenge));
                self.state = State::Auth(exchange);
            }
            Step::Malformed => self.error(Say::AuthMalformed),
            Step::Proved { user, challenge, digest } => {
                let question = QmailQuestion::Digest { user, challenge, digest };
                self.ask(Question::Qmail(question), Asked::Authenticate);
            }
            Step::Tried { user, password } => {
                self.ask(Question::Authenticate { user, password }, Asked::Authenticate);
            }
            Step::WrongIdentity => self.failed(Say::AuthWrongIdentity),
        }
    }

    pub(super) fn authenticated(&mut self, answer: Answer) {
        match answer {
            Answer::Account(account) => {
                self.account = Some(account);
                self.say(Say::Authenticated);
            }
            Answer::Yes if self.manner == Manner::Qmail => {
                self.is_authenticated = true;
                self.say(Say::Authenticated);
            }
            answer => {
                self.failed(answer.refusal().unwrap_or_else(|| (&Refusal::Unavailable).into()));
            }
        }
    }

    pub(super) fn failed(&mut self, say: impl Words) {
        self.say(say);
        self.counts.auth_failures += 1;
        if self.counts.auth_failures >= self.settings.limits.auth_tries_max {
            self.close_saying(Say::TooManyAuthFailures);
        }
    }
}
