//! Makes the served page and module from those that are for reading, and fails if they are not up to date. To write
//! them: `make page`.
//!
//! It takes out comments, indentation and needless spaces. Names and the lines of a script stay as they are, so that
//! what is served can still be read.
//!
//! It knows only what these two files need. In scripts: a comment has a line of its own; no template literal within a
//! template literal or over several lines; no space and no quotation mark in a regular expression; no line begins with
//! `(`, `[` or an operator, since a line end stands for a semicolon.

use std::{env, fs};

use slotcast::page::{HTML, MODULE};

/// A line end means nothing after one of these, nor before its counterpart.
const OPENING: [char; 4] = ['{', '(', '[', ','];
const CLOSING: [char; 3] = ['}', ')', ']'];

/// Minifies a page: its style, its script, and lines of HTML that may be joined into one.
fn page(source: &str) -> String {
    let (mut minified, mut rest) = (String::new(), source);
    for (open, close, minify) in
        [("<style>\n", "</style>", style as fn(&str) -> String), ("<script type=\"module\">\n", "</script>", script)]
    {
        let (before, opened) = rest.split_once(open).expect(open);
        let (inner, after) = opened.split_once(close).expect(close);
        minified.extend(before.lines().map(str::trim));
        minified.push_str(&format!("{}{}{close}", open.trim_end(), minify(inner)));
        rest = after;
    }
    minified.extend(rest.lines().map(str::trim));
    minified + "\n"
}

fn style(source: &str) -> String {
    let mut minified = source.split_whitespace().collect::<Vec<_>>().join(" ");
    for mark in ["{", "}", ";", ","] {
        minified = minified.replace(&format!(" {mark}"), mark).replace(&format!("{mark} "), mark);
    }
    minified.replace(": ", ":").replace(";}", "}")
}

fn script(source: &str) -> String {
    let mut minified = String::new();
    for line in source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
        if !minified.is_empty() && !minified.ends_with(OPENING) && !line.starts_with(CLOSING) {
            minified.push('\n');
        }
        push_line(&mut minified, line);
    }
    minified
}

/// Appends a line without the spaces next to punctuation, outside of strings.
fn push_line(minified: &mut String, line: &str) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let (mut quote, mut characters) = (None, line.chars().peekable());
    while let Some(c) = characters.next() {
        match (quote, c) {
            (None, ' ') => {
                if minified.ends_with(is_word) && characters.peek().copied().is_some_and(is_word) {
                    minified.push(' ');
                }
                continue;
            }
            (None, '\'' | '"' | '`') => quote = Some(c),
            (Some(_), '\\') => {
                minified.push(c);
                minified.extend(characters.next());
                continue;
            }
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
        minified.push(c);
    }
    assert_eq!(quote, None, "a string that does not end on its line: {line}");
}

#[test]
fn what_is_served_is_what_can_be_read() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/page/");
    for (served, minified, name) in [
        (HTML, page(include_str!("../src/page/page.html")), "page.min.html"),
        (MODULE, script(include_str!("../src/page/slotcast.js")) + "\n", "slotcast.min.js"),
    ] {
        if env::var_os("WRITE_SERVED").is_some() {
            fs::write(format!("{directory}{name}"), minified).unwrap();
        } else {
            assert!(served == minified, "{name} is out of date; run make page");
        }
    }
}

#[test]
fn strings_stay_and_spaces_go() {
    for (line, expected) in [
        ("const a = b ? 'c ? d' : `e + ${f} = `", "const a=b?'c ? d':`e + ${f} = `"),
        ("return typeof a == \"it's\" // no", "return typeof a==\"it's\"//no"),
        ("let { a } = b, c = 'it\\'s  {' + d", "let{a}=b,c='it\\'s  {'+d"),
        ("for (const a of ['b']) a in b || new Set", "for(const a of['b'])a in b||new Set"),
    ] {
        let mut minified = String::new();
        push_line(&mut minified, line);
        assert_eq!(minified, expected);
    }
    let source = "// why\nf(() => {\n  a = [\n    1,\n  ]\n\n  b()\n})\nc()\n";
    assert_eq!(script(source), "f(()=>{a=[1,]\nb()})\nc()");
    assert_eq!(
        style("a, b {\n  margin: 0 1px; color: red;\n}\nc :focus { top: 0 }\n"),
        "a,b{margin:0 1px;color:red}c :focus{top:0}"
    );
}
