//! Rules for names: no coined type names, time constants named for their purpose, short test names.

use crate::files::{Source, assert_no_faults, rust_sources};
use crate::lexer::code_only;

/// Type names that do not describe what they name.
const BANNED_TYPE_NAMES: &[&str] = &[
    "Place", "Held", "Kept", "Known", "Wanted", "Way", "Told", "Ears", "Farewell", "Patience", "Standing", "Outlook",
    "Calm", "Wish", "Heart", "News",
];

/// One of these words is part of the name of every `Duration` constant, as in `CONNECT_TIMEOUT` or
/// `MAX_BACKOFF`.
const TIME_WORDS: &[&str] = &[
    "TIMEOUT",
    "INTERVAL",
    "DELAY",
    "PERIOD",
    "LEASE",
    "MAX",
    "MIN",
    "AGE",
    "TTL",
    "WINDOW",
    "DURATION",
    "JITTER",
    "GRACE",
    "TOLERANCE",
    "BACKOFF",
    "DEADLINE",
    "LATENCY",
];

/// Words that no constant has in its name: a time-out is a `*_TIMEOUT`.
const BANNED_CONSTANT_WORDS: &[&str] = &["PATIENCE", "FAREWELL"];

const MAX_TEST_NAME_CHARS: usize = 80;

/// The identifier after the keyword at the start of a declaration, with what precedes the keyword
/// skipped.
fn declared<'a>(line: &'a str, keywords: &[&str]) -> Option<(&'a str, &'a str)> {
    let mut rest = line.trim_start();
    loop {
        let (word, after) = split_word(rest);
        if keywords.contains(&word) {
            let name = after.trim_start();
            let name = name.strip_prefix("mut ").unwrap_or(name).trim_start();
            let (name, after) = split_word(name);
            return (!name.is_empty()).then_some((name, after));
        }
        rest = match word {
            // The visibility may be restricted: `pub(crate)`.
            "pub" if after.starts_with('(') => after.split_once(')')?.1.trim_start(),
            "pub" | "async" | "const" | "unsafe" | "extern" | "default" => after.trim_start(),
            _ => return None,
        };
    }
}

fn split_word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()))
}

fn check_type_names(source: &Source, faults: &mut Vec<String>) {
    for (number, line) in (1..).zip(code_only(&source.text).lines()) {
        let name = declared(line, &["struct", "enum", "trait", "type", "union"]).map(|(name, _)| name);
        if let Some(name) = name.filter(|name| BANNED_TYPE_NAMES.contains(name)) {
            faults.push(format!("{}:{number}: the type name {name} is banned: name what the type is", source.path));
        }
    }
}

fn check_constant_names(source: &Source, faults: &mut Vec<String>) {
    for (number, line) in (1..).zip(code_only(&source.text).lines()) {
        let Some((name, after)) = declared(line, &["const", "static"]) else { continue };
        let says_time = name.split('_').any(|word| TIME_WORDS.contains(&word));
        let type_name = after.trim_start_matches([':', ' ']).trim_start_matches("std::time::");
        let is_duration = split_word(type_name).0 == "Duration";
        let at = format!("{}:{number}: the constant {name}", source.path);
        if BANNED_CONSTANT_WORDS.iter().any(|word| name.contains(word)) {
            faults.push(format!("{at} has a banned name: a time-out is named *_TIMEOUT"));
        } else if is_duration && !says_time {
            faults.push(format!("{at} is a Duration: its name needs one of {}", TIME_WORDS.join(", ")));
        }
    }
}

fn check_test_names(source: &Source, faults: &mut Vec<String>) {
    let code = code_only(&source.text);
    let mut is_test = false;
    for (number, line) in (1..).zip(code.lines()) {
        let line = line.trim();
        if let Some(attribute) = line.strip_prefix("#[") {
            let name = attribute.split(['(', ']']).next().unwrap_or_default();
            is_test |= name == "test" || name.ends_with("::test");
        } else if let Some((name, _)) = declared(line, &["fn"]) {
            let length = name.chars().count();
            if is_test && length > MAX_TEST_NAME_CHARS {
                let path = &source.path;
                faults.push(format!(
                    "{path}:{number}: test name of {length} characters (max {MAX_TEST_NAME_CHARS}): {name}"
                ));
            }
            is_test = false;
        }
    }
}

fn faults_in_repository(check: fn(&Source, &mut Vec<String>)) -> Vec<String> {
    let mut faults = Vec::new();
    rust_sources().iter().for_each(|source| check(source, &mut faults));
    faults
}

fn faults_in(text: &str, check: fn(&Source, &mut Vec<String>)) -> usize {
    let mut faults = Vec::new();
    check(&Source { path: "x.rs".to_owned(), text: text.to_owned() }, &mut faults);
    faults.len()
}

#[test]
fn no_type_has_a_banned_name() {
    assert_no_faults(&faults_in_repository(check_type_names));
}

#[test]
fn constants_for_times_say_what_they_are() {
    assert_no_faults(&faults_in_repository(check_constant_names));
}

#[test]
fn test_names_have_at_most_80_characters() {
    assert_no_faults(&faults_in_repository(check_test_names));
}

#[test]
fn banned_type_name_is_found() {
    for text in ["struct Place;", "pub(crate) enum Told {", "    pub type News = u8;", "unsafe trait Heart {}"] {
        assert_eq!(faults_in(text, check_type_names), 1, "{text}");
    }
    for text in ["struct Placement;", "// struct Place;", "let a = \"struct Place;\";", "fn place(place: Placement) {"]
    {
        assert_eq!(faults_in(text, check_type_names), 0, "{text}");
    }
}

#[test]
fn duration_constant_without_a_word_for_time_is_found() {
    for text in [
        "const SOON: Duration = Duration::from_secs(1);",
        "pub(crate) static PAUSE: std::time::Duration = X;",
        "    pub const TIMEOUTS: Duration = X;",
        "const FAREWELL: u64 = 1;",
        "const READ_PATIENCE: u64 = 1;",
    ] {
        assert_eq!(faults_in(text, check_constant_names), 1, "{text}");
    }
    for text in [
        "const READ_TIMEOUT: Duration = Duration::from_secs(1);",
        "pub const MAX_PAUSE: Duration = X;",
        "const fn pause() -> Duration {",
        "const SOON: u64 = 1;",
        "// const SOON: Duration",
    ] {
        assert_eq!(faults_in(text, check_constant_names), 0, "{text}");
    }
}

#[test]
fn long_test_name_is_found() {
    let long = "a".repeat(MAX_TEST_NAME_CHARS + 1);
    for attribute in ["#[test]", "#[tokio::test(start_paused = true)]", "#[test]\n#[ignore = \"slow\"]"] {
        assert_eq!(faults_in(&format!("{attribute}\nasync fn {long}() {{}}"), check_test_names), 1, "{attribute}");
    }
    let short = "a".repeat(MAX_TEST_NAME_CHARS);
    for text in [format!("#[test]\nfn {short}() {{}}"), format!("#[test]\nfn a() {{}}\nfn {long}() {{}}")] {
        assert_eq!(faults_in(&text, check_test_names), 0, "{text}");
    }
}
