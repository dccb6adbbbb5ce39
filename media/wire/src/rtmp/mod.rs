//! RTMP as values: AMF0, chunks, messages, FLV tags, and the server session (RTMP 1.0, Enhanced RTMP v2).
