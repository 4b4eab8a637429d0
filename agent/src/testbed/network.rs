//! The network between the processes: namespaces with links of the kernel, or loopback with links of the relay.
//!
//! ```text
//! namespaces                                            loopback
//!  node ──veth, tbf── bridge ──veth, tbf── bridge …      node ──TCP── relay: a bucket for each link ──TCP── node
//!  (a namespace each)     (namespace "remora-fabric")
//! ```
//!
//! What crosses a shared (wireless) link in either direction passes the one token bucket of an ifb device.
//!
//! Namespaces live in a network, mount and process namespace of their own, which [`enter`] begins: nothing of the
//! machine's network is touched, and with the last process the kernel removes everything. Tasks and reports go over a
//! second network that nobody shapes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use remora_env::topology::{Topology, VertexId};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::node::Ready;
use super::relay::{self, Doors, Shaper};

/// Which network to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// Namespaces where this machine allows them, else loopback.
    Auto,
    Namespaces,
    Loopback,
}

/// Names of namespaces begin so.
const PREFIX: &str = "remora-";
const FABRIC: &str = "remora-fabric";
/// What tells a process that it is inside.
const INSIDE: &str = "REMORA_TESTBED_INSIDE";
const DATA_PORT: u16 = 7070;
const CONTROL_PORT: u16 = 7071;
/// Second bytes of addresses 10.x.….
const DATA: u8 = 77;
const CONTROL: u8 = 78;
/// Addresses of the second network: of vertices from 1 on, and of the one who drives.
const DRIVER: Ipv4Addr = Ipv4Addr::new(10, CONTROL, 255, 254);
const MOST_VERTICES: usize = 60_000;
/// What a link lets pass at once, and what waits before it: as home routers have it.
const BURST_S: f64 = 0.004;
const QUEUE_S: f64 = 0.1;
/// The kernel counts what Ethernet, IP and TCP add to each packet; what a scenario says of a link is without them.
const HEADERS: f64 = 1514.0 / 1448.0;
const LEAST_BURST: f64 = 16_384.0;
const LEAST_QUEUE: f64 = 65_536.0;

fn address(network: u8, vertex: VertexId) -> Ipv4Addr {
    let [_, _, high, low] = (vertex + 1).to_be_bytes();
    Ipv4Addr::new(10, network, high, low)
}

/// Where a process gives its items, in namespaces.
pub fn data_address(vertex: VertexId) -> SocketAddr {
    SocketAddr::from((address(DATA, vertex), DATA_PORT))
}

/// Who has an address there.
pub fn vertex(address: IpAddr) -> Option<VertexId> {
    let IpAddr::V4(address) = address else { return None };
    match address.octets() {
        [10, DATA, high, low] => u32::from(u16::from_be_bytes([high, low])).checked_sub(1),
        _ => None,
    }
}

/// Whether this process is inside of namespaces already.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// How to run this program inside.
pub fn entry() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").env(INSIDE, "1");
    command
}

/// Why this machine has no namespaces for us, if so.
pub async fn obstacle() -> Option<String> {
    let probe = "mount -t tmpfs remora /run && ip link set lo up && ip netns add remora-probe && \
                 ip link add v0 type veth peer name v1 && ip link set v1 netns remora-probe && \
                 ip link add b0 type bridge && tc qdisc add dev v0 root tbf rate 8mbit burst 16k latency 100ms && \
                 nsenter --net=/run/netns/remora-probe ip link set v1 up";
    let probed = entry().args(["sh", "-c", probe]).stdin(Stdio::null()).output().await;
    match probed {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().next().unwrap_or("a command failed").to_owned();
            Some(format!("{line}; want ip and tc (iproute2), unshare, and root or user namespaces"))
        }
        Err(error) => Some(format!("unshare: {error}; want util-linux and iproute2")),
    }
}

/// The links between vertices, and how processes are started at them.
#[derive(Debug)]
pub struct Network {
    topology: Arc<Topology>,
    made: Made,
}

#[derive(Debug)]
enum Made {
    Namespaces,
    Loopback { shaper: Arc<Shaper>, doors: Arc<Doors>, relay: SocketAddr, serving: JoinHandle<()> },
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Made::Loopback { serving, .. } = &self.made {
            serving.abort();
        }
    }
}

impl Network {
    /// Makes the network: of namespaces inside of [`entry`], else on loopback.
    ///
    /// # Errors
    /// Where a command of the kernel's network fails, or links form what a testbed cannot be.
    pub async fn new(topology: Arc<Topology>) -> Result<Network> {
        check(&topology)?;
        let made = if inside() { namespaces(&topology).await? } else { loopback(&topology).await? };
        Ok(Network { topology, made })
    }

    pub fn name(&self) -> &'static str {
        match self.made {
            Made::Namespaces => "namespaces",
            Made::Loopback { .. } => "loopback",
        }
    }

    /// A command that runs this program where a vertex is.
    pub fn program(&self, vertex: VertexId) -> Command {
        match self.made {
            Made::Loopback { .. } => ourselves(),
            Made::Namespaces => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{PREFIX}{vertex}")).arg(our_path());
                command
            }
        }
    }

    /// What a node is told of the network.
    pub fn arguments(&self, vertex: VertexId) -> Vec<String> {
        match &self.made {
            Made::Loopback { relay, .. } => vec![format!("--relay={relay}")],
            Made::Namespaces => vec![
                format!("--listen={}", data_address(vertex)),
                format!("--control={}:{CONTROL_PORT}", address(CONTROL, vertex)),
            ],
        }
    }

    /// Where the service listens, and what it has to be told for that.
    pub fn of_service(&self) -> (SocketAddr, bool) {
        match self.made {
            Made::Loopback { .. } => (SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false),
            // Nobody outside of the namespaces can reach it.
            Made::Namespaces => (SocketAddr::from((DRIVER, 0)), true),
        }
    }

    /// A process is ready at these addresses.
    pub fn opened(&self, vertex: VertexId, ready: &Ready) {
        if let Made::Loopback { doors, .. } = &self.made {
            let mut doors = doors.lock().unwrap_or_else(PoisonError::into_inner);
            doors[vertex as usize] = Some(ready.listen);
        }
    }

    /// Lets a link carry a share of what it was made for; 0 cuts it.
    pub async fn degrade(&self, link: usize, share: f64) -> Result<()> {
        let channels = self.topology.link_channels(link);
        match &self.made {
            Made::Loopback { shaper, .. } => {
                for channel in channels {
                    let whole = self.topology.channels()[channel as usize].capacity_bytes_per_s;
                    shaper.set(channel, whole * share);
                }
            }
            Made::Namespaces => {
                let [_, inner] = ends(&self.topology, link);
                let state = if share > 0.0 { "up" } else { "down" };
                run("ip", &["-n", FABRIC, "link", "set", &inner.interface, state]).await?;
                for bucket in buckets(&self.topology, link).into_iter().filter(|_| share > 0.0) {
                    bucket.shape("change", share).await?;
                }
            }
        }
        Ok(())
    }
}

/// What keeps a network from being made.
fn check(topology: &Topology) -> Result<()> {
    if !topology.is_forest() {
        bail!("the links of the scenario form a circle; a testbed wants one way between any two nodes");
    }
    let links = |vertex| topology.links.iter().filter(move |link| link.from == vertex || link.to == vertex);
    match topology.leaves().find(|&vertex| links(vertex).count() != 1) {
        Some(vertex) => {
            let name = topology.vertex_name(vertex);
            bail!("{name} has not one link; a testbed wants every node and registry at one switch")
        }
        None => Ok(()),
    }
}

fn our_path() -> PathBuf {
    // Not its path: the file there may have been replaced meanwhile.
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}

fn ourselves() -> Command {
    let mut command = Command::new(our_path());
    command.arg0("remora");
    command
}

/// A command that runs this program beside the driver.
pub fn beside() -> Command {
    ourselves()
}

async fn loopback(topology: &Arc<Topology>) -> Result<Made> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let relay = listener.local_addr()?;
    let shaper = Arc::new(Shaper::new(topology));
    let doors: Arc<Doors> = Arc::new(Mutex::new(vec![None; topology.vertex_count()]));
    let serving = tokio::spawn(relay::serve(listener, topology.clone(), shaper.clone(), doors.clone()));
    Ok(Made::Loopback { shaper, doors, relay, serving })
}

/// One end of a link: where it is and what it is called there.
struct End {
    vertex: VertexId,
    namespace: String,
    interface: String,
}

fn ends(topology: &Topology, link: usize) -> [End; 2] {
    let end = |vertex: VertexId, side: char| {
        let leaf = topology.leaves().contains(&vertex);
        let namespace = if leaf { format!("{PREFIX}{vertex}") } else { FABRIC.to_owned() };
        End { vertex, namespace, interface: format!("l{link}{side}") }
    };
    [end(topology.links[link].from, 'o'), end(topology.links[link].to, 'i')]
}

async fn namespaces(topology: &Topology) -> Result<Made> {
    let (leaves, vertices) = (topology.leaves(), topology.vertex_count());
    if vertices > MOST_VERTICES {
        bail!("the scenario has {vertices} nodes and switches, want at most {MOST_VERTICES}");
    }
    // What is mounted here nobody else sees.
    run("mount", &["-t", "tmpfs", "remora", "/run"]).await?;
    ip("link set lo up").await?;
    ip(&format!("netns add {FABRIC}")).await?;
    ip("link add control type bridge").await?;
    ip(&format!("addr add {DRIVER}/16 dev control")).await?;
    ip("link set control up").await?;
    for vertex in leaves.clone() {
        let name = format!("{PREFIX}{vertex}");
        ip(&format!("netns add {name}")).await?;
        ip(&format!("-n {name} link set lo up")).await?;
        ip(&format!("link add c{vertex} type veth peer name control netns {name}")).await?;
        ip(&format!("link set c{vertex} master control up")).await?;
        ip(&format!("-n {name} addr add {}/16 dev control", address(CONTROL, vertex))).await?;
        ip(&format!("-n {name} link set control up")).await?;
    }
    for switch in leaves.end..vertices as VertexId {
        ip(&format!("-n {FABRIC} link add s{switch} type bridge")).await?;
        ip(&format!("-n {FABRIC} link set s{switch} up")).await?;
    }
    for index in 0..topology.links.len() {
        let link = &topology.links[index];
        let ends = ends(topology, index);
        let [outer, inner] = &ends;
        ip(&format!(
            "-n {} link add {} type veth peer name {} netns {}",
            outer.namespace, outer.interface, inner.interface, inner.namespace
        ))
        .await?;
        for End { vertex, namespace, interface } in &ends {
            if leaves.contains(vertex) {
                ip(&format!("-n {namespace} addr add {}/16 dev {interface}", address(DATA, *vertex))).await?;
            } else {
                ip(&format!("-n {namespace} link set {interface} master s{vertex}")).await?;
            }
            ip(&format!("-n {namespace} link set {interface} up")).await?;
        }
        if link.shared {
            let led = lead_through_medium(&ends, index).await;
            led.context(
                "a shared link wants ifb, u32 and mirred of the kernel; --network loopback does without",
            )?;
        }
        for bucket in buckets(topology, index) {
            bucket.shape("add", 1.0).await?;
        }
    }
    Ok(Made::Namespaces)
}

/// Leads what comes in and goes out at an end of a shared link through a device of its own.
async fn lead_through_medium(ends: &[End; 2], link: usize) -> Result<()> {
    let at_switch = ends.iter().find(|end| end.namespace == FABRIC).context("every link has a switch")?;
    let (interface, medium) = (&at_switch.interface, medium(link));
    ip(&format!("-n {FABRIC} link add {medium} type ifb")).await?;
    ip(&format!("-n {FABRIC} link set {medium} up")).await?;
    tc(&format!("-n {FABRIC} qdisc add dev {interface} clsact")).await?;
    for side in ["ingress", "egress"] {
        let all = format!("-n {FABRIC} filter add dev {interface} {side} protocol all u32 match u32 0 0");
        tc(&format!("{all} action mirred egress redirect dev {medium}")).await?;
    }
    Ok(())
}

/// The device that all of a shared link passes.
fn medium(link: usize) -> String {
    format!("w{link}")
}

/// A token bucket that whatever leaves an interface passes.
struct Bucket {
    namespace: String,
    interface: String,
    bytes_per_s: f64,
}

/// Those of a link: one at each end, or one for both directions.
fn buckets(topology: &Topology, link: usize) -> Vec<Bucket> {
    let index = link;
    let link = &topology.links[index];
    if link.shared {
        let (namespace, interface) = (FABRIC.to_owned(), medium(index));
        return vec![Bucket { namespace, interface, bytes_per_s: link.up_bytes_per_s }];
    }
    let rates = [link.up_bytes_per_s, link.down_bytes_per_s];
    let bucket =
        |(End { namespace, interface, .. }, bytes_per_s)| Bucket { namespace, interface, bytes_per_s };
    ends(topology, index).into_iter().zip(rates).map(bucket).collect()
}

impl Bucket {
    /// Adds or changes it, to a share of its rate.
    async fn shape(&self, verb: &str, share: f64) -> Result<()> {
        let Bucket { namespace, interface, bytes_per_s } = self;
        let rate = bytes_per_s * share;
        let tokens = format!(
            "tbf rate {:.0}bit burst {:.0} limit {:.0}",
            rate * 8.0 * HEADERS,
            (rate * BURST_S).max(LEAST_BURST),
            (rate * QUEUE_S).max(LEAST_QUEUE),
        );
        tc(&format!("-n {namespace} qdisc {verb} dev {interface} root {tokens}")).await
    }
}

async fn tc(arguments: &str) -> Result<()> {
    run("tc", &arguments.split(' ').collect::<Vec<_>>()).await
}

async fn ip(arguments: &str) -> Result<()> {
    run("ip", &arguments.split(' ').collect::<Vec<_>>()).await
}

async fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().await;
    let output = output.with_context(|| format!("{program} cannot be run"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

/// How long what runs inside may take to clean up.
const GRACE: Duration = Duration::from_secs(15);

/// Runs this very command inside of namespaces, until it or `stop` ends; its exit code.
pub async fn enter(stop: impl Future<Output = ()>) -> Result<i32> {
    let mut command = entry();
    // Inside, processes have other numbers: here its path has to do.
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    // Its end, however this process ends, is the end of what runs inside.
    let mut child =
        command.stdin(Stdio::piped()).process_group(0).spawn().context("unshare cannot be run")?;
    // Waiting for a process closes its input.
    let input = child.stdin.take();
    let ended = tokio::select! {
        ended = child.wait() => ended?,
        () = stop => {
            drop(input);
            match tokio::time::timeout(GRACE, child.wait()).await {
                Ok(ended) => ended?,
                Err(_) => {
                    child.kill().await?;
                    bail!("what ran inside did not end in time and was killed");
                }
            }
        }
    };
    Ok(ended.code().unwrap_or(1))
}
