//! Whether what the file names is answered, and by us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use lamppost_config::{Listen, TlsMode, WhenAbsent};
use lamppost_net::{ClientTls, Network, Trust};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{Finding, PATIENCE};
use crate::command::remarks::is_here;
use crate::place::Opened;

const AREA: &str = "ports";
/// Bytes of a greeting.
const GREETING_MAX: u64 = 1024;

/// Looks at every listener of the file and at the socket of local programs.
pub(super) async fn look(opened: &Opened, is_running: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for listen in &opened.config.mail.listen {
        for &address in &listen.address {
            if is_here(address.ip()) {
                let said = greeting(listen, address).await;
                let cure = "`lamppost status` tells which listeners are there, and the log why others \
                            are not; a firewall may be in between";
                findings.push(told(&address.to_string(), said, is_running.then_some(cure)));
            } else if listen.when_absent != WhenAbsent::Fail {
                let what = format!("{address} is not an address of this machine now (when-absent)");
                findings.push(Finding::ok(AREA, what));
            }
            // One that must be there and is not is told with the configuration.
        }
    }
    if let Some(socket) = opened.submit_socket() {
        let shown = socket.display().to_string();
        let cure = "look who removed it, and who may use it (`ls -l`); a restart makes it again";
        findings.push(told(&shown, local_greeting(&socket).await, is_running.then_some(cure)));
    }
    findings.extend(look_at_greylist(opened, is_running).await);
    findings
}

/// Looks at where other mail servers ask the greylist, as far as this machine may ask there.
async fn look_at_greylist(opened: &Opened, is_running: bool) -> Vec<Finding> {
    let service = &opened.config.mail.greylist.service;
    let cure =
        "`lamppost status` tells where the greylist is asked, and the log why it is not elsewhere";
    let cure = is_running.then_some(cure);
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
            findings.push(answered(&address.to_string(), answer, cure));
        }
    }
    if let Some(socket) = &service.socket {
        let answer = match within(UnixStream::connect(socket)).await {
            Ok(stream) => answer(stream).await,
            Err(why) => Err(why),
        };
        findings.push(answered(&socket.display().to_string(), answer, cure));
    }
    findings
}

/// What the greylist answers to a question that it has nothing against.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<String, String> {
    let question = b"request=smtpd_access_policy\nprotocol_state=DATA\n\n";
    within(stream.write_all(question)).await?;
    first_line(stream).await
}

fn answered(place: &str, answer: Result<String, String>, running: Option<&str>) -> Finding {
    match answer {
        Ok(line) if line == "action=DUNNO" => Finding::ok(AREA, format!("{place} answers")),
        other => told(place, other, running),
    }
}

/// What is said about an address, by what it greets with; and the cure if the program runs and there is
/// no answer.
fn told(address: &str, greeting: Result<String, String>, running: Option<&str>) -> Finding {
    match greeting {
        Ok(line) if line.starts_with("220 ") && line.ends_with("Lamppost") => {
            Finding::ok(AREA, format!("{address} answers"))
        }
        Ok(line) if line.starts_with("421 ") => {
            let cure = "`lamppost status` tells how many sessions there are";
            Finding::warn(AREA, format!("{address} turns clients away now: {line:?}"), cure)
        }
        Ok(line) => {
            let cure = "stop what answers there (`ss -ltnp` names it), or change the address";
            Finding::fail(AREA, format!("{address} is answered by somebody else: {line:?}"), cure)
        }
        Err(why) => {
            let cure = running.unwrap_or("`lamppost run` starts the program");
            Finding::fail(AREA, format!("{address} does not answer: {why}"), cure)
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

/// An address by which this machine reaches a listener, also one on all addresses.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn first_line(stream: impl AsyncRead + Unpin) -> Result<String, String> {
    let mut line = Vec::new();
    let mut stream = BufReader::new(stream.take(GREETING_MAX));
    within(stream.read_until(b'\n', &mut line)).await?;
    if line.is_empty() {
        return Err("the connection was closed without a word".into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

async fn within<T, E: std::fmt::Display>(
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("nothing came within {} seconds", PATIENCE.as_secs())),
    }
}
