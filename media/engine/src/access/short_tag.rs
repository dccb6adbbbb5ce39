//! Message authentication codes of 16 bytes: the first half of an HMAC-SHA256 (RFC 2104 §5). Media
//! playlists contain dozens of them.

use std::hint::black_box;

use ring::hmac;

/// Length of a code.
pub(super) const TAG_BYTES: usize = 16;

/// The code of these parts, one after another.
pub(super) fn short_tag(key: &hmac::Key, parts: &[&[u8]]) -> [u8; TAG_BYTES] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&context.sign().as_ref()[..TAG_BYTES]);
    tag
}

/// True if `presented` is the code of these parts. Takes the same time for any code.
pub(super) fn is_short_tag(key: &hmac::Key, parts: &[&[u8]], presented: &[u8; TAG_BYTES]) -> bool {
    let expected = short_tag(key, parts);
    let difference = expected.iter().zip(presented).fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
    difference == 0
}
