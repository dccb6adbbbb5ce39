//! WebRTC out (WHEP).
