//! The dispatcher's end of the connection to the key manager. No actor, no retry.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::frame;
use super::wire::{Answer, Channel, LeaseRequest, SealedBy, Session, WireError};

/// Where the key manager is and how to speak with it.
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// The name its certificate must have.
    pub server_name: ServerName<'static>,
    /// Trusts the key manager's authority and shows a certificate of this process.
    pub tls: Arc<ClientConfig>,
    /// The seal inside TLS.
    pub channel: Channel,
}

/// Why a connection is of no use. It must be dropped then.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the connection to the key manager failed")]
    Io(#[from] io::Error),
    #[error("the key manager closed the connection")]
    Closed,
    #[error("the key manager speaks no TLS 1.3")]
    Version,
    #[error("the key manager's message is not understood")]
    Wire(#[from] WireError),
}

impl LinkError {
    /// Whether a kept connection had simply ended meanwhile.
    pub(super) const fn is_stale(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Closed)
    }
}

/// A connection that has said hello.
pub(super) struct Link {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) session: Session,
}

impl Link {
    /// Connects, checks the certificate and the hello. The caller brings the time limit.
    pub(super) async fn open(target: &Target) -> Result<Self, LinkError> {
        let stream = TcpStream::connect(&target.address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::clone(&target.tls));
        let mut stream = connector.connect(target.server_name.clone(), stream).await?;
        if stream.get_ref().1.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Err(LinkError::Version);
        }
        let hello = frame::read(&mut stream).await?.ok_or(LinkError::Closed)?;
        let session = target.channel.open_hello(&hello)?;
        Ok(Self { stream, session })
    }

    /// Asks one question. A dropped future leaves the connection useless: its answer may still come.
    pub(super) async fn ask(
        &mut self,
        channel: &Channel,
        request: LeaseRequest,
    ) -> Result<(Answer, SealedBy), LinkError> {
        let (question, bytes) = channel.seal_request(self.session, request)?;
        frame::write(&mut self.stream, &bytes).await?;
        let answer = frame::read(&mut self.stream).await?.ok_or(LinkError::Closed)?;
        Ok(channel.open_answer(&question, &answer)?)
    }

    /// Asks whether somebody is there.
    pub(super) async fn ping(&mut self) -> Result<(), LinkError> {
        frame::write(&mut self.stream, &[]).await?;
        frame::read(&mut self.stream).await?.ok_or(LinkError::Closed).map(|_| ())
    }
}
