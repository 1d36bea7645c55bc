//! Postfix's policy delegation protocol without sockets, from both sides: bytes in, questions out, and back.
//!
//! A mail server asks line by line, `name=value`, and an empty line ends the question; the answer is
//! one line `action=…` and an empty one (Postfix, `SMTPD_POLICY_README`). Others, such as Exim, can
//! speak it too.

mod action;
mod asking;
mod decoder;

pub use action::{Action, Answer};
pub use asking::Heard;
pub use decoder::{Decoder, Problem, Question, RECIPE};
