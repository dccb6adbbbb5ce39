//! STUN binding requests and responses: none is verified without knowledge of the password.

use headwater_wire::webrtc::{BindingRequest, BindingResponse, Credentials, DatagramKind};

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let _ = DatagramKind::of(data);
    let Ok(provider) = rtc_crypto::default_provider() else { return };
    if let Ok(mut response) = BindingResponse::parse(data) {
        let _ = response.transaction();
        assert!(response.verify("a password no input can know", provider.crypto()).is_err());
    }
    let Ok(mut request) = BindingRequest::parse(data) else { return };
    let _ = (request.receiver_ufrag(), request.transaction());
    let local = Credentials { ufrag: "evtj".to_owned(), password: "a password no input can know".to_owned() };
    assert!(request.verify(&local, "h6vY", provider.crypto()).is_err());
    let _ = request.response(([192, 0, 2, 1], 9).into(), &local, provider.crypto());
}
