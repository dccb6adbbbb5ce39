//! RTP: frames become equal-sized payloads (RFC 3550, RFC 6184, RFC 7587).
