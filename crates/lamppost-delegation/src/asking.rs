//! The side of who asks: questions as bytes, and what was answered.

use crate::action::line;
use crate::decoder::{Question, RECIPE_PREFIX};

impl Question {
    /// The bytes that ask it. What could end a line in a value is a blank: nothing in one begins another.
    pub fn to_bytes(&self) -> Vec<u8> {
        let client = self.client.map(|client| client.to_string()).unwrap_or_default();
        let attributes = [
            ("request", "smtpd_access_policy"),
            ("protocol_state", &self.stage),
            ("client_address", &client),
            ("helo_name", &self.helo),
            ("sender", &self.sender),
            ("recipient", &self.recipient),
            ("instance", &self.instance),
            ("sasl_username", &self.login),
        ];
        let mut text = String::new();
        for (name, value) in attributes {
            text.extend([name, "=", &line(value), "\n"]);
        }
        for (name, value) in &self.recipe {
            text.extend([RECIPE_PREFIX, name, "=", &line(value), "\n"]);
        }
        text.push('\n');
        text.into_bytes()
    }
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The action, with what is behind it.
    pub action: String,
    /// What the administrator of who asked should know.
    pub remark: Option<String>,
}

impl Heard {
    /// Reads an answer; nothing while its empty line has not come, or when it names no action.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (text, _) = text.split_once("\n\n")?;
        let value = |name: &str| {
            let values = text.lines().filter_map(|line| line.strip_prefix(name));
            values.map(ToOwned::to_owned).next()
        };
        Some(Self { action: value("action=")?, remark: value("remark=") })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Action, Answer, Decoder, RECIPE};

    proptest! {
        /// Whatever is in the values, one question is asked, and it is about them.
        #[test]
        fn nothing_in_a_value_begins_a_line(
            sender: String, recipient: String, known in 0..RECIPE.len(), told: String,
            hostile in "(\r|\n|\u{85}|\u{2028}|=|a|request=|recipient=x@y|client_address=127.0.0.1){0,9}",
        ) {
            let sender = sender + &hostile;
            let question = Question {
                stage: "RCPT".into(),
                client: Some("192.0.2.1".parse().unwrap()),
                helo: hostile.clone(),
                sender: sender.clone(),
                recipient: recipient.clone() + &hostile,
                instance: hostile.clone(),
                recipe: vec![(RECIPE[known], told.clone() + &hostile)],
                ..Question::default()
            };
            let mut decoder = Decoder::new(usize::MAX);
            decoder.push(&question.to_bytes());
            let expected = Question {
                helo: line(&hostile),
                sender: line(&sender),
                recipient: line(&(recipient + &hostile)),
                instance: line(&hostile),
                recipe: vec![(RECIPE[known], line(&(told + &hostile)))],
                ..question
            };
            prop_assert_eq!(decoder.next_question(), Ok(Some(expected)));
            prop_assert!(!decoder.is_within());
        }

        #[test]
        fn answers_are_heard_as_they_were_given(text in "[^\n]{0,40}", remark in proptest::option::of("[a-z]{1,9}")) {
            let answer = Answer { action: Action::DeferIfPermit(text), remark: remark.clone() };
            let bytes = answer.to_string().into_bytes();
            let action = answer.action.to_string();
            prop_assert_eq!(Heard::read(&bytes), Some(Heard { action, remark }));
            prop_assert_eq!(Heard::read(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn anything_may_come(bytes: Vec<u8>) {
            drop(Heard::read(&bytes));
        }
    }
}
