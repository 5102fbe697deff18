//! The status as figures for Prometheus (text format 0.0.4), and a listener on loopback that gives them.
//!
//! Names follow Prometheus' conventions: base units (seconds, bytes), `_total` for what only grows.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::json::{decimal, items};

/// Who is served at the same time.
const MAX_CLIENTS: usize = 4;

/// How long a question and its answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Bytes of a question.
const MAX_REQUEST: usize = 8 * 1024;

/// A figure of the status.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// Where it is in the status.
    field: &'static str,
    /// From there to the base unit.
    scale: f64,
}

const fn counter(name: &'static str, field: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: "counter", help, field, scale: 1.0 }
}

const fn gauge(name: &'static str, field: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: "gauge", help, field, scale: 1.0 }
}

/// A time that the status has in milliseconds.
const fn seconds(name: &'static str, field: &'static str, help: &'static str) -> Metric {
    Metric { scale: 0.001, ..gauge(name, field, help) }
}

const PEER: &[Metric] = &[
    gauge("bonding_peer_up", "up", "Whether at least one link of the peer carries traffic."),
    seconds("bonding_peer_last_handshake_seconds", "last_handshake_ms", "Time since the last handshake."),
    counter("bonding_peer_rekeys_total", "rekeys", "Handshakes that renewed a session's keys."),
    gauge("bonding_peer_tunnel_mtu_bytes", "tunnel_mtu", "Largest inner packet in one piece."),
    counter("bonding_peer_transmit_packets_total", "tx_packets", "Inner packets taken for the peer."),
    counter("bonding_peer_transmit_bytes_total", "tx_bytes", "Bytes of them."),
    counter("bonding_peer_receive_packets_total", "rx_packets", "Inner packets that came from the peer."),
    counter("bonding_peer_receive_bytes_total", "rx_bytes", "Bytes of them."),
    gauge("bonding_peer_queue_packets", "queue_packets", "Packets that wait for a link."),
    counter("bonding_peer_queue_drops_total", "queue_drops", "Packets that the queue has dropped."),
    counter("bonding_peer_resent_total", "resent", "Packets that were sent again."),
    gauge("bonding_peer_resequencer_held", "resequencer_held", "Packets that wait for an earlier one."),
    counter("bonding_peer_gaps_given_up_total", "gaps_given_up", "Gaps that were waited for in vain."),
    counter("bonding_peer_duplicates_total", "duplicates", "Second copies that were dropped."),
];

const LINK: &[Metric] = &[
    seconds("bonding_link_state_seconds", "since_ms", "Time since the link's state changed."),
    seconds("bonding_link_rtt_seconds", "rtt_ms", "Smoothed round-trip time."),
    seconds(
        "bonding_link_rtt_min_seconds",
        "rtt_min_ms",
        "Smallest round-trip time of the last half minute.",
    ),
    seconds("bonding_link_jitter_seconds", "jitter_ms", "Mean change of the delay from packet to packet."),
    seconds("bonding_link_queue_seconds", "queue_ms", "The queue in front of the bottleneck."),
    gauge(
        "bonding_link_transmit_capacity_bits_per_second",
        "tx_capacity",
        "What the link is thought to carry.",
    ),
    counter("bonding_link_transmit_bytes_total", "tx_bytes", "Bytes on the line, out."),
    counter("bonding_link_receive_bytes_total", "rx_bytes", "Bytes on the line, in."),
    counter("bonding_link_transmit_packets_total", "tx_packets", "Datagrams out."),
    counter("bonding_link_receive_packets_total", "rx_packets", "Datagrams in."),
    gauge("bonding_link_transmit_loss_ratio", "tx_loss", "Share of the recent packets that were lost, out."),
    gauge("bonding_link_receive_loss_ratio", "rx_loss", "Share of all packets that were lost, in."),
    gauge("bonding_link_mtu_bytes", "mtu", "Path MTU."),
];

const IO: &[Metric] = &[
    counter("bonding_tun_drops_total", "tun_drops", "Packets that the device did not take."),
    counter(
        "bonding_between_peers_drops_total",
        "between_peers",
        "Packets of one peer for another, not allowed.",
    ),
];

/// The figures of a status as [`super::status::Status`] has it.
pub fn render(status: &Value) -> String {
    let mut page = Page(String::new());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = [("version", &status["program"]), ("role", &status["role"]), ("device", &status["ifname"])];
    let about = about.map(|(name, value)| (name, text(value)));
    page.head("bonding_info", "gauge", "What this is.");
    page.sample("bonding_info", &about, &1.into());
    page.head("bonding_uptime_seconds", "gauge", "Time since the start.");
    page.number("bonding_uptime_seconds", &[], &status["uptime_ms"], 0.001);
    page.head("bonding_mtu_bytes", "gauge", "MTU of the device.");
    page.number("bonding_mtu_bytes", &[], &status["mtu"], 1.0);
    page.metrics(IO, &[(vec![], &status["io"])]);

    page.head("bonding_dropped_datagrams_total", "counter", "Datagrams that were dropped, by reason.");
    for (reason, count) in status["endpoint"]["drops"].as_object().into_iter().flatten() {
        page.number("bonding_dropped_datagrams_total", &[("reason", reason.clone())], count, 1.0);
    }
    if let Some(problem) = status["firewall"]["problem"].as_str() {
        page.head("bonding_firewall_set", "gauge", "Whether the nftables table is set.");
        page.sample("bonding_firewall_set", &[], &u8::from(problem.is_empty()).into());
    }

    let peers = items(&status["endpoint"]["peers"]);
    let name = |peer: &Value| text(&status["peers"][peer["peer"].as_u64().unwrap_or(0).to_string()]);
    let mut links = Vec::new();
    for peer in peers {
        links.extend(items(&peer["links"]).iter().map(|link| {
            let labels = vec![("peer", name(peer)), ("link", text(&link["name"]))];
            (labels, link)
        }));
    }
    let peers: Vec<_> = peers.iter().map(|peer| (vec![("peer", name(peer))], peer)).collect();
    page.metrics(PEER, &peers);
    page.head("bonding_link_up", "gauge", "Whether the link carries traffic.");
    for (labels, link) in &links {
        page.sample("bonding_link_up", labels, &u8::from(link["state"] == "up").into());
    }
    page.metrics(LINK, &links);
    page.0
}

type Label = (&'static str, String);

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn metrics(&mut self, metrics: &[Metric], things: &[(Vec<Label>, &Value)]) {
        for metric in metrics {
            self.head(metric.name, metric.kind, metric.help);
            for (labels, thing) in things {
                self.number(metric.name, labels, &thing[metric.field], metric.scale);
            }
        }
    }

    /// What is not known is left out.
    fn number(&mut self, name: &str, labels: &[Label], value: &Value, scale: f64) {
        match (value, value.as_f64()) {
            (Value::Bool(on), _) => self.sample(name, labels, &u8::from(*on).into()),
            (_, None) => {}
            (_, Some(_)) if scale == 1.0 => self.sample(name, labels, value),
            (_, Some(known)) => self.sample(name, labels, &(known * scale).into()),
        }
    }

    fn sample(&mut self, name: &str, labels: &[Label], value: &Value) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {}", if labels.is_empty() { "" } else { "}" }, decimal(value));
    }
}

/// Listens on loopback until it is dropped.
pub struct Listener {
    tasks: Vec<JoinHandle<()>>,
}

impl Listener {
    /// Listens on 127.0.0.1 and, where there is IPv6, ::1. A question goes to `tell` as `message` makes it; it is answered
    /// with the figures.
    ///
    /// # Errors
    ///
    /// When the port is taken.
    pub fn start<M: Send + 'static>(
        port: u16,
        tell: &mpsc::Sender<M>,
        message: fn(oneshot::Sender<String>) -> M,
    ) -> io::Result<Listener> {
        let mut sockets = Vec::new();
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            match std::net::TcpListener::bind(SocketAddr::new(address, port)) {
                Ok(socket) => sockets.push(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                Err(error) => return Err(error),
            }
        }
        Listener::on(sockets, tell, message)
    }

    /// Serves those who come to `sockets`.
    fn on<M: Send + 'static>(
        sockets: Vec<std::net::TcpListener>,
        tell: &mpsc::Sender<M>,
        message: fn(oneshot::Sender<String>) -> M,
    ) -> io::Result<Listener> {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        let mut listener = Listener { tasks: Vec::new() };
        for socket in sockets {
            socket.set_nonblocking(true)?;
            let socket = TcpListener::from_std(socket)?;
            listener.tasks.push(super::spawn(accept(socket, places.clone(), tell.clone(), message)));
        }
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn accept<M: Send + 'static>(
    listener: TcpListener,
    places: Arc<Semaphore>,
    tell: mpsc::Sender<M>,
    message: fn(oneshot::Sender<String>) -> M,
) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: others may close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let tell = tell.clone();
        super::spawn(async move {
            let _ = timeout(LIMIT, serve(stream, tell, message)).await;
            drop(place);
        });
    }
}

/// One question of HTTP/1: `GET /metrics`, or `GET /`.
async fn serve<M>(
    mut stream: TcpStream,
    tell: mpsc::Sender<M>,
    message: fn(oneshot::Sender<String>) -> M,
) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < MAX_REQUEST {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(part.get(..read).unwrap_or_default());
    }
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let is_ours = [&b"GET /metrics "[..], b"GET / "].iter().any(|start| line.starts_with(start));
    let (code, body) = match is_ours {
        false => ("404 Not Found", "GET /metrics\n".to_owned()),
        true => {
            let (answer, answered) = oneshot::channel();
            let _ = tell.send(message(answer)).await;
            match answered.await {
                Ok(figures) => ("200 OK", figures),
                Err(_) => return Ok(()),
            }
        }
    };
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::{Read as _, Write as _};

    use serde_json::json;

    use super::*;

    fn status() -> Value {
        json!({
            "program": "1.2.3", "role": "server", "ifname": "bond0", "uptime_ms": 1500, "mtu": 1440,
            "io": { "tun_drops": 3, "between_peers": 0 },
            "firewall": { "table": "bonding_bond0", "problem": "" },
            "peers": { "7": "a \"b\" \\c" },
            "endpoint": {
                "drops": { "unknown type": 5 },
                "peers": [{ "peer": 7, "up": true, "tx_bytes": 18_000_000_000_000_000_000_u64, "last_handshake_ms": null,
                    "links": [{ "name": "adsl1", "state": "up", "rtt_ms": 41.5, "tx_capacity": null },
                              { "name": "lte", "state": "down", "rx_loss": 0.25 }] }],
            },
        })
    }

    #[test]
    fn figures() {
        let page = render(&status());
        for line in [
            "bonding_info{version=\"1.2.3\",role=\"server\",device=\"bond0\"} 1",
            "bonding_uptime_seconds 1.5",
            "bonding_tun_drops_total 3",
            "bonding_dropped_datagrams_total{reason=\"unknown type\"} 5",
            "bonding_firewall_set 1",
            "bonding_peer_up{peer=\"a \\\"b\\\" \\\\c\"} 1",
            "bonding_peer_transmit_bytes_total{peer=\"a \\\"b\\\" \\\\c\"} 18000000000000000000",
            "bonding_link_up{peer=\"a \\\"b\\\" \\\\c\",link=\"lte\"} 0",
            "bonding_link_rtt_seconds{peer=\"a \\\"b\\\" \\\\c\",link=\"adsl1\"} 0.0415",
            "# TYPE bonding_link_receive_loss_ratio gauge",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in:\n{page}");
        }
        assert!(!page.contains("null") && !page.contains("last_handshake_seconds{"), "{page}");
        // Samples of a name stand together, behind their head.
        let mut seen = HashSet::new();
        let mut current = "";
        for line in page.lines() {
            match line.strip_prefix("# HELP ").and_then(|rest| rest.split(' ').next()) {
                Some(name) => {
                    assert!(seen.insert(name), "{name} comes twice");
                    current = name;
                }
                None if line.starts_with('#') => {}
                None => assert_eq!(line.split(['{', ' ']).next(), Some(current), "{line}"),
            }
        }
    }

    #[test]
    fn a_question_is_answered_and_another_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (tell, mut inbox) = mpsc::channel(1);
            let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = socket.local_addr().unwrap();
            let refused = Listener::start(address.port(), &tell, |answer| answer).err();
            assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
            let _listener = Listener::on(vec![socket], &tell, |answer| answer).unwrap();
            let ask = move |line: &'static str| {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                write!(stream, "{line} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                let mut reply = String::new();
                stream.read_to_string(&mut reply).unwrap();
                reply
            };
            let asking = tokio::task::spawn_blocking(move || ask("GET /metrics"));
            inbox.recv().await.unwrap().send("bonding_up 1\n".into()).unwrap();
            let reply = asking.await.unwrap();
            assert!(
                reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\nbonding_up 1\n"),
                "{reply}"
            );
            let reply = tokio::task::spawn_blocking(move || ask("POST /metrics")).await.unwrap();
            assert!(reply.starts_with("HTTP/1.1 404 "), "{reply}");
        });
    }
}
