//! Questions and answers between roles.
//!
//! A role asks by a [`Port`] and answers by an [`Inbox`]. Inside one process the two are joined by
//! a channel and nothing is copied; between processes each side runs [`carry_questions`] or
//! [`carry_answers`] on its end of a socket. The roles cannot tell the difference.
//!
//! On a socket each message is a frame: its length and its number as little-endian `u32` and `u64`,
//! then the value in postcard's format. Answers carry the number of their question and come in any
//! order.

use std::collections::HashMap;
use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for a busy role before askers wait in turn.
const WAITING_MAX: usize = 1024;
/// The largest frame: a piece of content with its envelope.
const FRAME_MAX: u32 = 16 * 1024 * 1024;

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
    // A read may be cut off by the other branch of the select, so frames are read by their own task
    // of this future and arrive here by a channel.
    let (arrived, mut answers) = mpsc::channel::<(u64, A)>(WAITING_MAX);
    let reading = read_frames(from, arrived);
    let asking = async {
        let mut waiting: HashMap<u64, Reply<A>> = HashMap::new();
        let mut number = 0;
        loop {
            tokio::select! {
                question = inbox.next() => {
                    let Some((question, reply)) = question else { break };
                    number += 1;
                    waiting.insert(number, reply);
                    write_frame(&mut to, number, &question).await?;
                }
                answer = answers.recv() => {
                    let Some((number, answer)) = answer else { break };
                    if let Some(reply) = waiting.remove(&number) {
                        reply.send(answer);
                    }
                }
            }
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
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + Send + 'static,
    S: AsyncRead + AsyncWrite,
{
    let (from, mut to) = tokio::io::split(socket);
    let (arrived, mut questions) = mpsc::channel::<(u64, Q)>(WAITING_MAX);
    let (answered, mut answers) = mpsc::channel::<(u64, A)>(WAITING_MAX);
    let reading = read_frames(from, arrived);
    let asking = async {
        while let Some((number, question)) = questions.recv().await {
            let (port, answered) = (port.clone(), answered.clone());
            tokio::spawn(async move {
                // A role that is gone gives no answer; the asker learns it when the socket closes.
                if let Ok(answer) = port.ask(question).await {
                    drop(answered.send((number, answer)).await);
                }
            });
        }
        drop(answered);
        std::future::pending::<()>().await;
    };
    let writing = async {
        while let Some((number, answer)) = answers.recv().await {
            write_frame(&mut to, number, &answer).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = reading => ended,
        () = asking => Ok(()),
        ended = writing => ended,
    }
}

async fn write_frame<S, V>(to: &mut WriteHalf<S>, number: u64, value: &V) -> io::Result<()>
where
    S: AsyncWrite,
    V: Serialize,
{
    let mut frame = vec![0; 12];
    frame[4..].copy_from_slice(&number.to_le_bytes());
    let mut frame = postcard::to_extend(value, frame).map_err(io::Error::other)?;
    let length = u32::try_from(frame.len() - 12)
        .ok()
        .filter(|&length| length <= FRAME_MAX)
        .ok_or_else(|| io::Error::other("a message is larger than a frame may be"))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&frame).await
}

/// Reads frames until the end of the stream.
async fn read_frames<S, V>(mut from: ReadHalf<S>, to: mpsc::Sender<(u64, V)>) -> io::Result<()>
where
    S: AsyncRead,
    V: DeserializeOwned,
{
    loop {
        let length = match from.read_u32_le().await {
            Ok(length) if length <= FRAME_MAX => length,
            Ok(_) => return Err(io::Error::other("a frame is larger than it may be")),
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let number = from.read_u64_le().await?;
        let mut frame = vec![0; length as usize];
        from.read_exact(&mut frame).await?;
        let value = postcard::from_bytes(&frame).map_err(io::Error::other)?;
        if to.send((number, value)).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let (here, there) = tokio::net::UnixStream::pair().unwrap();
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
    async fn a_closed_socket_is_a_role_that_is_gone() {
        let (port, asked) = link::<u32, u64>();
        let (here, there) = tokio::net::UnixStream::pair().unwrap();
        tokio::spawn(carry_questions(asked, here));
        drop(there);
        assert_eq!(port.ask(2).await, Err(Gone));
    }
}
