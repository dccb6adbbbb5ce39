//! Clients with addresses of their own, which are not loopback: they have a share of each pool like
//! clients on the internet.

use std::net::Ipv4Addr;

pub(crate) use headwater_tests::tcp::connect_from;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Address of the attacker with this number, below 40,000.
pub(crate) fn attacker(number: usize) -> Ipv4Addr {
    let (high, low) = ((number / 200) as u8, (number % 200) as u8);
    Ipv4Addr::new(10, 99, 1 + high, 1 + low)
}

/// Address of a client that does no harm and comes for the first time; `number` below 200.
pub(crate) fn newcomer(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 250, 1 + number)
}

/// Raises this program's limit of open files to the maximum: attackers need more than most
/// programs.
pub(crate) fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With the old limit, attacks that need more fail.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
