//! Names that fit into addresses, made of names that people gave.

/// The lower-case ASCII letters and digits of `name`, transliterated (`Éloïse` is `eloise`, `北京` is `bei-jing`), with
/// a hyphen where anything else stood between them; at most `limit` characters. Empty where nothing is left.
pub fn slug(name: &str, limit: usize) -> String {
    let mut slug = String::new();
    let mut gap = false;
    // An apostrophe joins: `D'Artagnan` is one word.
    for character in deunicode::deunicode(name).chars().filter(|character| *character != '\'') {
        if !character.is_ascii_alphanumeric() {
            gap = true;
            continue;
        }
        if gap && !slug.is_empty() {
            slug.push('-');
        }
        gap = false;
        slug.push(character.to_ascii_lowercase());
    }
    slug.truncate(limit);
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// A slug as a title: `french-meta` is `French Meta`.
pub fn title(slug: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    slug.split('-').map(capital).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_slugs() {
        let names = [
            ("Adam Lear", "adam-lear"),
            ("  Éloïse  D'Artagnan ", "eloise-dartagnan"),
            ("user1234", "user1234"),
            ("北京", "bei-jing"),
            ("Ω mega_99", "o-mega-99"),
            ("--", ""),
            ("", ""),
        ];
        for (name, expected) in names {
            assert_eq!(slug(name, 64), expected, "{name}");
        }
    }

    #[test]
    fn a_long_name_is_cut_without_a_hyphen_at_its_end() {
        assert_eq!(slug("abc def", 4), "abc");
        assert_eq!(slug("abc def", 5), "abc-d");
    }

    #[test]
    fn titles() {
        assert_eq!(title("french-meta"), "French Meta");
        assert_eq!(title("x"), "X");
    }
}
