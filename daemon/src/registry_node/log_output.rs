//! Forwards mongod's standard output, lines of JSON ("structured logging", MongoDB manual, "Log
//! Messages"), to the daemon's log, and keeps the last error as the reason if it exits.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

/// Forwards the output of one process.
#[derive(Debug, Default)]
pub(crate) struct LogForwarder {
    line: Vec<u8>,
    last_error: LastError,
}

/// The last error that the process logged.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastError(Arc<Mutex<Option<String>>>);

impl LastError {
    /// Takes the text of the error.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl LogForwarder {
    /// Returns a handle to the last error.
    pub(crate) fn last_error(&self) -> LastError {
        self.last_error.clone()
    }

    /// Accepts the next bytes, and logs each complete line.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.log_line(),
                _ if self.line.len() < MAX_LINE_BYTES => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn log_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let (level, message) = parse_line(&String::from_utf8_lossy(&line));
        if message.is_empty() {
            return;
        }
        log::log!(level, err = message.as_str(); "mongod log");
        // A warning, for example about kernel settings, is not the reason for an exit hours later.
        if level == log::Level::Error {
            *self.last_error.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
        }
    }
}

/// Returns the level and text of a line.
fn parse_line(line: &str) -> (log::Level, String) {
    #[derive(Deserialize)]
    struct Line {
        s: String,
        msg: String,
        #[serde(default)]
        attr: serde_json::Map<String, serde_json::Value>,
    }
    let Ok(Line { s, msg, attr }) = serde_json::from_str(line) else {
        // Until its log is open it writes plain text: the reason why it does not start.
        return (log::Level::Error, truncate(line.trim()));
    };
    let level = match s.as_str() {
        "F" | "E" => log::Level::Error,
        "W" => log::Level::Warn,
        _ => log::Level::Debug,
    };
    let message = if attr.is_empty() { msg } else { format!("{msg}: {}", serde_json::Value::from(attr)) };
    (level, truncate(&message))
}

fn truncate(text: &str) -> String {
    text.chars().take(MAX_MESSAGE_CHARS).collect()
}

const MAX_LINE_BYTES: usize = 64 * 1024;
const MAX_MESSAGE_CHARS: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_keeps_the_severity_of_the_database() {
        let check = |line: &str, level: log::Level, message: &str| {
            assert_eq!(parse_line(line), (level, message.to_owned()), "{line}");
        };
        let full = r#"{"t":{"$date":"2026-11-26T10:00:00Z"},"s":"E","c":"STORAGE","id":1,"ctx":"main","msg":"No space","attr":{"error":"28"}}"#;
        check(full, log::Level::Error, r#"No space: {"error":"28"}"#);
        check(r#"{"s":"F","msg":"Aborting"}"#, log::Level::Error, "Aborting");
        check(r#"{"s":"W","msg":"Slow"}"#, log::Level::Warn, "Slow");
        check(r#"{"s":"I","msg":"Connection accepted"}"#, log::Level::Debug, "Connection accepted");
        check("Error parsing YAML config file", log::Level::Error, "Error parsing YAML config file");
    }

    #[test]
    fn split_lines_are_joined_and_the_last_error_is_kept() {
        let mut output = LogForwarder::default();
        output.push(b"{\"s\":\"W\",\"msg\":\"vm.max_map_count is too low\"}\n");
        assert_eq!(output.last_error().take(), None);
        output.push(b"{\"s\":\"E\",\"msg\":\"Disk ");
        output.push(b"full\"}\n{\"s\":\"W\",\"msg\":\"Slow\"}\n{\"s\":\"I\",\"msg\":\"Now exiting\"}\n\n");
        assert_eq!(output.last_error().take().as_deref(), Some("Disk full"));
        output.push(&vec![b'x'; 2 * MAX_LINE_BYTES]);
        output.push(b"\n");
        assert_eq!(output.last_error().take().map(|message| message.len()), Some(MAX_MESSAGE_CHARS));
    }
}
