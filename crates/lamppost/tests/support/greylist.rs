//! A Lamppost that is nothing but a greylist for other mail servers, and questions to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use lamppost_database::{Database, Survives};

use super::{PATIENCE, Server, Setup, free_addresses, mounted};

/// A server that other mail servers ask, and that takes no mail itself.
pub(crate) struct Alone {
    pub(crate) server: Server,
    /// Where it is asked by TCP.
    pub(crate) address: SocketAddr,
    /// Where it is asked by a UNIX socket.
    pub(crate) socket: PathBuf,
}

impl Alone {
    /// Starts it, and it asks no name servers; `greylist` are lines of `[mail.greylist]`, and `service` of the section below it.
    pub(crate) fn start(greylist: &str, service: &str) -> Self {
        let server = Server::prepare(&Setup::default(), None);
        let [address] = free_addresses();
        let socket = server.state().join("greylist.sock");
        let mut alone = Self { server, address, socket };
        alone.write(greylist, service);
        alone.server.launch();
        alone
    }

    /// Writes its file anew.
    pub(crate) fn write(&self, greylist: &str, service: &str) {
        let Self { server, address, socket } = self;
        let volatile = mounted::volatile_line(&server.state());
        let text = format!(
            "[server]\nhostname = \"grey.lamppost.test\"\n[metrics]\nlisten = [\"{}\"]\n\
             [mail.queue]\n{volatile}\n[mail.sendmail]\nenabled = false\n\
             [mail.greylist]\nlookup-timeout = \"0s\"\n{greylist}\n[mail.greylist.service]\nlisten = [\"{address}\"]\n\
             socket = \"{}\"\n{service}\n",
            server.metrics,
            socket.display()
        );
        std::fs::write(server.config(), text).unwrap();
    }

    /// Takes the greylist's table away, as a broken database has none.
    pub(crate) fn break_store(&self) {
        let path = self.server.state().join("policy/greylist.db");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let database = Database::open(&path, Survives::Kill).unwrap();
        runtime
            .block_on(database.run("drop a table", |connection| {
                connection.execute_batch("DROP TABLE relaytofrom")
            }))
            .unwrap();
    }

    /// A connection by TCP.
    pub(crate) fn connect(&self) -> Asker<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Asker(BufReader::new(stream))
    }

    /// A connection by the UNIX socket.
    pub(crate) fn connect_locally(&self) -> Asker<UnixStream> {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Asker(BufReader::new(stream))
    }
}

/// A mail server's end of a connection.
pub(crate) struct Asker<S>(pub(crate) BufReader<S>);

impl<S: Read + Write> Asker<S> {
    /// Asks about an attempt; more attributes go before these. Returns the action, or nothing when the
    /// connection was closed.
    pub(crate) fn ask(&mut self, from: &str, to: &str, more: &str) -> String {
        self.send(&format!(
            "request=smtpd_access_policy\nprotocol_state=RCPT\n{more}client_address=192.0.2.1\n\
             client_name=unknown\nsender={from}\nrecipient={to}\n\n"
        ));
        self.answer()
    }

    pub(crate) fn send(&mut self, text: &str) {
        drop(self.0.get_mut().write_all(text.as_bytes()));
    }

    /// The next answer; nothing when the connection is closed.
    pub(crate) fn answer(&mut self) -> String {
        let (mut action, mut end) = (String::new(), String::new());
        drop(self.0.read_line(&mut action));
        drop(self.0.read_line(&mut end));
        assert!(end == "\n" || action.is_empty(), "{action}{end}");
        action.trim_end().to_owned()
    }
}
