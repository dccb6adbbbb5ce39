//! The relay's handshake, its records, and the messages in them.
#![no_main]

use bytes::Bytes;
use headwater_wire::relay::{Answer, ClusterSecret, Dial, Messages};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut messages = Messages::new(Bytes::copy_from_slice(data));
    while let Ok(Some(message)) = messages.message() {
        // What was read can be written, and reads the same.
        let mut out = bytes::BytesMut::new();
        message.write(&mut out);
        assert_eq!(Messages::new(out.freeze()).message(), Ok(Some(message)));
    }
    let secret = ClusterSecret::new(b"a secret of the cluster").unwrap();
    let (dial, hello) = Dial::new(&secret, [1; 32]);
    let (answer, server) = Answer::new(&secret, [2; 32], &hello).unwrap();
    if let Some(bytes) = data.first_chunk() {
        let _ = Answer::new(&secret, [2; 32], bytes);
    }
    let dial = match data.first_chunk() {
        Some(bytes) => match dial.on_hello(bytes) {
            Ok(_) => panic!("a stranger was believed"),
            Err(_) => Dial::new(&secret, [1; 32]).0,
        },
        None => dial,
    };
    let (proof, _) = dial.on_hello(&server).unwrap();
    let mut open = answer.on_proof(&proof).unwrap().open;
    open.buffer().extend_from_slice(data);
    while let Ok(Some(_)) = open.record() {}
});
