//! The destination of log lines: journald with fields under systemd, else text on standard error.

use std::io::Write as _;

use log::{LevelFilter, Log, Metadata, Record};

/// Installs the logger of this process. `HEADWATER_LOG` sets the level; the default is `info`.
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
        record.key_values().visit(&mut FieldWriter(out)).map_err(std::io::Error::other)?;
        writeln!(out)
    });
    set(builder.build());
}

fn set(logger: impl Log + 'static) {
    let level = configured_level();
    // A second call has no effect: the first logger stays installed.
    if log::set_boxed_logger(Box::new(LevelFilteredLogger { level, logger })).is_ok() {
        log::set_max_level(level);
    }
}

/// Applies the configured level to this project's crates, and passes only warnings and errors of
/// libraries.
struct LevelFilteredLogger<L> {
    level: LevelFilter,
    logger: L,
}

impl<L: Log> Log for LevelFilteredLogger<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= max_level(self.level, metadata.target())
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

/// The most verbose level that passes for a target.
fn max_level(level: LevelFilter, target: &str) -> LevelFilter {
    match target {
        _ if target.starts_with(FIRST_PARTY_PREFIX) => level,
        // They warn about any malformed packet from the network; the gateway counts those.
        _ if target.starts_with(WEBRTC_LIBRARY_PREFIX) => level.min(LevelFilter::Error),
        _ => level.min(LevelFilter::Warn),
    }
}

const FIRST_PARTY_PREFIX: &str = "headwater";
const WEBRTC_LIBRARY_PREFIX: &str = "rtc_";

#[expect(clippy::disallowed_methods, reason = "the only setting that is needed before the configuration is read")]
fn configured_level() -> LevelFilter {
    std::env::var("HEADWATER_LOG").ok().and_then(|s| s.parse().ok()).unwrap_or(LevelFilter::Info)
}

struct FieldWriter<'a>(&'a mut env_logger::fmt::Formatter);

impl<'kvs> log::kv::VisitSource<'kvs> for FieldWriter<'_> {
    fn visit_pair(&mut self, key: log::kv::Key<'kvs>, value: log::kv::Value<'kvs>) -> Result<(), log::kv::Error> {
        write!(self.0, " {key}={value}").map_err(log::kv::Error::boxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_log_only_warnings_and_webrtc_libraries_only_errors() {
        assert_eq!(max_level(LevelFilter::Debug, "headwater_engine::hub"), LevelFilter::Debug);
        assert_eq!(max_level(LevelFilter::Debug, "headwaterd::boot"), LevelFilter::Debug);
        assert_eq!(max_level(LevelFilter::Trace, "hyper::proto"), LevelFilter::Warn);
        assert_eq!(max_level(LevelFilter::Trace, "rtc_dtls::handshake"), LevelFilter::Error);
        assert_eq!(max_level(LevelFilter::Off, "hyper::proto"), LevelFilter::Off);
    }
}
