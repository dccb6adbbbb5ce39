//! Harness for tests against strangers.
