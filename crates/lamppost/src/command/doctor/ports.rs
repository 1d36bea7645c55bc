//! Whether what the file names is answered, and by us.

use std::net::SocketAddr;
use std::path::Path;

use lamppost_config::{Listen, TlsMode, WhenAbsent};
use lamppost_console::HostStatus;
use lamppost_net::{ClientTls, Network, Trust};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{Finding, PATIENCE, Running};
use crate::command::remarks::is_here;
use crate::place::{Opened, reached};

const AREA: &str = "ports";
/// Bytes of a greeting.
const GREETING_MAX: u64 = 1024;

/// An address that the file names, or a socket.
struct Place {
    shown: String,
    /// Its port, for one that has some.
    address: Option<SocketAddr>,
    /// Whether the program says that it listens there; nothing when it says nothing.
    is_ours: Option<bool>,
}

/// Looks at every address of the file and at the socket of local programs.
pub(super) async fn look(opened: &Opened, running: &Running) -> Vec<Finding> {
    let mut findings = Vec::new();
    let place = |shown: String, address| {
        let listens = |host: &HostStatus| {
            host.listeners.iter().any(|one| one.address == shown && one.listening)
        };
        let is_ours = match running {
            Running::No => Some(false),
            Running::Silently => None,
            Running::Yes(host) => Some(listens(host)),
        };
        Place { shown, address, is_ours }
    };
    for listen in &opened.config.mail.listen {
        for &address in &listen.address {
            if is_here(address.ip()) {
                let place = place(address.to_string(), Some(address));
                findings.push(told(&place, greeting(listen, address).await, running));
            } else if listen.when_absent != WhenAbsent::Fail {
                let what = format!("{address} is not an address of this machine now (when-absent)");
                findings.push(Finding::ok(AREA, what));
            }
            // One that must be there and is not is told with the configuration.
        }
    }
    for &address in opened.config.metrics.listen.iter().filter(|address| is_here(address.ip())) {
        // What listens for metrics is not among the listeners that the program tells.
        let is_ours = place(String::new(), None).is_ours.map(|_| !matches!(running, Running::No));
        let place = Place { shown: address.to_string(), address: Some(address), is_ours };
        findings.push(told(&place, figures(address).await, running));
    }
    if let Some(socket) = opened.submit_socket() {
        let place = place(socket.display().to_string(), None);
        findings.push(told(&place, local_greeting(&socket).await, running));
    }
    findings.extend(look_at_greylist(opened, place, running).await);
    findings
}

/// Looks at where other mail servers ask the greylist, as far as this machine may ask there.
async fn look_at_greylist(
    opened: &Opened,
    place: impl Fn(String, Option<SocketAddr>) -> Place,
    running: &Running,
) -> Vec<Finding> {
    let service = &opened.config.mail.greylist.service;
    let mut findings = Vec::new();
    for &address in &service.listen {
        let from = reached(address);
        let networks = service.allow_from.iter();
        let mut networks = networks.filter_map(|one| Network::new(one.address, one.prefix));
        if networks.any(|network| network.contains(from.ip())) {
            let answer = match within(TcpStream::connect(from)).await {
                Ok(stream) => answer(stream).await,
                Err(why) => Err(why),
            };
            findings.push(answered(&place(address.to_string(), Some(address)), answer, running));
        }
    }
    if let Some(socket) = &service.socket {
        let answer = match within(UnixStream::connect(socket)).await {
            Ok(stream) => answer(stream).await,
            Err(why) => Err(why),
        };
        findings.push(answered(&place(socket.display().to_string(), None), answer, running));
    }
    findings
}

/// What the greylist answers to a question that it has nothing against.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<String, String> {
    let question = b"request=smtpd_access_policy\nprotocol_state=DATA\n\n";
    within(stream.write_all(question)).await?;
    first_line(stream).await
}

fn answered(place: &Place, answer: Result<String, String>, running: &Running) -> Finding {
    match answer {
        Ok(line) if line == "action=DUNNO" => Finding::ok(AREA, format!("{} answers", place.shown)),
        other => told(place, other, running),
    }
}

/// What is said about a place, by what it answers.
fn told(place: &Place, answer: Result<String, String>, running: &Running) -> Finding {
    let Place { shown, address, is_ours } = place;
    let whose = || {
        let holder = address.map(lamppost_net::holder);
        holder.map(|holder| format!(", {holder},")).unwrap_or_default()
    };
    let foreign = |line: &str| {
        let cure = "stop what answers there (`ss -ltnp` names it), or change the address";
        let what = format!("{shown} is answered by somebody else{} with `{line}`", whose());
        Finding::fail(AREA, what, cure)
    };
    match answer {
        Ok(line) if is_lamppost(&line) && *is_ours != Some(false) => {
            Finding::ok(AREA, format!("{shown} answers"))
        }
        Ok(line) if line.starts_with("421 ") && *is_ours != Some(false) => {
            let cure = "`lamppost status` tells how many sessions there are";
            Finding::warn(AREA, format!("{shown} turns clients away now: `{line}`"), cure)
        }
        Ok(line) if is_lamppost(&line) => {
            let cure =
                "stop the other (`ss -ltnp` names it), or change the address of one of the two";
            let what =
                format!("{shown} is answered by another Lamppost{} than this file's", whose());
            Finding::fail(AREA, what, cure)
        }
        Ok(line) => foreign(&line),
        Err(why) => {
            let is_held = address.is_some_and(lamppost_net::is_held) && *is_ours == Some(false);
            if is_held {
                let cure = "stop what holds it (`ss -ltnp` names it), or change the address";
                let what = format!(
                    "{shown} is held by somebody else{} and does not answer: {why}",
                    whose()
                );
                return Finding::fail(AREA, what, cure);
            }
            let cure = match (running, address) {
                (Running::No, _) => "`lamppost run` starts the program",
                (_, Some(_)) => {
                    "`lamppost status` tells which listeners are there, and the log why others \
                     are not; a firewall may be in between"
                }
                (_, None) => {
                    "look who removed it, and who may use it (`ls -l`); a restart makes it again"
                }
            };
            Finding::fail(AREA, format!("{shown} does not answer: {why}"), cure)
        }
    }
}

/// Whether an answer is one of a Lamppost: a greeting, or the first of its figures.
fn is_lamppost(line: &str) -> bool {
    line.starts_with("220 ") && line.ends_with("Lamppost") || line.contains("lamppost_")
}

/// What the metrics endpoint answers: the first line that names a figure of ours, or the first of all.
async fn figures(address: SocketAddr) -> Result<String, String> {
    /// Bytes of figures in which one of ours must be.
    const FIGURES_MAX: u64 = 256 * 1024;
    let mut stream = within(TcpStream::connect(address)).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    within(stream.write_all(request.as_bytes())).await?;
    let mut bytes = Vec::new();
    // What answers otherwise may keep the connection open.
    let read = within(stream.take(FIGURES_MAX).read_to_end(&mut bytes)).await;
    let text = String::from_utf8_lossy(&bytes);
    let ours = text.lines().find(|line| line.contains("lamppost_"));
    match ours.or_else(|| text.lines().next()) {
        Some(line) => Ok(shown(line)),
        None => {
            Err(read.err().unwrap_or_else(|| "the connection was closed without a word".into()))
        }
    }
}

async fn greeting(listen: &Listen, address: SocketAddr) -> Result<String, String> {
    let address = reached(address);
    let mut stream = within(TcpStream::connect(address)).await?;
    let mut proxies = listen
        .proxy_protocol_from
        .iter()
        .filter_map(|proxy| Network::new(proxy.address, proxy.prefix));
    if proxies.any(|proxy| proxy.contains(address.ip())) {
        // From here, connections come by a proxy, which says that this one is its own.
        within(stream.write_all(b"PROXY UNKNOWN\r\n")).await?;
    }
    if listen.tls != TlsMode::Implicit {
        return first_line(stream).await;
    }
    let tls = ClientTls::new(&Trust::Anybody).map_err(|error| error.to_string())?;
    let stream = within(tls.connect(stream, "localhost", PATIENCE)).await?;
    first_line(stream).await
}

async fn local_greeting(socket: &Path) -> Result<String, String> {
    first_line(within(UnixStream::connect(socket)).await?).await
}

async fn first_line(stream: impl AsyncRead + Unpin) -> Result<String, String> {
    let mut line = Vec::new();
    let mut stream = BufReader::new(stream.take(GREETING_MAX));
    within(stream.read_until(b'\n', &mut line)).await?;
    if line.is_empty() {
        return Err("the connection was closed without a word".into());
    }
    Ok(shown(&String::from_utf8_lossy(&line)))
}

/// A line of somebody else, without what a terminal would obey.
fn shown(line: &str) -> String {
    line.trim_end().chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

async fn within<T, E: std::fmt::Display>(
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("nothing came within {} seconds", PATIENCE.as_secs())),
    }
}
