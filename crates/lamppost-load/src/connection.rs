//! One SMTP connection, seen from the client.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of the content that go last, in one piece; the wait for the answer counts from there.
const LAST_PIECE_BYTES: usize = 16 * 1024;

/// A server's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its code, such as 250.
    pub code: u16,
    /// The text of its last line, after the code.
    pub text: String,
}

impl Reply {
    /// Whether the server did what it was asked, or wants more (2yz and 3yz).
    pub fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }
}

/// A connection on which EHLO was said.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects and greets. A refusal of the server is an error that holds its words.
    pub(crate) fn open(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut connection = Self { stream: BufReader::new(stream) };
        let greeting = connection.reply()?;
        accept(&greeting)?;
        accept(&connection.ask(b"EHLO load.elsewhere.test\r\n")?)?;
        Ok(connection)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub(crate) fn ask(&mut self, bytes: &[u8]) -> io::Result<Reply> {
        self.send(bytes)?;
        self.reply()
    }

    /// Sends what comes before the last piece of a content.
    pub(crate) fn send_first(&mut self, content: &[u8]) -> io::Result<()> {
        self.send(&content[..content.len().saturating_sub(LAST_PIECE_BYTES)])
    }

    /// Sends the last piece of a content; returns the reply and how long it took to come.
    pub(crate) fn send_last(&mut self, content: &[u8]) -> io::Result<(Reply, Duration)> {
        let begun = Instant::now();
        let reply = self.ask(&content[content.len().saturating_sub(LAST_PIECE_BYTES)..])?;
        Ok((reply, begun.elapsed()))
    }

    /// Says QUIT and waits for the answer, as a polite client does.
    pub(crate) fn quit(mut self) -> io::Result<()> {
        self.ask(b"QUIT\r\n").map(drop)
    }

    /// The next reply with all its lines.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end();
            let code = text.get(..3).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| io::Error::other(format!("no reply: {text}")))?;
            if text.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, text: text.get(4..).unwrap_or_default().to_owned() });
            }
        }
    }
}

fn accept(reply: &Reply) -> io::Result<()> {
    if reply.is_positive() {
        return Ok(());
    }
    Err(io::Error::other(format!("the server refused: {} {}", reply.code, reply.text)))
}
