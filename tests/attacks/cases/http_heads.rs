//! Request heads that a strict server must refuse (RFC 9112), from many connections.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, ensure};

use crate::attacker::{attacker, connect_from};
use crate::target::{Setup, Target};

/// Requests, and the status codes of which one is the answer; none: the connection is closed.
fn heads() -> Vec<(Vec<u8>, &'static [&'static str])> {
    let text = |s: &str| s.as_bytes().to_vec();
    vec![
        (text("GET / HTTP/1.1\r\nconnection: close\r\n\r\n"), &["400"]),
        (text("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n"), &["400"]),
        (text("GET http://a/ HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n"), &["400"]),
        (text("GET / HTTP/1.1\nhost: a\n\n"), &["400"]),
        (text("GET / HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n"), &["400"]),
        (text("GET / HTTP/9.9\r\nhost: a\r\n\r\n"), &["400", "505"]),
        (text("\0\0\0\0\r\n\r\n"), &["400"]),
        (text("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"), &["400"]),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(100_000)).into_bytes(), &["431"]),
        (format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(100_000)).into_bytes(), &["414", "431"]),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(500)).into_bytes(), &["431"]),
    ]
}

pub(super) fn malformed(setup: &Setup, target: &mut Target) -> anyhow::Result<String> {
    let rounds = setup.scale(50, 500);
    target.withstand(|node| {
        let heads = heads();
        for round in 0..rounds {
            for (n, (head, expected)) in heads.iter().enumerate() {
                let mut socket = connect_from(attacker(round * heads.len() + n), node.http())?;
                // The server may close before it has read everything.
                let _ = socket.write_all(head);
                let mut response = Vec::new();
                socket.read_to_end(&mut response).with_context(|| format!("head {n}: the connection is not closed"))?;
                let line = String::from_utf8_lossy(&response).lines().next().unwrap_or_default().to_owned();
                let status = line.split(' ').nth(1).unwrap_or_default();
                ensure!(expected.contains(&status), "head {n}: {line:?} instead of {expected:?}");
            }
        }
        Ok(format!("{} heads refused", rounds * heads.len()))
    })
}
