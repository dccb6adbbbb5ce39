//! Publishers whose decoder configuration is as long as a message may be. Each new viewer would get
//! it.

use anyhow::{Context as _, ensure};
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::wait;

use crate::attacker::{attacker, connect_from};
use crate::target::{Setup, Target};

/// Body of an AVC sequence header (Video File Format Specification 10.1, §E.4.3.1) whose only SPS
/// begins like that of a 4.0 stream and ends with this byte; `padding` bytes follow the record.
pub(super) fn avc_header(last: u8, padding: usize) -> Vec<u8> {
    let sps = [0x67, 66, 0, 31, last];
    let record = [&[1, 66, 0, 31, 0xff, 0xe1, 0, 5][..], &sps, &[1, 0, 1, 0x68]].concat();
    [&[0x17, 0, 0, 0, 0][..], &record, &vec![0; padding]].concat()
}

pub(super) fn large(setup: &Setup, target: &mut Target) -> anyhow::Result<String> {
    const BYTES: usize = 4 << 20;
    let publishers = setup.scale(8, 64);
    target.withstand(|node| {
        let mut refused = 0;
        for n in 0..publishers {
            let id = format!("large-{n}");
            let mut publisher =
                RtmpClient::publisher_on(connect_from(attacker(n), node.rtmp())?, "live", &id).context("publish")?;
            publisher.send_video(0, avc_header(1, BYTES).into())?;
            let name = format!("live/{id}");
            let noticed = wait::until("a notice about the configuration", || {
                let status = node.status(&name).ok()??;
                status.notices.into_iter().map(|n| n.message).find(|m| m.contains("header of"))
            })?;
            ensure!(noticed.contains("at most 65536"), "{noticed}");
            let status = node.status(&name)?.context("the stream has ended")?;
            ensure!(status.video.is_none(), "a configuration of {BYTES} bytes is used");
            refused += 1;
        }
        Ok(format!("{refused} configurations of {BYTES} bytes refused"))
    })
}
