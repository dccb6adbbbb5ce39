//! The limit of open files of this process (`RLIMIT_NOFILE`).
//!
//! Service managers and shells start programs with a soft limit of 1,024, for programs that use
//! select(2), and a hard limit that is a hundred times higher. Each connection is an open file.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Returns the limit from now on; children inherit it.
pub fn raise_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return CUSTOMARY_LIMIT };
    // The kernel's own maximum (fs.nr_open) may be below an unlimited hard limit.
    for limit in [hard, hard.min(DEFAULT_NR_OPEN)] {
        if limit > soft && setrlimit(Resource::RLIMIT_NOFILE, limit, hard).is_ok() {
            return limit;
        }
    }
    soft
}

/// The soft limit that Debian gives to a process.
const CUSTOMARY_LIMIT: u64 = 1_024;
/// Default of fs.nr_open, see proc_sys_fs(5).
const DEFAULT_NR_OPEN: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limit_is_raised_to_the_hard_one_and_never_lowered() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(200), hard).unwrap();
        let raised = raise_limit();
        assert_eq!((raised, raise_limit()), (getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, raised));
        assert!(raised == hard || raised == hard.min(DEFAULT_NR_OPEN), "{raised} of {hard}");
    }
}
