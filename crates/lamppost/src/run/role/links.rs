//! The ends of links to other processes, by name.

use std::io;
use std::os::fd::OwnedFd;

use lamppost_net::link::{Inbox, Port, carry_answers, carry_questions, link};
use lamppost_net::{Given, LinkSocket, NotGiven};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::error;

/// What this role was given.
pub(super) struct Links(Given);

/// Why an end of a link cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// It was not given.
    #[error(transparent)]
    NotGiven(#[from] NotGiven),
    /// It is no socket.
    #[error("the link `{name}` cannot be used")]
    Socket {
        name: String,
        #[source]
        source: io::Error,
    },
}

impl Links {
    pub(super) fn new(given: Given) -> Self {
        Self(given)
    }

    /// Any descriptor.
    pub(super) fn one(&mut self, name: &str) -> Result<OwnedFd, NotGiven> {
        self.0.one(name)
    }

    /// The end by which this role asks.
    pub(super) fn port<Q, A>(&mut self, name: &str) -> Result<Port<Q, A>, LinkError>
    where
        Q: Serialize + Send + 'static,
        A: DeserializeOwned + Send + 'static,
    {
        port_to(name, self.0.one(name)?)
    }

    /// The end by which this role is asked.
    pub(super) fn inbox<Q, A>(&mut self, name: &str) -> Result<Inbox<Q, A>, LinkError>
    where
        Q: DeserializeOwned + Send + 'static,
        A: Serialize + Send + 'static,
    {
        Ok(self.joint(&[name])?.1)
    }

    /// The end by which several processes ask this one the same, those too that come later.
    pub(super) fn joint<Q, A>(&mut self, names: &[&str]) -> Result<Joined<Q, A>, LinkError>
    where
        Q: DeserializeOwned + Send + 'static,
        A: Serialize + Send + 'static,
    {
        let (port, inbox) = link();
        let joint = Joint { port };
        for &name in names {
            joint.join(name, self.0.one(name)?)?;
        }
        Ok((joint, inbox))
    }
}

/// Where processes join, and where what they ask comes in.
type Joined<Q, A> = (Joint<Q, A>, Inbox<Q, A>);

/// Where processes join that ask this one the same.
pub(super) struct Joint<Q, A> {
    port: Port<Q, A>,
}

impl<Q, A> Joint<Q, A>
where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + Send + 'static,
{
    /// Answers whoever asks at this end of a link too.
    pub(super) fn join(&self, name: &str, end: OwnedFd) -> Result<(), LinkError> {
        let socket = stream(name, end)?;
        let (port, name) = (self.port.clone(), name.to_owned());
        tokio::spawn(async move { told(&name, carry_answers(port, socket).await) });
        Ok(())
    }
}

/// The end by which this role asks a process.
pub(super) fn port_to<Q, A>(name: &str, end: OwnedFd) -> Result<Port<Q, A>, LinkError>
where
    Q: Serialize + Send + 'static,
    A: DeserializeOwned + Send + 'static,
{
    let socket = stream(name, end)?;
    let (port, inbox) = link();
    let name = name.to_owned();
    tokio::spawn(async move { told(&name, carry_questions(inbox, socket).await) });
    Ok(port)
}

/// The end of a link as a stream.
fn stream(name: &str, end: OwnedFd) -> Result<LinkSocket, LinkError> {
    LinkSocket::new(end).map_err(|source| LinkError::Socket { name: name.to_owned(), source })
}

/// A link that ends is no fault: the role at its other end did. A broken one is.
fn told(name: &str, ended: io::Result<()>) {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    if let Err(reason) = ended
        && !matches!(reason.kind(), BrokenPipe | ConnectionReset)
    {
        error!(link = name, %reason, "a link between roles broke");
    }
}
