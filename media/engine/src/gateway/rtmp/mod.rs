//! RTMP in and out.
