//! HLS and LL-HLS out.
