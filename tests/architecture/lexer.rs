//! Separates the code of a Rust file from its comments and literals, as far as the rules need it.

/// Returns `text` with comments and string and character literals replaced by spaces. Lines keep
/// their numbers and their lengths in characters.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Index after the comment or literal that starts at `at`, or `at` if none starts there.
fn literal_or_comment_end(chars: &[char], at: usize) -> usize {
    let next = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
    match chars[at] {
        '/' if next(1) == '/' => position(chars, at, |c| c == '\n'),
        '/' if next(1) == '*' => block_comment_end(chars, at),
        '"' => quoted_end(chars, at, '"'),
        // A quote that is neither followed by an escape nor closed after one character begins a
        // lifetime.
        '\'' if next(1) == '\\' || next(2) == '\'' => quoted_end(chars, at, '\''),
        'r' if !follows_identifier(chars, at) => raw_string_end(chars, at),
        _ => at,
    }
}

/// True if the character before `at` continues an identifier; the prefixes of `br"…"` and `cr"…"`
/// do not count.
fn follows_identifier(chars: &[char], at: usize) -> bool {
    let word = |at: usize| chars.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_');
    let prefixed = at > 0 && matches!(chars[at - 1], 'b' | 'c');
    let start = if prefixed { at - 1 } else { at };
    start > 0 && word(start - 1)
}

fn position(chars: &[char], from: usize, is_end: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|c| is_end(*c)).map_or(chars.len(), |n| from + n)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_u32);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `start` if the `r` there does not begin a raw string.
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let quote = position(chars, start + 1, |c| c != '#');
    let hashes = quote - start - 1;
    if chars.get(quote) != Some(&'"') {
        return start;
    }
    let closes =
        |at: usize| chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (quote + 1..chars.len()).find(|at| closes(*at)).map_or(chars.len(), |at| at + 1 + hashes)
}

#[test]
fn comments_and_literals_are_blanked_and_lines_kept() {
    let check = |text: &str, expected: &str| {
        let code = code_only(text);
        assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{text}");
        assert_eq!(code.lines().count(), text.lines().count(), "{text}");
    };
    check("let a = 1; // {", "let a = 1;");
    check("/* { /* { */ { */ fn f() {}", "fn f() {}");
    check("f(\"}\\\"}\"); g()", "f( ); g()");
    check("f(r#\"\"}\"#, br\"}\", b\"}\");", "f( , b , b );");
    check("f('{', '\\'', '\\u{7d}'); fn g<'a>(x: &'a str) {}", "f( , , ); fn g<'a>(x: &'a str) {}");
    check("let var\n= \"a\n{\nb\";", "let var = ;");
    check("r#type(for_r\"}\")", "r#type(for_r )");
}
