//! The handshake, the records and the messages of the relay protocol: accepted messages round-trip,
//! and no input is authentic.

use bytes::Bytes;
use headwater_wire::relay::{ClientHandshake, ClusterSecret, MessageReader, ServerHandshake};

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let mut messages = MessageReader::new(Bytes::copy_from_slice(data));
    while let Ok(Some(message)) = messages.next_message() {
        // An accepted message round-trips.
        let mut out = bytes::BytesMut::new();
        message.write(&mut out);
        assert_eq!(MessageReader::new(out.freeze()).next_message(), Ok(Some(message)));
    }
    let secret = ClusterSecret::new(b"a secret of the cluster").unwrap();
    let (client, hello) = ClientHandshake::new(&secret, [1; 32]);
    let (server, server_hello) = ServerHandshake::new(&secret, [2; 32], &hello).unwrap();
    if let Some(bytes) = data.first_chunk() {
        let _ = ServerHandshake::new(&secret, [2; 32], bytes);
    }
    let client = match data.first_chunk() {
        Some(bytes) => match client.on_server_hello(bytes) {
            Ok(_) => panic!("a forged server hello was accepted"),
            Err(_) => ClientHandshake::new(&secret, [1; 32]).0,
        },
        None => client,
    };
    let (proof, _) = client.on_server_hello(&server_hello).unwrap();
    let mut opener = server.on_proof(&proof).unwrap().opener;
    opener.buffer().extend_from_slice(data);
    while let Ok(Some(_)) = opener.next_record() {}
}
