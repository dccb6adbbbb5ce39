//! Where log lines go: journald fields under systemd, readable lines on a terminal.

use std::io::Write as _;

use log::{LevelFilter, Log, Metadata, Record};

/// Installs the logger of this process. `HEADWATER_LOG` chooses the level (`info` unless it says otherwise).
pub fn install() {
    if systemd_journal_logger::connected_to_journal()
        && let Ok(journal) = systemd_journal_logger::JournalLog::new()
    {
        set(journal);
        return;
    }
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Trace).format(|out, record| {
        write!(out, "{} {:5} {}", out.timestamp_millis(), record.level(), record.args())?;
        record.key_values().visit(&mut Fields(out)).map_err(std::io::Error::other)?;
        writeln!(out)
    });
    set(builder.build());
}

fn set(logger: impl Log + 'static) {
    let ours = level();
    // A second call is harmless: the first logger stays.
    if log::set_boxed_logger(Box::new(Chosen { ours, logger })).is_ok() {
        log::set_max_level(ours);
    }
}

/// Lets through what our rooms say at their level, and of libraries only what is wrong.
struct Chosen<L> {
    ours: LevelFilter,
    logger: L,
}

impl<L: Log> Log for Chosen<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= most(self.ours, metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.logger.log(record);
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// The least urgent lines that pass.
fn most(ours: LevelFilter, target: &str) -> LevelFilter {
    match target {
        _ if target.starts_with(OURS) => ours,
        // They warn of what any stranger sends; the gateway counts it.
        _ if target.starts_with(HANDSHAKES) => ours.min(LevelFilter::Error),
        _ => ours.min(LevelFilter::Warn),
    }
}

const OURS: &str = "headwater";
const HANDSHAKES: &str = "rtc_";

#[expect(clippy::disallowed_methods, reason = "the one setting that is needed before a configuration can be read")]
fn level() -> LevelFilter {
    std::env::var("HEADWATER_LOG").ok().and_then(|s| s.parse().ok()).unwrap_or(LevelFilter::Info)
}

struct Fields<'a>(&'a mut env_logger::fmt::Formatter);

impl<'kvs> log::kv::VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: log::kv::Key<'kvs>, value: log::kv::Value<'kvs>) -> Result<(), log::kv::Error> {
        write!(self.0, " {key}={value}").map_err(log::kv::Error::boxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_heard_when_something_is_wrong_and_those_that_strangers_speak_to_less() {
        assert_eq!(most(LevelFilter::Debug, "headwater_engine::hub"), LevelFilter::Debug);
        assert_eq!(most(LevelFilter::Debug, "headwaterd::boot"), LevelFilter::Debug);
        assert_eq!(most(LevelFilter::Trace, "hyper::proto"), LevelFilter::Warn);
        assert_eq!(most(LevelFilter::Trace, "rtc_dtls::handshake"), LevelFilter::Error);
        assert_eq!(most(LevelFilter::Off, "hyper::proto"), LevelFilter::Off);
    }
}
