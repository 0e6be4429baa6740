//! What of a text can be seen. A name that looks like another one, and is not, is somebody's trap: so names hold no
//! character that shows nothing, but where a script or an emoji needs one.

use unicode_properties::{GeneralCategory as Category, UnicodeGeneralCategory as _};

/// Letters and a mark that show nothing, though Unicode does not class them with those that do not.
const BLANK_LETTERS: [char; 7] = ['\u{34f}', '\u{115f}', '\u{1160}', '\u{17b4}', '\u{17b5}', '\u{3164}', '\u{ffa0}'];

/// Whether anything of a text can be seen.
pub fn is_visible(text: &str) -> bool {
    text.chars().any(|c| {
        let unseen = matches!(
            c.general_category(),
            Category::Control
                | Category::Format
                | Category::Unassigned
                | Category::SpaceSeparator
                | Category::LineSeparator
                | Category::ParagraphSeparator
                | Category::NonspacingMark
        );
        // A pattern of Braille without dots is a blank.
        !unseen && c != '\u{2800}' && !BLANK_LETTERS.contains(&c)
    })
}

/// The first character of a name that shows nothing and is not needed where it stands: of no width, filling, or
/// turning the direction of what follows.
pub fn hidden(name: &str) -> Option<char> {
    split(name).find_map(|(c, hidden)| hidden.then_some(c))
}

/// The name without what is [`hidden`] in it.
pub fn without_hidden(name: &str) -> String {
    split(name).filter_map(|(c, hidden)| (!hidden).then_some(c)).collect()
}

/// Each character, and whether it is hidden, behind what is not.
fn split(name: &str) -> impl Iterator<Item = (char, bool)> {
    name.chars().scan(None, |before, c| {
        let hidden = is_hidden(*before, c);
        if !hidden {
            *before = Some(c);
        }
        Some((c, hidden))
    })
}

fn is_hidden(before: Option<char>, c: char) -> bool {
    let category = before.map(char::general_category);
    match c {
        // Joiners: of letters without case (Persian, the scripts of India) and what marks them, and of emoji.
        '\u{200c}' | '\u{200d}' => !matches!(
            category,
            Some(
                Category::OtherLetter
                    | Category::NonspacingMark
                    | Category::SpacingMark
                    | Category::OtherSymbol
                    | Category::ModifierSymbol
            )
        ),
        // Which form of it a character takes: no letter with case has two.
        '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => {
            matches!(category, None | Some(Category::UppercaseLetter | Category::LowercaseLetter))
                || before.is_some_and(|before| ('\u{fe00}'..='\u{fe0f}').contains(&before))
        }
        // The flags of England, Scotland and Wales: a black flag and the name, in tags.
        '\u{e0020}'..='\u{e007f}' => {
            !before.is_some_and(|before| before == '\u{1f3f4}' || ('\u{e0020}'..='\u{e007f}').contains(&before))
        }
        // Arabic, Syriac and Kaithi signs around numbers: they are seen.
        '\u{600}'..='\u{605}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{890}'
        | '\u{891}'
        | '\u{8e2}'
        | '\u{110bd}'
        | '\u{110cd}' => false,
        c => c.general_category() == Category::Format || BLANK_LETTERS.contains(&c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_nothing_is_hidden() {
        for (name, found) in [
            ("Admin\u{200b}", '\u{200b}'),
            ("Ad\u{ad}min", '\u{ad}'),
            ("\u{202e}nimdA", '\u{202e}'),
            ("Admin\u{2066}", '\u{2066}'),
            ("\u{feff}Admin", '\u{feff}'),
            ("Admin\u{200d}", '\u{200d}'),
            ("\u{200d}Admin", '\u{200d}'),
            ("Admin\u{fe0f}", '\u{fe0f}'),
            ("Admin\u{3164}", '\u{3164}'),
            ("Admin\u{e0041}", '\u{e0041}'),
            ("❤\u{fe0f}\u{fe0f}", '\u{fe0f}'),
        ] {
            assert_eq!(hidden(name), Some(found), "{name:?}");
            assert_eq!(hidden(&without_hidden(name)), None, "{name:?}");
        }
        assert_eq!(without_hidden("\u{202e}Ad\u{200b}\u{200b}min\u{200d}"), "Admin");
    }

    #[test]
    fn what_scripts_and_emoji_need_stays() {
        for name in [
            "Ada Lovelace",
            "نمی\u{200c}خواهم",
            "ന്\u{200d}",
            "श्री\u{200d}",
            "👩\u{200d}💻 👨🏽\u{200d}🚀",
            "❤\u{fe0f}\u{200d}🔥 1\u{fe0f}\u{20e3}",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "\u{600}١٢",
            "e\u{301}",
        ] {
            assert_eq!(hidden(name), None, "{name:?}");
            assert!(is_visible(name), "{name:?}");
        }
    }

    #[test]
    fn blanks_of_any_kind_are_not_seen() {
        for text in ["", " \n", "\u{200b}", "\u{a0}\u{3000}", "\u{2800}", "\u{3164}", "\u{301}", "\u{2028}"] {
            assert!(!is_visible(text), "{text:?}");
        }
    }
}
