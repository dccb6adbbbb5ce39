//! headwaterd.
fn main() {}
