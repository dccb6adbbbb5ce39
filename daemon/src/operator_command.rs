//! How the operator of this node types a command of this program, for hints in the log.
//!
//! Must not know any command.

use std::path::Path;

/// A command line with a gap for its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperatorCommand(String);

impl OperatorCommand {
    /// As a script that starts this program asks for with `template`, in which `...` stands for the
    /// arguments; else `headwaterd` with the same configuration file.
    pub(crate) fn new(template: Option<String>, config: Option<&Path>) -> Self {
        Self(template.unwrap_or_else(|| match config {
            Some(file) => format!("headwaterd {GAP} --config {}", quoted(&file.to_string_lossy())),
            None => format!("headwaterd {GAP}"),
        }))
    }

    /// The command line with these arguments.
    pub(crate) fn with(&self, arguments: &str) -> String {
        self.0.replacen(GAP, arguments, 1)
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:=@%".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

const GAP: &str = "...";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_names_the_configuration_file_or_follows_the_template() {
        let check = |template: Option<&str>, config: Option<&str>, expected: &str| {
            let command = OperatorCommand::new(template.map(str::to_owned), config.map(Path::new));
            assert_eq!(command.with("app show live"), expected);
        };
        check(None, None, "headwaterd app show live");
        check(None, Some("/etc/node.toml"), "headwaterd app show live --config /etc/node.toml");
        check(None, Some("/tmp/it's mine"), r"headwaterd app show live --config '/tmp/it'\''s mine'");
        check(Some("./headwater ..."), Some("/etc/node.toml"), "./headwater app show live");
        check(Some("./headwater ... --data /srv"), None, "./headwater app show live --data /srv");
    }
}
