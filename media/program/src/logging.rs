//! Where log lines go: journald fields under systemd, readable lines on a terminal.

use std::io::Write as _;

/// Installs the logger of this process. `HEADWATER_LOG` chooses the level (`info` unless it says otherwise).
pub fn install() {
    if systemd_journal_logger::connected_to_journal()
        && let Ok(journal) = systemd_journal_logger::JournalLog::new()
        && journal.install().is_ok()
    {
        log::set_max_level(level());
        return;
    }
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Warn).filter_module("headwater", level()).format(|out, record| {
        write!(out, "{} {:5} {}", out.timestamp_millis(), record.level(), record.args())?;
        record.key_values().visit(&mut Fields(out)).map_err(std::io::Error::other)?;
        writeln!(out)
    });
    // A second call is harmless: the first logger stays.
    let _ = builder.try_init();
}

#[expect(clippy::disallowed_methods, reason = "the one setting that is needed before a configuration can be read")]
fn level() -> log::LevelFilter {
    std::env::var("HEADWATER_LOG").ok().and_then(|s| s.parse().ok()).unwrap_or(log::LevelFilter::Info)
}

struct Fields<'a>(&'a mut env_logger::fmt::Formatter);

impl<'kvs> log::kv::VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: log::kv::Key<'kvs>, value: log::kv::Value<'kvs>) -> Result<(), log::kv::Error> {
        write!(self.0, " {key}={value}").map_err(log::kv::Error::boxed)
    }
}
