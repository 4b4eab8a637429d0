//! Shaping in user space: bytes between processes pass a token bucket for each link of their way, and wait as long as
//! they would be under way.
//!
//! On the loopback network all connections lead through the relay. Where links are shaped by the kernel, but it
//! cannot delay (no netem), nodes put [`delayed`] before what they accept.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use remora_env::topology::{ChannelId, Direction, Topology, VertexId};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

/// Bytes that pass at once.
const CHUNK: usize = 16 << 10;
/// Chunks on their way: what has left and not arrived.
const UNDER_WAY: usize = 256;
/// A link that was idle lets so much pass at once; timers are no finer.
const BURST: Duration = Duration::from_millis(4);

/// One direction of a link.
#[derive(Debug)]
struct Bucket {
    /// 0 where it is cut.
    bytes_per_s: f64,
    /// When what was admitted so far has passed.
    passed: Instant,
}

/// All links of a network.
#[derive(Debug)]
pub struct Shaper {
    buckets: Vec<Mutex<Bucket>>,
    changed: Notify,
}

impl Shaper {
    pub fn new(topology: &Topology) -> Shaper {
        let now = Instant::now();
        let bucket = |bytes_per_s| Mutex::new(Bucket { bytes_per_s, passed: now });
        let buckets = topology.channels().iter().map(|channel| bucket(channel.capacity_bytes_per_s));
        Shaper { buckets: buckets.collect(), changed: Notify::new() }
    }

    /// Lets a channel carry so much from now on; 0 cuts it.
    pub fn set(&self, channel: ChannelId, bytes_per_s: f64) {
        self.with(channel, |bucket| bucket.bytes_per_s = bytes_per_s);
        self.changed.notify_waiters();
    }

    fn with<T>(&self, channel: ChannelId, act: impl FnOnce(&mut Bucket) -> T) -> T {
        act(&mut self.buckets[channel as usize].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until so many bytes have their turn on all channels of a way.
    async fn pass(&self, way: &[ChannelId], bytes: usize) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if way.iter().all(|&channel| self.with(channel, |bucket| bucket.bytes_per_s > 0.0)) {
                break;
            }
            changed.await;
        }
        let now = Instant::now();
        let turn = |bucket: &mut Bucket| {
            let begin = bucket.passed.max(now - BURST);
            let seconds = bytes as f64 / bucket.bytes_per_s.max(1.0);
            bucket.passed = begin + Duration::from_secs_f64(seconds);
            bucket.passed
        };
        if let Some(turn) = way.iter().map(|&channel| self.with(channel, turn)).max()
            && turn > now
        {
            sleep_until(turn).await;
        }
    }
}

/// What bytes meet on their way in one direction.
#[derive(Clone, Debug, Default)]
struct Way {
    channels: Vec<ChannelId>,
    delay: Duration,
}

impl Way {
    fn between(topology: &Topology, from: VertexId, to: VertexId) -> Way {
        let mut channels: Vec<ChannelId> = Vec::new();
        let mut delay_s = 0.0;
        topology.visit_route(from, to, Direction::From, |channel, latency_s| {
            // A shared link that a way enters and leaves carries it once.
            if !channels.contains(&channel) {
                channels.push(channel);
            }
            delay_s += latency_s;
        });
        Way { channels, delay: Duration::from_secs_f64(delay_s) }
    }
}

/// Carries bytes one way until either end is closed.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    shaper: Option<Arc<Shaper>>,
) -> io::Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        loop {
            let mut chunk = vec![0; CHUNK];
            let length = from.read(&mut chunk).await?;
            if length == 0 {
                return Ok(());
            }
            chunk.truncate(length);
            if let Some(shaper) = &shaper {
                shaper.pass(&way.channels, length).await;
            }
            if sender.send((Instant::now() + way.delay, chunk)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((at, chunk)) = receiver.recv().await {
            sleep_until(at).await;
            to.write_all(&chunk).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_: ((), ())| ())
}

/// Carries bytes both ways; when one end breaks, the other is told.
async fn carry<A, B>(client: A, server: B, ways: [Way; 2], shaper: Option<Arc<Shaper>>)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let [there, back] = ways;
    let (client_reads, client_writes) = tokio::io::split(client);
    let (server_reads, server_writes) = tokio::io::split(server);
    let there = pump(client_reads, server_writes, there, shaper.clone());
    let back = pump(server_reads, client_writes, back, shaper);
    // A broken end drops both, and with them the connections.
    let _ = tokio::try_join!(there, back);
}

/// The same connection, both of whose directions take `delay` longer.
pub fn delayed(stream: TcpStream, delay: Duration) -> DuplexStream {
    let (near, far) = tokio::io::duplex(CHUNK * 16);
    let way = Way { channels: Vec::new(), delay };
    tokio::spawn(carry(stream, far, [way.clone(), way], None));
    near
}

/// Mean seconds that a byte is under way between two vertices.
pub fn delay(topology: &Topology, from: VertexId, to: VertexId) -> Duration {
    Way::between(topology, from, to).delay
}

/// Where the relay finds the processes; their ports change when they are started anew.
pub type Doors = Mutex<Vec<Option<SocketAddr>>>;

/// Accepts connections whose first line names both ends, `FROM TO`, as numbers of vertices.
pub async fn serve(listener: TcpListener, topology: Arc<Topology>, shaper: Arc<Shaper>, doors: Arc<Doors>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (topology, shaper, doors) = (topology.clone(), shaper.clone(), doors.clone());
        tokio::spawn(async move {
            if let Err(error) = relay(stream, &topology, shaper, &doors).await {
                tracing::debug!(%error, "a connection was not relayed");
            }
        });
    }
}

async fn relay(stream: TcpStream, topology: &Topology, shaper: Arc<Shaper>, doors: &Doors) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut client = BufReader::new(stream);
    let mut line = String::new();
    client.read_line(&mut line).await?;
    let ends: Vec<VertexId> = line.split_whitespace().filter_map(|end| end.parse().ok()).collect();
    let most = topology.vertex_count() as VertexId;
    let [from, to] = ends[..] else { return Err(io::Error::other("want two ends")) };
    if from.max(to) >= most {
        return Err(io::Error::other(format!("want ends below {most}")));
    }
    let door = doors.lock().unwrap_or_else(PoisonError::into_inner)[to as usize];
    let server = TcpStream::connect(door.ok_or(io::ErrorKind::ConnectionRefused)?).await?;
    server.set_nodelay(true)?;
    let ways = [Way::between(topology, from, to), Way::between(topology, to, from)];
    carry(client, server, ways, Some(shaper)).await;
    Ok(())
}

/// Connects through the relay.
pub async fn connect(relay: SocketAddr, from: VertexId, to: VertexId) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(relay).await?;
    stream.set_nodelay(true)?;
    stream.write_all(format!("{from} {to}\n").as_bytes()).await?;
    Ok(stream)
}
