//! Content: DATA, and the chunks of BDAT.

use bytes::BytesMut;

use crate::Refusal;
use crate::content::{Decoded, Decoder};
use crate::reply::{Say, Words};

use super::{Action, Answer, Asked, Chunk, Question, Reception, Session, State};

/// Bytes of a message that is refused which are read all the same, so that its client hears why.
const SKIPPED_LEAST: u64 = 1024 * 1024;

impl Session {
    pub(super) fn room_for_data(&mut self, answer: &Answer) {
        if let Some(refusal) = answer.refusal() {
            self.drop_content();
            return self.say(refusal);
        }
        self.say(Say::GoAhead);
        let decoder = Decoder::data(self.link.bare_newline, self.settings.limits.data_line_max);
        self.state = State::Data(decoder, Reception::Take);
    }

    pub(super) fn next_data(&mut self, mut decoder: Decoder, mut reception: Reception) -> bool {
        let mut output = BytesMut::new();
        let before = self.input.len();
        let decoded = decoder.decode(&mut self.input, &mut output, true);
        let moved = before != self.input.len();
        if decoded == Decoded::Bare {
            self.close_saying(Say::BareNewline);
            return true;
        }
        self.take(&mut reception, &decoder, output);
        if decoded == Decoded::End {
            self.content_ended(reception);
            return true;
        }
        if let Reception::Skip { reply, skipped } = &reception
            && *skipped > self.settings.limits.message_size_max.max(SKIPPED_LEAST)
        {
            // Refused and still sending: it would never end.
            let reply = reply.clone();
            self.close_saying(reply);
            return true;
        }
        self.state = State::Data(decoder, reception);
        moved && !self.input.is_empty()
    }

    /// Hands decoded content on, or drops it once it is refused.
    fn take(&mut self, reception: &mut Reception, decoder: &Decoder, output: BytesMut) {
        let limits = &self.settings.limits;
        if let Reception::Skip { skipped, .. } = reception {
            *skipped += output.len() as u64;
            return;
        }
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        transaction.size += output.len() as u64;
        let refused = if transaction.size > limits.message_size_max {
            Some(Say::MessageTooBig(limits.message_size_max))
        } else if decoder.line_too_long {
            Some(Say::ContentLineTooLong(limits.data_line_max))
        } else {
            None
        };
        if let Some(say) = refused {
            *reception = Reception::Skip { reply: say.reply(self.manner), skipped: 0 };
            self.drop_content();
        } else if !output.is_empty() {
            self.actions.push_back(Action::Content(output.freeze()));
        }
    }

    fn content_ended(&mut self, reception: Reception) {
        match reception {
            Reception::Take => self.ask(Question::Finish, Asked::Finish),
            Reception::Skip { reply, .. } => self.say(reply),
        }
    }

    pub(super) fn stored(&mut self, answer: Answer) {
        self.transaction = None;
        match answer {
            Answer::Stored(id) => {
                self.counts.messages += 1;
                self.counts.idle_commands = 0;
                self.say(Say::Stored(&id));
            }
            answer => self.say(answer.refusal().unwrap_or_else(|| (&Refusal::Unavailable).into())),
        }
    }

    pub(super) fn room_for_chunk(&mut self, answer: &Answer, chunk: Chunk) {
        if let Some(refusal) = answer.refusal() {
            self.drop_content();
            return self.skip_chunk(chunk, refusal);
        }
        if let Some(transaction) = &mut self.transaction {
            let max = self.settings.limits.data_line_max;
            transaction.chunks = Some(Decoder::chunks(self.link.bare_newline, max));
        }
        self.take_chunk(chunk);
    }

    pub(super) fn take_chunk(&mut self, chunk: Chunk) {
        self.state = State::Chunk(chunk, Reception::Take);
    }

    /// Reads a chunk for nothing and then says why.
    pub(super) fn skip_chunk(&mut self, chunk: Chunk, say: impl Words) {
        self.counts.errors += 1;
        let reply = say.reply(self.manner);
        self.state = State::Chunk(chunk, Reception::Skip { reply, skipped: 0 });
    }

    pub(super) fn next_chunk(&mut self, mut chunk: Chunk, mut reception: Reception) -> bool {
        let here = usize::try_from(chunk.remaining).unwrap_or(usize::MAX).min(self.input.len());
        let piece = self.input.split_to(here);
        chunk.remaining -= here as u64;
        let ended = chunk.remaining == 0;
        if let Some(mut decoder) = self.chunk_decoder() {
            let mut output = BytesMut::new();
            let more_follows = !(ended && chunk.last);
            let decoded = decoder.decode_chunk(piece, &mut output, more_follows);
            if decoded == Decoded::Bare {
                self.close_saying(Say::BareNewline);
                return true;
            }
            self.take(&mut reception, &decoder, output);
            if let Some(transaction) = &mut self.transaction {
                transaction.chunks = Some(decoder);
            }
        }
        if !ended {
            self.state = State::Chunk(chunk, reception);
            return false;
        }
        match reception {
            Reception::Take if !chunk.last => self.say(Say::ChunkTaken(chunk.length)),
            reception => self.content_ended(reception),
        }
        true
    }

    fn chunk_decoder(&mut self) -> Option<Decoder> {
        self.transaction.as_mut().and_then(|transaction| transaction.chunks.take())
    }
}
