//! Clients that make the node write log lines: refused publishes, and configurations that change
//! with every message.

use anyhow::ensure;
use headwater_tests::rtmp::RtmpClient;

use super::decoder_configuration::avc_header;
use crate::attacker::{attacker, connect_from};
use crate::target::{Setup, Target};

/// A client may cause 100 lines of each kind in ten seconds; there are a few kinds.
const MAX_LINES: usize = 450;

/// `publish ""` again and again from one address.
pub(super) fn unnamed_publishes(setup: &Setup, target: &mut Target) -> anyhow::Result<String> {
    let attempts = setup.scale(1_000, 10_000);
    target.withstand(|node| {
        let before = node.line_count();
        for _ in 0..attempts {
            let result = RtmpClient::publisher_on(connect_from(attacker(0), node.rtmp())?, "live", "");
            ensure!(result.is_err(), "a stream without a name is accepted");
        }
        let lines = node.line_count() - before;
        // A long run takes more than one period of the limit.
        ensure!(lines <= setup.scale(MAX_LINES, attempts), "{lines} log lines for {attempts} attempts");
        Ok(format!("{attempts} refused, {lines} log lines"))
    })
}

/// Two decoder configurations in turns.
pub(super) fn alternating_configurations(setup: &Setup, target: &mut Target) -> anyhow::Result<String> {
    let messages = setup.scale(10_000_u32, 100_000);
    target.withstand(|node| {
        let before = node.line_count();
        let socket = connect_from(attacker(0), node.rtmp())?;
        let mut publisher = RtmpClient::publisher_on(socket, "live", "alternating")?;
        for n in 0..messages {
            if publisher.send_video(n, avc_header((n % 2) as u8, 0).into()).is_err() {
                break;
            }
        }
        drop(publisher);
        let lines = node.line_count() - before;
        ensure!(lines <= setup.scale(MAX_LINES, messages as usize / 10), "{lines} log lines for {messages} messages");
        Ok(format!("{messages} configurations, {lines} log lines"))
    })
}
