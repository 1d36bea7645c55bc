//! Questions and answers between roles.
//!
//! A role asks by a [`Port`] and answers by an [`Inbox`]. Inside one process the two are joined by
//! a channel and nothing is copied; between processes each side runs [`carry_questions`] or
//! [`carry_answers`] on its end of a socket. The roles cannot tell the difference.
//!
//! On a socket each message is a frame: its length and its number as little-endian `u32` and `u64`,
//! then the value in postcard's format. Answers carry the number of their question and come in any
//! order; the largest length, without a value, says that there is none.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::error;

/// Questions that may wait for a busy role before askers wait in turn.
const WAITING_MAX: usize = 1024;
/// The largest frame: a piece of content with its envelope.
const FRAME_MAX: u32 = 16 * 1024 * 1024;
/// The length of a frame that says that a question has no answer.
const NO_ANSWER: u32 = u32::MAX;
/// Bytes of a frame before its value.
const HEAD: usize = 12;
/// The bytes of all questions that one link has under way; more are not read. A role that was taken over must
/// not fill the memory of another.
const UNDER_WAY_MAX: u32 = 4 * FRAME_MAX;
/// What a question counts for at least: what it costs beside its bytes, once it is understood.
const QUESTION_MIN: u32 = 1024;
/// Bytes after which waiting frames are sent; one frame may be larger.
const BATCH_BYTES: usize = 64 * 1024;

/// The asking end of a link; clones ask by the same link.
#[derive(Debug)]
pub struct Port<Q, A> {
    questions: mpsc::Sender<(Q, oneshot::Sender<A>)>,
}

impl<Q, A> Clone for Port<Q, A> {
    fn clone(&self) -> Self {
        Self { questions: self.questions.clone() }
    }
}

/// The answering end of a link.
#[derive(Debug)]
pub struct Inbox<Q, A> {
    questions: mpsc::Receiver<(Q, oneshot::Sender<A>)>,
}

/// The duty to answer one question; dropping it tells the asker that there is no answer.
#[derive(Debug)]
pub struct Reply<A> {
    asker: oneshot::Sender<A>,
}

/// The role at the other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the role that must answer is gone")]
pub struct Gone;

/// Two joined ends inside one process.
pub fn link<Q, A>() -> (Port<Q, A>, Inbox<Q, A>) {
    let (to, from) = mpsc::channel(WAITING_MAX);
    (Port { questions: to }, Inbox { questions: from })
}

impl<Q, A> Port<Q, A> {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`Gone`] when the other role ended before it answered.
    pub async fn ask(&self, question: Q) -> Result<A, Gone> {
        let (to, answer) = oneshot::channel();
        self.questions.send((question, to)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// Whether nobody answers any more.
    pub fn is_gone(&self) -> bool {
        self.questions.is_closed()
    }
}

impl<Q, A> Inbox<Q, A> {
    /// The next question, or nothing when every asker is gone.
    pub async fn next(&mut self) -> Option<(Q, Reply<A>)> {
        self.questions.recv().await.map(|(question, asker)| (question, Reply { asker }))
    }

    /// A question that is already there.
    pub fn next_waiting(&mut self) -> Option<(Q, Reply<A>)> {
        self.questions.try_recv().ok().map(|(question, asker)| (question, Reply { asker }))
    }
}

impl<A> Reply<A> {
    /// Answers; an asker that no longer waits is no error.
    pub fn send(self, answer: A) {
        drop(self.asker.send(answer));
    }
}

/// The asking role's side of a socket: carries what `inbox` receives over it and the answers back,
/// until the askers or the other side are gone.
///
/// # Errors
/// What the socket or a broken frame gave.
pub async fn carry_questions<Q, A, S>(mut inbox: Inbox<Q, A>, socket: S) -> io::Result<()>
where
    Q: Serialize,
    A: DeserializeOwned,
    S: AsyncRead + AsyncWrite,
{
    let (from, mut to) = tokio::io::split(socket);
    let waiting: Mutex<HashMap<u64, Reply<A>>> = Mutex::default();
    // Answers are taken whatever else is under way: the other side must never wait with one while
    // this side waits with a question.
    let reading = async {
        let mut from = BufReader::with_capacity(BATCH_BYTES, from);
        while let Some((number, answer, _)) = read_frame(&mut from).await? {
            let reply = waiting.lock().remove(&number);
            // Without an answer the asker learns that there is none.
            if let (Some(reply), Some(answer)) = (reply, answer) {
                reply.send(answer);
            }
        }
        Ok(())
    };
    let asking = async {
        let (mut number, mut frames) = (0, Vec::new());
        while let Some(first) = inbox.next().await {
            let mut next = Some(first);
            while let Some((question, reply)) = next {
                number += 1;
                waiting.lock().insert(number, reply);
                if !push_frame(&mut frames, number, &question)? {
                    waiting.lock().remove(&number);
                }
                next = if frames.len() < BATCH_BYTES { inbox.next_waiting() } else { None };
            }
            to.write_all(&frames).await?;
            frames.clear();
        }
        to.shutdown().await
    };
    tokio::select! {
        ended = reading => ended,
        ended = asking => ended,
    }
}

/// The answering role's side of a socket: passes the questions that arrive on to `port` and carries
/// the answers back, until the other side is gone.
///
/// # Errors
/// What the socket or a broken frame gave.
pub async fn carry_answers<Q, A, S>(port: Port<Q, A>, socket: S) -> io::Result<()>
where
    Q: DeserializeOwned,
    A: Serialize,
    S: AsyncRead + AsyncWrite,
{
    let (from, mut to) = tokio::io::split(socket);
    let (arrived, mut questions) = mpsc::channel::<(u64, Q, OwnedSemaphorePermit)>(WAITING_MAX);
    let room = Arc::new(Semaphore::new(UNDER_WAY_MAX as usize));
    let reading = async {
        let mut from = BufReader::with_capacity(BATCH_BYTES, from);
        while let Some((number, question, length)) = read_frame(&mut from).await? {
            let question =
                question.ok_or_else(|| io::Error::other("a frame without a question"))?;
            // It is in memory already, but nothing comes behind it before there is room.
            let share = room.clone().acquire_many_owned(length.max(QUESTION_MIN)).await;
            let share = share.map_err(io::Error::other)?;
            if arrived.send((number, question, share)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let answering = async {
        let ask = |(number, question, share)| {
            let port = &port;
            async move {
                let answer = port.ask(question).await;
                drop::<OwnedSemaphorePermit>(share);
                (number, answer)
            }
        };
        let (mut under_way, mut frames) = (FuturesUnordered::new(), Vec::new());
        loop {
            let mut answered = tokio::select! {
                question = questions.recv() => {
                    let Some(question) = question else { break };
                    under_way.push(ask(question));
                    under_way.next().now_or_never().flatten()
                }
                answered = under_way.next(), if !under_way.is_empty() => answered,
            };
            while let Some((number, answer)) = answered {
                let is_told = match answer {
                    Ok(answer) => push_frame(&mut frames, number, &answer)?,
                    Err(Gone) => false,
                };
                if !is_told {
                    push_head(&mut frames, NO_ANSWER, number);
                }
                let has_room = frames.len() < BATCH_BYTES;
                answered = if has_room { under_way.next().now_or_never().flatten() } else { None };
            }
            if !frames.is_empty() {
                to.write_all(&frames).await?;
                frames.clear();
            }
            // Nobody answers any more: askers learn it by the end of the socket.
            if port.is_gone() && under_way.is_empty() {
                return to.shutdown().await;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        ended = reading => ended,
        ended = answering => ended,
    }
}

/// Adds a frame; tells whether it could be, or is larger than one may be.
fn push_frame<V: Serialize>(frames: &mut Vec<u8>, number: u64, value: &V) -> io::Result<bool> {
    let at = frames.len();
    push_head(frames, 0, number);
    let grown = std::mem::take(frames);
    *frames = postcard::to_extend(value, grown).map_err(io::Error::other)?;
    let bytes = frames.len() - at - HEAD;
    let length = u32::try_from(bytes).ok().filter(|&length| length <= FRAME_MAX);
    let Some(length) = length else {
        error!(bytes, "a message between roles is larger than one may be");
        frames.truncate(at);
        return Ok(false);
    };
    frames[at..at + 4].copy_from_slice(&length.to_le_bytes());
    Ok(true)
}

fn push_head(frames: &mut Vec<u8>, length: u32, number: u64) {
    frames.extend_from_slice(&length.to_le_bytes());
    frames.extend_from_slice(&number.to_le_bytes());
}

/// The next frame: its number, its value unless it says that there is none, and its length. Nothing at the
/// end of the stream.
async fn read_frame<V: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(u64, Option<V>, u32)>> {
    let length = match from.read_u32_le().await {
        Ok(length) if length <= FRAME_MAX || length == NO_ANSWER => length,
        Ok(_) => return Err(io::Error::other("a frame is larger than it may be")),
        Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let number = from.read_u64_le().await?;
    if length == NO_ANSWER {
        return Ok(Some((number, None, 0)));
    }
    let mut frame = vec![0; length as usize];
    from.read_exact(&mut frame).await?;
    let value = postcard::from_bytes(&frame).map_err(io::Error::other)?;
    Ok(Some((number, Some(value), length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LinkSocket;

    fn sockets() -> (LinkSocket, LinkSocket) {
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        (LinkSocket::new(here.into()).unwrap(), LinkSocket::new(there.into()).unwrap())
    }

    /// Doubles each number; the odd ones get no answer.
    async fn double(mut inbox: Inbox<u32, u64>) {
        while let Some((question, reply)) = inbox.next().await {
            if question % 2 == 0 {
                reply.send(u64::from(question) * 2);
            }
        }
    }

    #[tokio::test]
    async fn a_channel_answers() {
        let (port, inbox) = link();
        tokio::spawn(double(inbox));
        assert_eq!(port.ask(4).await, Ok(8));
        assert_eq!(port.ask(5).await, Err(Gone));
    }

    #[tokio::test]
    async fn a_socket_answers_the_same() {
        let (port, asked) = link::<u32, u64>();
        let (here, there) = sockets();
        let (far_port, far_inbox) = link();
        tokio::spawn(carry_questions(asked, here));
        tokio::spawn(carry_answers(far_port, there));
        tokio::spawn(double(far_inbox));
        let asks = (0..500).map(|n| port.ask(n * 2));
        let answers = futures_util::future::join_all(asks).await;
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer, Ok(n as u64 * 4));
        }
    }

    #[tokio::test]
    async fn a_socket_tells_that_there_is_no_answer_and_goes_on() {
        let (port, asked) = link::<u32, Vec<u8>>();
        let (here, there) = sockets();
        let (far_port, mut far_inbox) = link::<u32, Vec<u8>>();
        tokio::spawn(carry_questions(asked, here));
        tokio::spawn(carry_answers(far_port, there));
        tokio::spawn(async move {
            while let Some((length, reply)) = far_inbox.next().await {
                if length != 0 {
                    reply.send(vec![1; length as usize]);
                }
            }
        });
        assert_eq!(port.ask(0).await, Err(Gone));
        assert_eq!(port.ask(FRAME_MAX + 1).await, Err(Gone));
        assert_eq!(port.ask(2).await, Ok(vec![1; 2]));
    }

    #[tokio::test]
    async fn what_is_too_large_to_be_asked_has_no_answer_and_hurts_no_other() {
        let (port, asked) = link::<Vec<u8>, usize>();
        let (here, there) = sockets();
        let (far_port, mut far_inbox) = link::<Vec<u8>, usize>();
        tokio::spawn(carry_questions(asked, here));
        tokio::spawn(carry_answers(far_port, there));
        tokio::spawn(async move {
            while let Some((bytes, reply)) = far_inbox.next().await {
                reply.send(bytes.len());
            }
        });
        assert_eq!(port.ask(vec![0; FRAME_MAX as usize]).await, Err(Gone));
        assert_eq!(port.ask(vec![0; 3]).await, Ok(3));
    }

    #[tokio::test]
    async fn questions_that_all_wait_for_each_other_are_answered() {
        let (port, asked) = link::<(u32, Vec<u8>), Vec<u8>>();
        // Far smaller than what is under way: both sides wait for the other again and again.
        let (here, there) = tokio::io::duplex(1000);
        let (far_port, mut far_inbox) = link::<(u32, Vec<u8>), Vec<u8>>();
        tokio::spawn(carry_questions(asked, here));
        tokio::spawn(carry_answers(far_port, there));
        tokio::spawn(async move {
            while let Some(((_, bytes), reply)) = far_inbox.next().await {
                reply.send(bytes);
            }
        });
        let asks = (0..3000).map(|n| port.ask((n, vec![n.to_le_bytes()[0]; 500])));
        let answers = futures_util::future::join_all(asks).await;
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.unwrap(), vec![n.to_le_bytes()[0]; 500]);
        }
    }

    #[tokio::test]
    async fn who_asks_without_end_is_not_read_without_end() {
        let (here, there) = sockets();
        let (far_port, mut far_inbox) = link::<Vec<u8>, u64>();
        tokio::spawn(carry_answers(far_port, there));
        let (_answers, mut to) = tokio::io::split(here);
        let mut frame = Vec::new();
        assert!(push_frame(&mut frame, 1, &vec![0_u8; 4 * 1024 * 1024]).unwrap());
        let sent = Arc::new(Mutex::new(0));
        let counted = sent.clone();
        tokio::spawn(async move {
            while to.write_all(&frame).await.is_ok() {
                *counted.lock() += 1;
            }
        });
        let frames_max = u64::from(UNDER_WAY_MAX) / (4 * 1024 * 1024);
        let mut held = Vec::new();
        // The last that there is room for, and one that is read and has none.
        while *sent.lock() < frames_max {
            tokio::select! {
                Some(question) = far_inbox.next() => held.push(question),
                () = tokio::task::yield_now() => {}
            }
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert!(*sent.lock() <= frames_max + 1, "{}", sent.lock());
        // With answers it goes on.
        for (_, reply) in held {
            reply.send(1);
        }
        while *sent.lock() < frames_max * 2 {
            let (_, reply) = far_inbox.next().await.unwrap();
            reply.send(1);
        }
    }

    #[tokio::test]
    async fn who_asks_a_role_that_answers_no_more_learns_it() {
        let (port, asked) = link::<u32, u64>();
        let (here, there) = sockets();
        let (far_port, far_inbox) = link::<u32, u64>();
        tokio::spawn(carry_questions(asked, here));
        tokio::spawn(carry_answers(far_port, there));
        let (answer, ()) = tokio::join!(port.ask(2), async { drop(far_inbox) });
        assert_eq!(answer, Err(Gone));
    }

    #[tokio::test]
    async fn a_closed_socket_is_a_role_that_is_gone() {
        let (port, asked) = link::<u32, u64>();
        let (here, there) = sockets();
        tokio::spawn(carry_questions(asked, here));
        drop(there);
        assert_eq!(port.ask(2).await, Err(Gone));
    }

    /// Has these bytes come as questions; tells how many of them were asked.
    async fn asked_by(bytes: &[u8]) -> (u32, io::Result<()>) {
        let (port, mut inbox) = link::<(u32, Vec<u8>), u64>();
        let counting = tokio::spawn(async move {
            let mut count = 0;
            while let Some((_, reply)) = inbox.next().await {
                count += 1;
                reply.send(7);
            }
            count
        });
        let ended = carry_answers(port, tokio::io::join(bytes, tokio::io::sink())).await;
        (counting.await.unwrap(), ended)
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_questions_or_end_the_link(
            bytes: Vec<u8>,
            questions: Vec<(u32, Vec<u8>)>,
            cut: proptest::sample::Index,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut frames = Vec::new();
            for question in &questions {
                push_frame(&mut frames, 1, question).unwrap();
            }
            let whole = frames.len();
            frames.extend_from_slice(&bytes);
            runtime.block_on(async {
                let (_, _ended) = asked_by(&bytes).await;
                let (count, _ended) = asked_by(&frames).await;
                assert!(count as usize <= questions.len() + bytes.len() / HEAD);
                // Without the end of a frame it is no question.
                let (count, _ended) = asked_by(&frames[..cut.index(whole + 1)]).await;
                assert!(count as usize <= questions.len());
            });
        }
    }
}
