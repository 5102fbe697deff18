//! What goes through a tunnel in a given time, and what the daemons at its ends spend on it.

use std::io;
use std::time::Duration;

use lab::traffic::Tcp;
use lab::usage::Usage;
use serde::Serialize;

use super::contender::Tunnel;
use super::flood;

/// Not counted at the start of a transfer.
const WARM_UP: Duration = Duration::from_secs(1);

/// Everything about one tunnel.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// One stream.
    pub tcp_one: Transfer,
    /// Four at once.
    pub tcp_four: Transfer,
    /// One each way.
    pub tcp_both: Transfer,
    /// Highest rate of packets of 1200 bytes with less than 1 % lost, per second.
    pub udp_1200: u64,
    /// The same of 64 bytes.
    pub udp_64: u64,
    /// Resident memory of the larger daemon before any load, in bytes.
    pub resident_idle: u64,
    /// The most that the larger daemon had, in bytes.
    pub resident_peak: u64,
}

/// One TCP measurement, after the warm-up.
#[derive(Debug, Serialize)]
pub struct Transfer {
    /// Bits per second from client to server.
    pub forth: u64,
    /// From server to client.
    pub back: u64,
    /// Processor time of the daemons, in seconds for 10⁹ bytes.
    pub cpu_per_gigabyte: f64,
}

impl Transfer {
    /// Both directions, in Mbit/s.
    pub fn mbit(&self) -> f64 {
        (self.forth + self.back) as f64 / 1e6
    }
}

/// Measures everything.
pub fn all(tunnel: &mut Tunnel, time: Duration) -> io::Result<Figures> {
    let resident_idle = usages(tunnel).map(|usage| usage.resident).max().unwrap_or(0);
    let tcp_one = tcp(tunnel, time, 1, 0)?;
    eprintln!("  one stream: {:.0} Mbit/s, {:.1} s/GB", tcp_one.mbit(), tcp_one.cpu_per_gigabyte);
    let tcp_four = tcp(tunnel, time, 4, 0)?;
    eprintln!("  four streams: {:.0} Mbit/s, {:.1} s/GB", tcp_four.mbit(), tcp_four.cpu_per_gigabyte);
    let tcp_both = tcp(tunnel, time, 1, 1)?;
    eprintln!("  both ways: {:.0} Mbit/s, {:.1} s/GB", tcp_both.mbit(), tcp_both.cpu_per_gigabyte);
    let udp_1200 = flood::highest_rate(&tunnel.client, &tunnel.server, tunnel.target, 1200)?;
    eprintln!("  UDP of 1200 bytes: {udp_1200} packets/s");
    let udp_64 = flood::highest_rate(&tunnel.client, &tunnel.server, tunnel.target, 64)?;
    eprintln!("  UDP of 64 bytes: {udp_64} packets/s");
    let resident_peak = usages(tunnel).map(|usage| usage.peak).max().unwrap_or(0);
    Ok(Figures { tcp_one, tcp_four, tcp_both, udp_1200, udp_64, resident_idle, resident_peak })
}

fn tcp(tunnel: &mut Tunnel, time: Duration, forth: usize, back: usize) -> io::Result<Transfer> {
    let transfer = || Tcp::new(&tunnel.client, &tunnel.server, tunnel.target).duration(WARM_UP + time);
    let up = transfer().upload().streams(forth).start()?;
    let down = if back > 0 { Some(transfer().download().streams(back).start()?) } else { None };
    std::thread::sleep(WARM_UP.saturating_sub(up.elapsed()));
    let (cpu_before, from) = (cpu(tunnel), up.elapsed());
    let received = || (up.received(), down.as_ref().map_or(0, |down| down.received()));
    let before = received();
    // The end comes a little before that of the transfer, so that only its middle is measured.
    std::thread::sleep(time.saturating_sub(Duration::from_millis(100)));
    let (after, cpu_after, to) = (received(), cpu(tunnel), up.elapsed());
    up.finish();
    if let Some(down) = down {
        down.finish();
    }
    let seconds = (to - from).as_secs_f64();
    let (forth, back) = (after.0 - before.0, after.1 - before.1);
    Ok(Transfer {
        forth: (forth as f64 * 8.0 / seconds) as u64,
        back: (back as f64 * 8.0 / seconds) as u64,
        cpu_per_gigabyte: (cpu_after - cpu_before).as_secs_f64() / ((forth + back) as f64 / 1e9),
    })
}

/// User and system time of the daemons so far.
fn cpu(tunnel: &Tunnel) -> Duration {
    usages(tunnel).map(|usage| usage.cpu).sum()
}

/// What the daemons cost; nothing, if they have ended.
fn usages(tunnel: &Tunnel) -> impl Iterator<Item = Usage> {
    tunnel.pids().map(|pid| Usage::of(pid).unwrap_or_default())
}
