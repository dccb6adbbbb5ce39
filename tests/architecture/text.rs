//! Rules for text: every Rust file has a header, files and functions are short, and comments and
//! Markdown are narrow.

use crate::files::{Source, assert_no_faults, documents, rust_sources};
use crate::lexer::code_only;

const MAX_FILE_LINES: usize = 800;
const MAX_FUNCTION_LINES: usize = 90;
/// Columns of a comment line and of Markdown prose. Code may be wider, as rustfmt allows.
const MAX_TEXT_COLUMNS: usize = 100;

fn check_header(source: &Source, faults: &mut Vec<String>) {
    if !source.text.starts_with("//!") {
        faults.push(format!("{}:1: the file does not begin with a //! header that states its purpose", source.path));
    }
}

fn check_file_length(source: &Source, faults: &mut Vec<String>) {
    let lines = source.text.lines().count();
    if lines > MAX_FILE_LINES {
        faults.push(format!("{}: the file has {lines} lines (max {MAX_FILE_LINES})", source.path));
    }
}

/// Counts the lines of each function from its `fn` to its closing brace.
fn check_function_lengths(source: &Source, faults: &mut Vec<String>) {
    let code = code_only(&source.text);
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let lines = body_end(&code[at..]).map_or(1, |end| 1 + code[at..at + end].matches('\n').count());
        if lines > MAX_FUNCTION_LINES {
            let number = 1 + code[..at].matches('\n').count();
            let path = &source.path;
            faults.push(format!("{path}:{number}: the function {name} has {lines} lines (max {MAX_FUNCTION_LINES})"));
        }
    }
}

/// Offset of the brace that closes the body of the function that begins with `code`, if it has a
/// body.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at),
            '}' => braces = braces.saturating_sub(1),
            // The `;` in `[u8; 4]` does not end a declaration.
            ';' if braces == 0 && brackets == 0 => return None,
            _ => {}
        }
    }
    None
}

fn check_comment_widths(source: &Source, faults: &mut Vec<String>) {
    let mut in_code_block = false;
    for ((number, line), code) in (1..).zip(source.text.lines()).zip(code_only(&source.text).lines()) {
        let is_comment = code.trim().is_empty() && line.trim_start().starts_with("//");
        if !is_comment {
            in_code_block = false;
            continue;
        }
        let text = line.trim_start().trim_start_matches(['/', '!']).trim_start();
        let (is_fence, columns) = (text.starts_with("```"), prose_columns(line));
        in_code_block ^= is_fence;
        if !in_code_block && !is_fence && !text.starts_with('|') && columns > MAX_TEXT_COLUMNS {
            faults.push(format!("{}:{number}: comment of {columns} columns (max {MAX_TEXT_COLUMNS})", source.path));
        }
    }
}

fn check_markdown_widths(document: &Source, faults: &mut Vec<String>) {
    let mut in_code_block = false;
    for (number, line) in (1..).zip(document.text.lines()) {
        let text = line.trim_start();
        let (is_fence, columns) = (text.starts_with("```"), prose_columns(line));
        in_code_block ^= is_fence;
        if !in_code_block && !is_fence && !text.starts_with('|') && columns > MAX_TEXT_COLUMNS {
            faults.push(format!("{}:{number}: text of {columns} columns (max {MAX_TEXT_COLUMNS})", document.path));
        }
    }
}

/// Columns of a line of prose without the targets of its links.
fn prose_columns(line: &str) -> usize {
    let mut columns = line.chars().count();
    let mut rest = line;
    while let Some((_, after)) = rest.split_once("](") {
        let target = after.split(')').next().unwrap_or_default();
        columns -= target.chars().count();
        rest = &after[target.len()..];
    }
    let addresses = line.split(|c: char| c.is_whitespace() || "()<>[]`\"".contains(c));
    let bare = addresses.filter(|word| word.contains("://") && !line.contains(&format!("]({word}")));
    columns - bare.map(|word| word.chars().count()).sum::<usize>()
}

fn faults_in_repository(sources: &[Source], check: fn(&Source, &mut Vec<String>)) -> Vec<String> {
    let mut faults = Vec::new();
    sources.iter().for_each(|source| check(source, &mut faults));
    faults
}

fn faults_in(text: &str, check: fn(&Source, &mut Vec<String>)) -> usize {
    let mut faults = Vec::new();
    check(&Source { path: "x".to_owned(), text: text.to_owned() }, &mut faults);
    faults.len()
}

#[test]
fn every_rust_file_has_a_header() {
    assert_no_faults(&faults_in_repository(&rust_sources(), check_header));
}

#[test]
fn rust_files_have_at_most_800_lines() {
    assert_no_faults(&faults_in_repository(&rust_sources(), check_file_length));
}

#[test]
fn functions_have_at_most_90_lines() {
    assert_no_faults(&faults_in_repository(&rust_sources(), check_function_lengths));
}

#[test]
fn comments_have_at_most_100_columns() {
    assert_no_faults(&faults_in_repository(&rust_sources(), check_comment_widths));
}

#[test]
fn markdown_prose_has_at_most_100_columns() {
    assert_no_faults(&faults_in_repository(&documents(), check_markdown_widths));
}

#[test]
fn missing_header_is_found() {
    assert_eq!(faults_in("use a::b;", check_header), 1);
    assert_eq!(faults_in("//! Purpose.\nuse a::b;", check_header), 0);
}

#[test]
fn long_file_is_found() {
    assert_eq!(faults_in(&"fn f() {}\n".repeat(MAX_FILE_LINES + 1), check_file_length), 1);
    assert_eq!(faults_in(&"fn f() {}\n".repeat(MAX_FILE_LINES), check_file_length), 0);
}

#[test]
fn long_function_is_found() {
    let function = |lines: usize| format!("fn f(a: [u8; 4]) {{\n{}}}\n", "    g(\"}\"); // }\n".repeat(lines - 2));
    assert_eq!(faults_in(&function(MAX_FUNCTION_LINES + 1), check_function_lengths), 1);
    assert_eq!(faults_in(&function(MAX_FUNCTION_LINES).repeat(2), check_function_lengths), 0);
    let nested = format!("mod tests {{\n    {}}}", function(MAX_FUNCTION_LINES + 1));
    assert_eq!(faults_in(&nested, check_function_lengths), 1);
    let declaration = format!("trait A {{\n    fn f(&self);\n{}}}\n", "    const X: u8;\n".repeat(MAX_FUNCTION_LINES));
    assert_eq!(faults_in(&declaration, check_function_lengths), 0);
}

#[test]
fn wide_comment_is_found() {
    let (wide, narrow) = ("a ".repeat(MAX_TEXT_COLUMNS / 2), "a ".repeat(MAX_TEXT_COLUMNS / 2 - 2));
    for text in [format!("// {wide}"), format!("    /// {wide}"), format!("//! ```text\n//! ```\n//! {wide}")] {
        assert_eq!(faults_in(&text, check_comment_widths), 1, "{text}");
    }
    for text in [
        format!("// {narrow}"),
        format!("let a = f(); // {wide}"),
        format!("let a = \"\n// {wide}\";"),
        format!("//! ```text\n//! {wide}\n//! ```"),
        format!("//! | {wide} |"),
        format!("//! See <https://example.org/{}>.", "a".repeat(MAX_TEXT_COLUMNS)),
    ] {
        assert_eq!(faults_in(&text, check_comment_widths), 0, "{text}");
    }
}

#[test]
fn wide_markdown_prose_is_found() {
    let wide = "a ".repeat(MAX_TEXT_COLUMNS / 2 + 1);
    for text in [wide.clone(), format!("- {wide}"), format!("[a](b) {wide}"), format!("```\n```\n{wide}")] {
        assert_eq!(faults_in(&text, check_markdown_widths), 1, "{text}");
    }
    let target = "a".repeat(MAX_TEXT_COLUMNS);
    for text in [
        "a ".repeat(MAX_TEXT_COLUMNS / 2),
        format!("| {wide} |"),
        format!("```\n{wide}\n```"),
        format!("See [this]({target}) and [that](https://{target})."),
        format!("See <https://{target}>."),
    ] {
        assert_eq!(faults_in(&text, check_markdown_widths), 0, "{text}");
    }
}
