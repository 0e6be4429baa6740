//! Bodies as HTML that is safe to show: rendered once, when projected.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use events::post::Format;

/// The HTML of a body, whatever it holds: no script, style, form, event handler or foreign scheme survives.
pub fn html(body: &str, format: Format) -> String {
    let raw = match format {
        Format::Markdown => Cow::Owned(comrak::markdown_to_html(body, &MARKDOWN)),
        Format::Html => Cow::Borrowed(body),
    };
    if let Some(plain) = plain(&raw) {
        return plain;
    }
    let most = MOST_GROWTH * body.len() + 4096;
    // Looked at before it is cleaned, too: that is the slow part.
    if raw.len() <= most && !is_too_deep(&raw) {
        let clean = SANITIZER.clean(&raw).to_string();
        if clean.len() <= most {
            return clean;
        }
    }
    format!("<pre>{}</pre>", escaped(body))
}

/// What the sanitizer would make of paragraphs that hold nothing but text and emphasis, as most posts do, without its
/// parsing them: it takes ten times as long as all the rest. None where there is anything else.
fn plain(html: &str) -> Option<String> {
    // A parser of HTML changes some of these.
    let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\t') || matches!(c, '\u{a0}' | '\u{feff}');
    if html.contains(is_odd) {
        return None;
    }
    let mut plain = String::with_capacity(html.len());
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        let (text, markup) = rest.split_at(at);
        if text.contains('>') {
            return None;
        }
        plain.push_str(text);
        let (markup, after) = markup.split_at(markup.find(['>', ';'])? + 1);
        rest = after;
        match markup {
            // In a text it needs no escape.
            "&quot;" => plain.push('"'),
            "&amp;" | "&lt;" | "&gt;" => plain.push_str(markup),
            "<p>" if open.is_empty() => open.push("p"),
            "<em>" | "<strong>" | "<del>" | "<code>" if !open.is_empty() => {
                let name = &markup[1..markup.len() - 1];
                if open.contains(&name) {
                    return None;
                }
                open.push(name);
            }
            _ if markup.strip_prefix("</")?.strip_suffix('>')? == open.pop()? => {}
            _ => return None,
        }
        if !markup.starts_with('&') {
            plain.push_str(markup);
        }
    }
    plain.push_str(rest);
    (open.is_empty() && !rest.contains('>')).then_some(plain)
}

/// How many times longer than a body its HTML may be: more than honest ones are, links at the worst. A table of one wide
/// row and many short ones is filled up with empty cells, five megabytes of them for eight kilobytes; it is shown as it
/// was written instead.
const MOST_GROWTH: usize = 12;

/// Elements inside one another at most. The parser looks at all that are open for each one it opens: a body made of
/// nothing else would take it minutes, and is shown as it was written instead.
const MOST_DEPTH: usize = 500;

/// Elements that hold nothing, or that end where the next one of their kind begins: no end tag is missed.
const ENDED_WITHOUT_A_TAG: [&str; 29] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr", "colgroup",
    "dd", "dt", "li", "optgroup", "option", "p", "rp", "rt", "tbody", "td", "tfoot", "th", "thead", "tr", "caption",
];

/// Whether more elements are left open than [`MOST_DEPTH`]. An end tag closes only what has its name.
fn is_too_deep(html: &str) -> bool {
    if html.bytes().filter(|byte| *byte == b'<').count() <= MOST_DEPTH {
        return false;
    }
    let mut open: HashMap<String, usize> = HashMap::new();
    let mut depth = 0;
    for tag in html.split('<').skip(1) {
        let (tag, ends) = tag.strip_prefix('/').map_or((tag, false), |tag| (tag, true));
        let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).collect();
        let name = name.to_ascii_lowercase();
        if name.is_empty() || ENDED_WITHOUT_A_TAG.contains(&name.as_str()) {
            continue;
        }
        let open = open.entry(name).or_default();
        if !ends {
            (*open, depth) = (*open + 1, depth + 1);
        } else if *open > 0 {
            (*open, depth) = (*open - 1, depth - 1);
        }
        if depth > MOST_DEPTH {
            return true;
        }
    }
    false
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// `CommonMark` with GitHub's tables, strikethrough, task lists and bare links. HTML in it passes: the sanitizer
/// comes after.
static MARKDOWN: LazyLock<comrak::Options<'static>> = LazyLock::new(|| {
    let mut options = comrak::Options::default();
    options.extension.strikethrough = true;
    options.extension.table = true;
    options.extension.tasklist = true;
    options.extension.autolink = true;
    options.render.r#unsafe = true;
    options
});

static SANITIZER: LazyLock<ammonia::Builder<'static>> = LazyLock::new(|| {
    let mut builder = ammonia::Builder::default();
    builder
        // Links of strangers: no credit from search engines, no hold on the page that opened them.
        .link_rel(Some("nofollow ugc noopener"))
        .url_schemes(HashSet::from(["http", "https", "mailto"]))
        // The check boxes of task lists, which nobody can check.
        .add_tags(["input"])
        .add_tag_attributes("input", ["checked"])
        .set_tag_attribute_value("input", "type", "checkbox")
        .set_tag_attribute_value("input", "disabled", "")
        // The language of a block of code, for a highlighter.
        .add_tag_attributes("code", ["class"])
        .attribute_filter(|element, attribute, value| match (element, attribute) {
            ("code", "class") => value.starts_with("language-").then_some(Cow::Borrowed(value)),
            _ => Some(Cow::Borrowed(value)),
        });
    builder
});

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample};

    use super::*;

    fn markdown(body: &str) -> String {
        html(body, Format::Markdown)
    }

    #[test]
    fn markdown_is_githubs() {
        assert_eq!(markdown("*a* ~~b~~"), "<p><em>a</em> <del>b</del></p>\n");
        assert!(markdown("|a|b|\n|-|-|\n|1|2|").contains("<td>2</td>"));
        assert_eq!(
            markdown("see https://agora.example/x"),
            "<p>see <a href=\"https://agora.example/x\" rel=\"nofollow ugc noopener\">https://agora.example/x</a></p>\n"
        );
        assert_eq!(
            markdown("```rust\nfn f() {}\n```"),
            "<pre><code class=\"language-rust\">fn f() {}\n</code></pre>\n"
        );
        let tasks = markdown("- [x] done\n- [ ] open");
        assert!(
            tasks.contains("type=\"checkbox\"") && tasks.contains("checked") && tasks.contains("disabled"),
            "{tasks}"
        );
    }

    #[test]
    fn html_is_not_many_times_longer_than_what_was_written() {
        let wide = format!("{}\n{}\n{}", vec!["a"; 1000].join("|"), vec!["-"; 1000].join("|"), "a\n".repeat(2000));
        let shown = markdown(&wide);
        assert!(shown.starts_with("<pre>a|a|a") && shown.len() < wide.len() + 100, "{}", shown.len());
        let links = "<http://a.b> ".repeat(1000);
        assert!(markdown(&links).starts_with("<p><a href="), "links are as long as they are");
        let table = format!("|a|b|\n|-|-|\n{}", "|1|2|\n".repeat(1000));
        assert!(markdown(&table).starts_with("<table>"));
    }

    proptest! {
        #[test]
        fn what_is_plain_is_what_the_sanitizer_makes_of_it(
            parts in vec(
                prop_oneof![
                    sample::select(vec![
                        "a", " b ", "\n", "\n\n", "*", "**", "~~", "`", "\"", "'", "&", "&amp;", "&quot;", "<", ">", "<p>",
                        "</p>", "<em>", "</em>", "<code>", "</code>", "<b>", "\t", "\r", "\u{a0}", "\u{c}", "\u{0}", "ß", "- ",
                        "> ", "# ", "\\", ";", "<!--", "-->", "\u{feff}", "\u{85}",
                    ]).prop_map(str::to_owned),
                    any::<char>().prop_map(String::from),
                ],
                0..40,
            ),
        ) {
            let body = parts.concat();
            for raw in [comrak::markdown_to_html(&body, &MARKDOWN), body] {
                if let Some(plain) = plain(&raw) {
                    prop_assert_eq!(plain, SANITIZER.clean(&raw).to_string());
                }
            }
        }
    }

    #[test]
    fn paragraphs_of_text_and_emphasis_are_plain() {
        let body = "He said \"*no*\" & **yes**.\n\n`a < b` ~~or~~ 'not'";
        let raw = comrak::markdown_to_html(body, &MARKDOWN);
        assert_eq!(plain(&raw).as_ref(), Some(&markdown(body)));
        for body in ["<b>a</b>", "[a](/b)", "- a", "a  \nb", "<script>", "www.example.org"] {
            assert_eq!(plain(&comrak::markdown_to_html(body, &MARKDOWN)), None, "{body}");
        }
    }

    #[test]
    fn html_keeps_what_is_harmless() {
        let body = "<p>An <b>old</b> <a href=\"http://example.org/\">link</a> &amp; more</p>";
        let shown =
            "<p>An <b>old</b> <a href=\"http://example.org/\" rel=\"nofollow ugc noopener\">link</a> &amp; more</p>";
        assert_eq!(html(body, Format::Html), shown);
    }

    #[test]
    fn nothing_that_runs_survives() {
        let attacks = [
            "<script>alert(1)</script>",
            "<ScRiPt src=//evil.example></sCrIpT>",
            "<img src=x onerror=alert(1)>",
            "<svg onload=alert(1)><g/onload=alert(2)></svg>",
            "<svg><style><img src=x onerror=alert(1)></style></svg>",
            "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">",
            "<a href=\"javascript:alert(1)\">x</a>",
            "<a href=\" java\nscript:alert(1)\">x</a>",
            "<a href=\"&#106;avascript:alert(1)\">x</a>",
            "<a href=\"data:text/html;base64,PHNjcmlwdD4=\">x</a>",
            "<a href=\"vbscript:x\">x</a>",
            "<iframe srcdoc=\"<script>alert(1)</script>\"></iframe>",
            "<object data=evil.swf></object><embed src=evil.swf>",
            "<form action=//evil.example><input type=password name=p><button>log in</button></form>",
            "<input type=image src=x onerror=alert(1)>",
            "<style>body{background:url(javascript:alert(1))}</style>",
            "<p style=\"position:fixed;inset:0\" onclick=alert(1) id=login class=modal>x</p>",
            "<base href=//evil.example><meta http-equiv=refresh content=\"0;url=//evil.example\"><link rel=stylesheet href=//evil.example>",
            "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
            "<code class=\"modal language-x\">x</code>",
            "[x](javascript:alert(1))",
            "[x](  JaVaScRiPt:alert(1))",
            "![x](javascript:alert(1))",
            "<javascript:alert(1)>",
            "`<script>alert(1)</script>`",
            "```\"onmouseover=alert(1)\nx\n```",
            "[x]: javascript:alert(1)\n\n[x]",
        ];
        let words = [
            "<script",
            "<style",
            "<iframe",
            "<object",
            "<embed",
            "<form",
            "<button",
            "<base",
            "<meta",
            "<link",
            "<svg",
            "<math",
            "href=\"java",
            "href=\"data",
            "href=\"vb",
            "src=\"java",
            " style=",
            " id=",
            "class=\"modal",
            "type=\"password",
            "type=\"image",
            "name=",
        ];
        for attack in attacks {
            for format in [Format::Html, Format::Markdown] {
                let shown = html(attack, format).to_lowercase();
                for word in words {
                    assert!(!shown.contains(word), "{word} survives in {shown} of {attack}");
                }
                // An event handler may survive as text, not as an attribute.
                let mut tags = shown.split('<').skip(1).filter_map(|tag| tag.split_once('>'));
                let handler = |tag: &str| [" on", "/on", "\"on"].iter().any(|start| tag.contains(start));
                assert!(!tags.any(|(tag, _)| handler(tag)), "a handler survives in {shown} of {attack}");
            }
        }
    }

    #[test]
    fn a_body_that_nests_without_end_is_shown_as_it_was_written() {
        for nesting in ["> ", "<div>", "<b class=x>", "<div></x>", "<DIV><span>", "<blockquote><p>"] {
            let body = nesting.repeat(events::limits::BODY_BYTES / nesting.len());
            for format in [Format::Markdown, Format::Html] {
                let shown = html(&body, format);
                assert!(shown.starts_with("<pre>") || shown == escaped(&body), "{nesting} as {format:?}");
            }
        }
    }

    #[test]
    fn a_long_body_that_nests_little_is_shown() {
        for (body, shown) in
            [("<p>a".repeat(5_000), "<p>a</p>"), ("<ul><li>a</ul>".repeat(5_000), "<ul><li>a</li></ul>")]
        {
            assert_eq!(html(&body, Format::Html), shown.repeat(5_000));
        }
        assert_eq!(markdown(&"> a\n\n".repeat(2_000)).matches("<blockquote>").count(), 2_000);
    }
}
