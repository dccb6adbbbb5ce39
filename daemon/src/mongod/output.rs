//! What the database writes to its standard output: lines of JSON ("structured logging", MongoDB manual, "Log Messages"), each
//! told again in this daemon's log at its weight, and the last error kept as the reason if it ends.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

/// Listens to one process.
#[derive(Debug, Default)]
pub(crate) struct Output {
    line: Vec<u8>,
    complaint: Complaint,
}

/// The last thing that the process complained of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Complaint(Arc<Mutex<Option<String>>>);

impl Complaint {
    /// In its words.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Output {
    /// Tells whom it will ask for the reason.
    pub(crate) fn complaint(&self) -> Complaint {
        self.complaint.clone()
    }

    /// Takes what was written next, and logs the lines that are whole.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.tell(),
                _ if self.line.len() < MAX_LINE_BYTES => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn tell(&mut self) {
        let line = std::mem::take(&mut self.line);
        let (level, said) = weigh(&String::from_utf8_lossy(&line));
        if said.is_empty() {
            return;
        }
        log::log!(level, err = said.as_str(); "mongod says");
        // What it merely warns of, such as settings of the kernel, is not what it dies of hours later.
        if level == log::Level::Error {
            *self.complaint.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        }
    }
}

/// How much a line weighs, and what it says.
fn weigh(line: &str) -> (log::Level, String) {
    #[derive(Deserialize)]
    struct Line {
        s: String,
        msg: String,
        #[serde(default)]
        attr: serde_json::Map<String, serde_json::Value>,
    }
    let Ok(Line { s, msg, attr }) = serde_json::from_str(line) else {
        // Before it has its log it writes plain text: why it does not start.
        return (log::Level::Error, cut(line.trim()));
    };
    let level = match s.as_str() {
        "F" | "E" => log::Level::Error,
        "W" => log::Level::Warn,
        _ => log::Level::Debug,
    };
    let said = if attr.is_empty() { msg } else { format!("{msg}: {}", serde_json::Value::from(attr)) };
    (level, cut(&said))
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_SAID_CHARS).collect()
}

const MAX_LINE_BYTES: usize = 64 * 1024;
const MAX_SAID_CHARS: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_weighs_what_the_database_says_it_weighs() {
        let check = |line: &str, level: log::Level, said: &str| {
            assert_eq!(weigh(line), (level, said.to_owned()), "{line}");
        };
        let full = r#"{"t":{"$date":"2026-11-26T10:00:00Z"},"s":"E","c":"STORAGE","id":1,"ctx":"main","msg":"No space","attr":{"error":"28"}}"#;
        check(full, log::Level::Error, r#"No space: {"error":"28"}"#);
        check(r#"{"s":"F","msg":"Aborting"}"#, log::Level::Error, "Aborting");
        check(r#"{"s":"W","msg":"Slow"}"#, log::Level::Warn, "Slow");
        check(r#"{"s":"I","msg":"Connection accepted"}"#, log::Level::Debug, "Connection accepted");
        check("Error parsing YAML config file", log::Level::Error, "Error parsing YAML config file");
    }

    #[test]
    fn lines_come_in_pieces_and_the_last_error_is_kept() {
        let mut output = Output::default();
        output.hear(b"{\"s\":\"W\",\"msg\":\"vm.max_map_count is too low\"}\n");
        assert_eq!(output.complaint().take(), None);
        output.hear(b"{\"s\":\"E\",\"msg\":\"Disk ");
        output.hear(b"full\"}\n{\"s\":\"W\",\"msg\":\"Slow\"}\n{\"s\":\"I\",\"msg\":\"Now exiting\"}\n\n");
        assert_eq!(output.complaint().take().as_deref(), Some("Disk full"));
        output.hear(&vec![b'x'; 2 * MAX_LINE_BYTES]);
        output.hear(b"\n");
        assert_eq!(output.complaint().take().map(|said| said.len()), Some(MAX_SAID_CHARS));
    }
}
