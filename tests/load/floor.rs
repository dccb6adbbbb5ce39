//! The floor: what the kernel and the cipher alone cost for the same packets at the same rate.
//!
//! RTMP: one TCP write of 11 kB per video frame and player; for a server that does not merge audio
//! with video, one write per video frame and one per audio packet, with the same bytes in total.
//! WHEP: ten packets of 1100 B per frame and viewer, copied, encrypted with AES-128-GCM, and sent
//! with one `UDP_SEGMENT` send. The sender is a child process of this program, so that its CPU time
//! is measured like a server's; the receivers are those of the other cases.

use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tokio::net::TcpListener;

use crate::mark::now_ns;
use crate::process::Processes;
use crate::server::KillOnDrop;
use crate::source::{AUDIO_PACKETS_PER_SECOND, FRAMES_PER_SECOND};
use crate::tally::Tally;
use crate::udp::Socket;

/// Which server the sender imitates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FloorKind {
    /// One TCP write per video frame and player.
    Rtmp,
    /// One TCP write per video frame, audio packet and player.
    RtmpUnmerged,
    /// One encrypted GSO send per frame and viewer.
    Whep,
}

/// A running sender. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Floor {
    pub(crate) processes: Processes,
    child: KillOnDrop,
}

impl Floor {
    /// Starts a sender, which waits for its targets.
    ///
    /// # Errors
    /// If this program cannot be started as a child process.
    pub(crate) fn start(kind: FloorKind) -> Result<Self> {
        let program = std::env::current_exe()?;
        let name = kind.to_possible_value().context("every kind has a name")?;
        let child = Command::new(program).args(["floor-sender", name.get_name()]).stdin(Stdio::piped()).spawn()?;
        Ok(Self { processes: Processes::tree(child.id() as i32), child: KillOnDrop(child) })
    }

    /// Sets the targets and starts sending. Can be called once.
    ///
    /// # Errors
    /// If the sender has exited.
    pub(crate) fn set_targets(&mut self, targets: &[SocketAddr]) -> Result<()> {
        let mut pipe = self.child.0.stdin.take().context("the targets are already set")?;
        targets.iter().try_for_each(|target| writeln!(pipe, "{target}")).context("the floor's sender has exited")
    }
}

/// Accepts one connection and counts the bytes received until it ends.
///
/// # Errors
/// If the sender closed the connection.
pub(crate) async fn tcp_sink(listener: Arc<TcpListener>, tally: Arc<Tally>) -> Result<()> {
    let (socket, _) = listener.accept().await?;
    let mut joined = false;
    loop {
        socket.readable().await?;
        match BUFFER.with_borrow_mut(|buffer| socket.try_read(buffer)) {
            Ok(0) => anyhow::bail!("the floor's sender closed a connection"),
            Ok(n) => {
                tally.add_bytes(n);
                tally.add_packets(1);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e.into()),
        }
        if !std::mem::replace(&mut joined, true) {
            tally.record_join_us(0);
        }
    }
}

/// Counts the packets received on one UDP socket.
///
/// # Errors
/// If receiving fails.
pub(crate) async fn udp_sink(socket: Socket, tally: Arc<Tally>) -> Result<()> {
    let mut joined = false;
    loop {
        socket
            .receive(|packet| {
                tally.add_bytes(packet.len());
                tally.add_packets(1);
            })
            .await?;
        if !std::mem::replace(&mut joined, true) {
            tally.record_join_us(0);
        }
    }
}

/// Runs the sender: reads its targets from standard input, then sends until it is killed.
///
/// # Errors
/// If a target is unreachable.
pub(crate) fn send(kind: FloorKind) -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let targets = text.lines().map(str::parse).collect::<Result<Vec<SocketAddr>, _>>()?;
    ensure!(!targets.is_empty(), "no targets");
    match kind {
        FloorKind::Rtmp => send_tcp(&targets, &MERGED_WRITES),
        FloorKind::RtmpUnmerged => send_tcp(&targets, &UNMERGED_WRITES),
        FloorKind::Whep => send_udp(&targets),
    }
}

fn send_tcp(targets: &[SocketAddr], writes: &[PeriodicWrite]) -> Result<()> {
    let mut sockets = Vec::new();
    for target in targets {
        let socket = TcpStream::connect(target)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    let data = vec![0x5a; FRAME_BYTES];
    let rates: Vec<f64> = writes.iter().map(|w| w.per_second).collect();
    pace(&rates, |n| {
        for socket in &mut sockets {
            match socket.write(&data[..writes[n].bytes]) {
                Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    })
}

fn send_udp(targets: &[SocketAddr]) -> Result<()> {
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    let targets: Vec<SockaddrStorage> = targets.iter().map(|t| SockaddrStorage::from(*t)).collect();
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).ok().context("no AES-128-GCM")?;
    let key = LessSafeKey::new(key);
    let payload = vec![0x5a; PACKET_BYTES - RTP_HEADER_BYTES - TAG_BYTES];
    let mut out = Vec::with_capacity(PACKETS * PACKET_BYTES);
    let mut count = 0u64;
    pace(&[FRAMES_PER_SECOND], |_| {
        for target in &targets {
            out.clear();
            for _ in 0..PACKETS {
                count += 1;
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&count.to_be_bytes());
                let start = out.len();
                out.extend_from_slice(&[0x80; RTP_HEADER_BYTES]);
                out.extend_from_slice(&payload);
                let (header, body) = out[start..].split_at_mut(RTP_HEADER_BYTES);
                let tag = key
                    .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&*header), body)
                    .ok()
                    .context("could not encrypt")?;
                out.extend_from_slice(tag.as_ref());
            }
            let segment = PACKET_BYTES as u16;
            let control = [ControlMessage::UdpGsoSegments(&segment)];
            let sent =
                sendmsg(socket.as_raw_fd(), &[IoSlice::new(&out)], &control, MsgFlags::MSG_DONTWAIT, Some(target));
            match sent {
                Ok(_) | Err(nix::Error::EAGAIN | nix::Error::ECONNREFUSED) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    })
}

/// Calls `tick(n)` at the n-th of these rates per second, for each of them and without end.
fn pace(per_second: &[f64], mut tick: impl FnMut(usize) -> Result<()>) -> Result<()> {
    let mut schedule = Schedule::new(per_second, now_ns());
    loop {
        let (n, due_ns) = schedule.next().context("no rates")?;
        let due = TimeSpec::new((due_ns / 1_000_000_000) as i64, (due_ns % 1_000_000_000) as i64);
        let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &due);
        tick(n)?;
    }
}

/// When to call what: the index of the next rate that is due and its time in nanoseconds, without
/// end; of two that are due at the same time, the first one first.
struct Schedule {
    /// Next time and period, both in nanoseconds.
    rates: Vec<(u64, u64)>,
}

impl Schedule {
    fn new(per_second: &[f64], start_ns: u64) -> Self {
        Self { rates: per_second.iter().map(|rate| (start_ns, (1e9 / rate) as u64)).collect() }
    }
}

impl Iterator for Schedule {
    type Item = (usize, u64);

    fn next(&mut self) -> Option<(usize, u64)> {
        let (n, (due_ns, period_ns)) = self.rates.iter_mut().enumerate().min_by_key(|(_, (due_ns, _))| *due_ns)?;
        let due = *due_ns;
        *due_ns += *period_ns;
        Some((n, due))
    }
}

/// A write of this size to every player, this often.
#[derive(Debug, Clone, Copy)]
struct PeriodicWrite {
    per_second: f64,
    bytes: usize,
}

/// Audio leaves with the video frame.
const MERGED_WRITES: [PeriodicWrite; 1] = [PeriodicWrite { per_second: FRAMES_PER_SECOND, bytes: FRAME_BYTES }];
/// The same bytes per second as [`MERGED_WRITES`], with a write of its own for each audio packet.
const UNMERGED_WRITES: [PeriodicWrite; 2] = [
    PeriodicWrite { per_second: FRAMES_PER_SECOND, bytes: VIDEO_BYTES },
    PeriodicWrite { per_second: AUDIO_PACKETS_PER_SECOND, bytes: AUDIO_BYTES },
];

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 128 * 1024]);
}

/// 2.65 Mbit/s at 30 frames per second, audio included.
const FRAME_BYTES: usize = 11_000;
/// 128 kbit/s at 46.875 packets per second, a chunk header of 12 bytes and an FLV header of 2.
const AUDIO_BYTES: usize = 355;
/// A frame of [`FRAME_BYTES`] without its audio: 46.875 / 30 packets.
const VIDEO_BYTES: usize = 10_445;
const PACKETS: usize = 10;
const PACKET_BYTES: usize = 1_100;
const RTP_HEADER_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmerged_floor_sends_the_same_bytes_in_more_writes() {
        let per_second = |writes: &[PeriodicWrite]| {
            let bytes: f64 = writes.iter().map(|w| w.per_second * w.bytes as f64).sum();
            (bytes, writes.iter().map(|w| w.per_second).sum::<f64>())
        };
        let ((merged_bytes, merged), (bytes, unmerged)) = (per_second(&MERGED_WRITES), per_second(&UNMERGED_WRITES));
        assert_eq!((merged, unmerged), (30.0, 76.875));
        assert!((bytes / merged_bytes - 1.0).abs() < 0.001, "{bytes} and {merged_bytes} bytes per second");
    }

    #[test]
    fn schedule_calls_each_rate_in_time_order() {
        let rates = UNMERGED_WRITES.map(|w| w.per_second);
        let calls: Vec<_> = Schedule::new(&rates, 5).take_while(|(_, due_ns)| *due_ns < 999_999_000).collect();
        assert!(calls.is_sorted_by_key(|(_, due_ns)| *due_ns));
        let count = |n| calls.iter().filter(|(rate, _)| *rate == n).count();
        assert_eq!((calls[0], calls[1], count(0), count(1)), ((0, 5), (1, 5), 30, 47));
    }
}
