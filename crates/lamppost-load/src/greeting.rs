//! A load of connections that want no more than to be greeted: what rules and lists in the DNS cost.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// How long a dialogue may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections that say QUIT once they were greeted, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct GreetingLoad {
    /// Where they go.
    pub address: SocketAddr,
    /// How many there are at once.
    pub connections: usize,
    /// The address that the first comes from; the next comes from the next. They must be addresses of
    /// this machine.
    pub clients_from: Ipv4Addr,
    /// How many addresses they come from, over and over.
    pub clients: u32,
    /// How long new ones are made.
    pub duration: Duration,
}

/// What became of them.
#[derive(Clone, Debug, Default)]
pub struct GreetingReport {
    /// How long each greeting took from the beginning of its connection, the shortest first.
    pub greetings: Vec<Duration>,
    /// From the first connection to the end of the last.
    pub elapsed: Duration,
}

impl GreetingLoad {
    /// Makes the connections, in one thread.
    ///
    /// # Errors
    /// A connection fails, ends, or is not greeted with 220 within a minute.
    pub fn run(self) -> io::Result<GreetingReport> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.connect_all())
    }

    async fn connect_all(self) -> io::Result<GreetingReport> {
        let (begun, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..self.connections {
            let next = next.clone();
            clients.spawn(async move {
                let mut greetings = Vec::new();
                while begun.elapsed() < self.duration {
                    let number =
                        next.fetch_add(1, Ordering::Relaxed) % u64::from(self.clients.max(1));
                    let offset = u32::try_from(number).unwrap_or(0);
                    let client = Ipv4Addr::from(u32::from(self.clients_from).wrapping_add(offset));
                    let dialogue = tokio::time::timeout(PATIENCE, greeted(client, self.address));
                    let late = || io::Error::other(format!("{client} is not greeted in time"));
                    greetings.push(dialogue.await.map_err(|_| late())??);
                }
                Ok::<_, io::Error>(greetings)
            });
        }
        let mut report = GreetingReport::default();
        while let Some(greetings) = clients.join_next().await {
            report.greetings.extend(greetings.map_err(io::Error::other)??);
        }
        report.elapsed = begun.elapsed();
        report.greetings.sort_unstable();
        Ok(report)
    }
}

/// One connection to its end; tells how long its greeting took.
async fn greeted(client: Ipv4Addr, address: SocketAddr) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut stream = connected(client, address).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let took = begun.elapsed();
    if !line.starts_with("220 ") {
        return Err(io::Error::other(format!("{client} is greeted with {line:?}")));
    }
    stream.get_mut().write_all(b"QUIT\r\n").await?;
    while stream.read_line(&mut line).await? > 0 {}
    Ok(took)
}

async fn connected(client: Ipv4Addr, address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((client, 0).into())?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// What a client is answered when it has a message for somebody: the first reply that is no success, or
/// else the reply to RCPT.
///
/// # Errors
/// The connection fails or ends without a reply.
pub fn answer_to_rcpt(client: Ipv4Addr, address: SocketAddr, to: &str) -> io::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let dialogue = async {
        let mut stream = connected(client, address).await?;
        let mut line = String::new();
        let commands = ["", "HELO load.test\r\n", "MAIL FROM:<a@elsewhere.test>\r\n"];
        for command in commands.into_iter().chain([format!("RCPT TO:<{to}>\r\n").as_str()]) {
            stream.get_mut().write_all(command.as_bytes()).await?;
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !line.starts_with('2') {
                break;
            }
        }
        Ok(line.trim_end().to_owned())
    };
    runtime.block_on(async {
        let late = |_| io::Error::other("a client is not answered in time");
        tokio::time::timeout(PATIENCE, dialogue).await.map_err(late)?
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, Write as _};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a bare socket is what is asked for here")]
    fn each_connection_is_greeted_and_ended() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    drop((&stream).write_all(b"220 hello\r\n"));
                    for line in io::BufReader::new(&stream).lines().map_while(Result::ok) {
                        let answer =
                            if line.starts_with("RCPT") { "553 no\r\n" } else { "250 ok\r\n" };
                        drop((&stream).write_all(answer.as_bytes()));
                        if line == "QUIT" {
                            return;
                        }
                    }
                });
            }
        });
        let clients_from = Ipv4Addr::new(127, 8, 0, 1);
        let duration = Duration::from_millis(200);
        let load = GreetingLoad { address, connections: 5, clients_from, clients: 9, duration };
        let report = load.run().unwrap();
        assert!(report.greetings.len() >= 5 && report.greetings.is_sorted());
        assert_eq!(answer_to_rcpt(clients_from, address, "a@b.test").unwrap(), "553 no");
    }
}
