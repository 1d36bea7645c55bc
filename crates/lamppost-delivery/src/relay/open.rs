//! From the host's name to a connection that is ready.

use std::net::SocketAddr;
use std::sync::Arc;

use lamppost_net::ClientTls;
use lamppost_smtp::{Client, ClientSettings, Complaint, Speaker, StartTls, Status};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::connection::{Connection, Stream, Unusable};
use super::{RelaySettings, RelayTls};

/// Addresses of the host that are tried.
const ADDRESSES_MAX: usize = 8;

/// Connects to the first of the host's addresses that takes mail; the last complaint when none does.
pub(super) async fn open(settings: &RelaySettings) -> Result<Connection, Complaint> {
    let host = (settings.host.as_str(), settings.port);
    let name = settings.name();
    let looking_up = tokio::net::lookup_host(host);
    let addresses: Vec<_> = match timeout(settings.connect_timeout, looking_up).await {
        Ok(Ok(addresses)) => addresses.take(ADDRESSES_MAX).collect(),
        Ok(Err(error)) => {
            let text = format!("the relay {name} has no address that can be found: {error}");
            return Err(own(Status::NO_ADDRESS, text));
        }
        Err(_) => {
            let text = format!("the address of the relay {name} was not found in time");
            return Err(own(Status::NO_ADDRESS, text));
        }
    };
    let mut last = own(Status::NO_ADDRESS, format!("the relay {name} has no address"));
    for address in addresses {
        match connect(settings, address).await {
            Ok(connection) => {
                let tls = connection.has_tls();
                debug!(peer = %address, tls, "relay connected");
                return Ok(connection);
            }
            Err(complaint) => {
                warn!(peer = %address, reason = complaint.text, "relay takes no mail");
                last = complaint;
            }
        }
    }
    Err(last)
}

async fn connect(settings: &RelaySettings, address: SocketAddr) -> Result<Connection, Complaint> {
    let (starttls, tls) = match &settings.tls {
        RelayTls::Off => (StartTls::Never, None),
        RelayTls::Implicit(tls) => return begin_with_tls(settings, address, tls).await,
        RelayTls::Opportunistic(tls) => (StartTls::WhenOffered, Some(tls)),
        RelayTls::StartTls(tls) => (StartTls::Required, Some(tls)),
    };
    let stream = Box::new(dial(settings, address).await?);
    let tls = tls.map(|tls| (tls, settings.host.as_str()));
    match prepare(settings, address, stream, (starttls, tls)).await {
        Ok(connection) => Ok(connection),
        Err(Unusable::Complaint(complaint)) => Err(complaint),
        // Better without TLS than not at all is what the mode says.
        Err(Unusable::Handshake(error)) if starttls == StartTls::WhenOffered => {
            warn!(peer = %address, reason = %error, "relay offers TLS that does not work");
            let stream = Box::new(dial(settings, address).await?);
            let plain = prepare(settings, address, stream, (StartTls::Never, None)).await;
            plain.map_err(|unusable| complaint(unusable, address))
        }
        Err(unusable) => Err(complaint(unusable, address)),
    }
}

async fn begin_with_tls(
    settings: &RelaySettings,
    address: SocketAddr,
    tls: &ClientTls,
) -> Result<Connection, Complaint> {
    let stream = dial(settings, address).await?;
    let begun = tls.connect(stream, &settings.host, settings.connect_timeout).await;
    let stream = begun.map_err(|error| complaint(Unusable::Handshake(error), address))?;
    let client = client(settings, StartTls::Never, true);
    let mut connection = Connection::new(client, Box::new(stream), address.to_string());
    let prepared = connection.prepare(None, settings.connect_timeout).await;
    prepared.map_err(|unusable| complaint(unusable, address)).map(|()| connection)
}

async fn prepare(
    settings: &RelaySettings,
    address: SocketAddr,
    stream: Box<dyn Stream>,
    (starttls, tls): (StartTls, Option<(&ClientTls, &str)>),
) -> Result<Connection, Unusable> {
    let client = client(settings, starttls, false);
    let mut connection = Connection::new(client, stream, address.to_string());
    connection.prepare(tls, settings.connect_timeout).await.map(|()| connection)
}

fn client(settings: &RelaySettings, starttls: StartTls, tls: bool) -> Client {
    let settings = ClientSettings {
        hostname: settings.hostname.clone(),
        starttls,
        credentials: settings.credentials.clone(),
        timeouts: settings.timeouts,
    };
    Client::new(Arc::new(settings), tls)
}

async fn dial(settings: &RelaySettings, address: SocketAddr) -> Result<TcpStream, Complaint> {
    let failed = |why: &dyn std::fmt::Display| {
        let name = settings.name();
        let at = Some(address.to_string()).filter(|address| *address != name);
        let at = at.map(|address| format!(" at {address}")).unwrap_or_default();
        own(Status::NO_ANSWER, format!("cannot connect to the relay {name}{at}: {why}"))
    };
    let stream = match timeout(settings.connect_timeout, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| failed(&error))?,
        Err(_) => return Err(failed(&"it does not answer")),
    };
    // Whole commands are written at once: nothing is gained by waiting for more.
    stream.set_nodelay(true).map_err(|error| failed(&error))?;
    Ok(stream)
}

fn complaint(unusable: Unusable, address: SocketAddr) -> Complaint {
    match unusable {
        Unusable::Complaint(complaint) => complaint,
        Unusable::Handshake(error) => {
            own(Status::NO_TLS, format!("TLS with the relay at {address} failed: {error}"))
        }
    }
}

fn own(status: Status, text: String) -> Complaint {
    Complaint { status, text, by: Speaker::Client }
}
