//! Connections as they come in, in the open or encrypted.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::access::Peer;
use super::tls::{self, Current};

/// Connections that are ready and wait to be served.
const READY: usize = 64;
/// Handshakes at a time, and how long one may take.
const HANDSHAKES: usize = 256;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The pause after the system could not give a connection, as when there are too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection and who is at its other end.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
    /// What is to be written has given others their turn.
    waited: bool,
}

#[derive(Debug)]
enum Stream {
    Open(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn new(stream: Stream, peer: Peer) -> Connection {
        Connection { stream, peer, waited: false }
    }

    /// What is to be written waits until those who are ready to run on this thread have run: their answers then go out with
    /// it, in one call of the system in place of one each, and wake whoever is at the other end once.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waited {
            return Poll::Ready(());
        }
        self.waited = true;
        pin!(yield_now()).poll(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// Accepts connections, and shakes hands with each on its own, so that nobody waits for a slow one. It ends when the
/// receiver is dropped.
pub fn accept(listener: TcpListener, tls: Option<Current>) -> mpsc::Receiver<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(READY);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = ready.closed() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // Without it small answers wait for acknowledgements, up to 40 ms. If it is gone already, reading tells.
            stream.set_nodelay(true).unwrap_or(());
            let Some(tls) = &tls else {
                let peer = Peer { address: Some(address), name: None };
                ready.send(Ok(Connection::new(Stream::Open(stream), peer))).await.unwrap_or(());
                continue;
            };
            let acceptor = TlsAcceptor::from(tls.borrow().clone());
            let place = handshakes.clone().acquire_owned().await.expect("nobody closes it");
            let ready = ready.clone();
            tokio::spawn(async move {
                match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        drop(place);
                        ready.send(Ok(encrypted(stream, address))).await.unwrap_or(());
                    }
                    Ok(Err(error)) => tracing::debug!(%address, %error, "no handshake"),
                    Err(_) => tracing::debug!(%address, "no handshake in time"),
                }
            });
        }
    });
    connections
}

fn encrypted(stream: TlsStream<TcpStream>, address: SocketAddr) -> Connection {
    let shown = stream.get_ref().1.peer_certificates().and_then(|certificates| certificates.first());
    let peer = Peer { address: Some(address), name: shown.and_then(tls::named) };
    Connection::new(Stream::Encrypted(Box::new(stream)), peer)
}

/// Connections for HTTP.
#[derive(Debug)]
pub struct Listener {
    pub address: SocketAddr,
    pub connections: mpsc::Receiver<io::Result<Connection>>,
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Peer) {
        loop {
            match self.connections.recv().await {
                Some(Ok(connection)) => {
                    let peer = connection.peer.clone();
                    return (connection, peer);
                }
                Some(Err(_)) => {}
                // The runtime ends, and this with it.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: Some(self.address), name: None })
    }
}

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Listener>) -> Peer {
        stream.remote_addr().clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Open(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Encrypted(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        match &mut self.stream {
            Stream::Open(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Encrypted(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        match &mut self.stream {
            Stream::Open(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Encrypted(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Open(stream) => stream.is_write_vectored(),
            Stream::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waited = false;
        match &mut self.stream {
            Stream::Open(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Open(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
