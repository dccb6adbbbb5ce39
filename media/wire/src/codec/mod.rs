//! Codec headers: what a decoder must know before the first frame, read from and written to bytes.
