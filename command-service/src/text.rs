//! What clients may write where: a type for each kind of text, with its limit from [`events::limits`], its rule, and
//! its entry in the API's documentation.

use std::{collections::HashSet, convert};

use events::{
    limits,
    reaction::KINDS,
    visible::{hidden, is_visible},
};
use garde::Validate;
use platform::{extract::invalid, identity::PASSWORD_CHARS};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr,
        schema::{ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type},
    },
};
use uuid::Uuid;

/// Words that would be mistaken for something else where an account is named in a path.
const RESERVED_USERNAMES: [&str; 3] = ["me", "import", "deleted"];

/// Unicode's own line and paragraph separators, which are no control characters.
const LINE_ENDS: [char; 2] = ['\u{2028}', '\u{2029}'];

macro_rules! texts {
    ($($(#[$doc:meta])* $text:ident: $min:literal to $max:expr, $rule:path, like $example:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $text(pub String);

        impl Validate for $text {
            type Context = ();

            fn validate_into(&self, (): &(), path: &mut dyn FnMut() -> garde::Path, report: &mut garde::Report) {
                if let Err(error) = length(&self.0, $min, $max).and_then(|()| $rule(&self.0)) {
                    report.append(path(), error);
                }
            }
        }

        impl PartialSchema for $text {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new().schema_type(Type::String).examples([$example]);
                text.min_length(Some($min)).max_length(Some($max)).into()
            }
        }

        impl ToSchema for $text {}

        impl AsRef<str> for $text {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<$text> for String {
            fn from(text: $text) -> Self {
                text.0
            }
        }
    )+};
}

texts! {
    /// A community's or category's name in addresses: lower-case letters, digits, and single hyphens between them.
    Slug: 1 to limits::NAME_CHARS, slug, like "green-tea";
    /// An account's name: letters, digits, and `.`, `_` or `-` between them; compared ignoring case.
    Username: 1 to limits::NAME_CHARS, username, like "ada";
    /// What is shown in a name's place, on one line, without characters that show nothing.
    DisplayName: 1 to limits::DISPLAY_NAME_CHARS, line, like "Ada Lovelace";
    /// What something is about.
    Description: 0 to limits::DESCRIPTION_CHARS, anything, like "All about tea.";
    /// Why something was done.
    Reason: 1 to limits::DESCRIPTION_CHARS, not_blank, like "Off topic.";
    /// What an account says about itself, in Markdown.
    About: 1 to limits::ABOUT_CHARS, not_blank, like "I like tea.";
    /// Something on one line.
    Line: 1 to limits::LINE_CHARS, line, like "London";
    /// The address of a website: `http` or `https`.
    Website: 1 to limits::LINE_CHARS, website, like "https://example.org";
    /// An e-mail address; compared ignoring case.
    Email: 3 to limits::LINE_CHARS, email, like "ada@example.org";
    /// A thread's title, on one line, without characters that show nothing.
    Title: 1 to limits::TITLE_CHARS, line, like "Which kettle?";
    /// One tag, on one line, without blanks or commas.
    Tag: 1 to limits::TAG_CHARS, tag, like "kettles";
    /// A kind of reaction: lower-case letters, digits, and single hyphens between them.
    ReactionKind: 1 to limits::TAG_CHARS, slug, like "like";
}

macro_rules! lists {
    ($($(#[$doc:meta])* $list:ident: $max:expr, of $item:ident, $rule:path, $kept:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Validate)]
        #[serde(transparent)]
        #[garde(transparent)]
        pub struct $list(#[garde(custom(listed($max, $rule)), dive)] pub Vec<$item>);

        impl PartialSchema for $list {
            fn schema() -> RefOr<Schema> {
                let items = Ref::from_schema_name(<$item as ToSchema>::name());
                ArrayBuilder::new().items(items).max_items(Some($max)).unique_items(true).into()
            }
        }

        impl ToSchema for $list {
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                schemas.push((<$item as ToSchema>::name().into_owned(), <$item as PartialSchema>::schema()));
            }
        }

        impl From<$list> for Vec<String> {
            fn from(list: $list) -> Self {
                list.0.into_iter().map(String::from).map($kept).collect()
            }
        }
    )+};
}

lists! {
    /// The tags of a thread, none twice. Upper and lower case are the same; they are kept in lower case.
    Tags: limits::TAGS, of Tag, anything, |tag: String| tag.to_lowercase();
    /// Kinds of reaction besides `up`, `down` and `like`.
    ReactionKinds: limits::REACTION_KINDS, of ReactionKind, not_everybodys, convert::identity;
}

/// What a post says, at most [`limits::BODY_BYTES`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Body(pub String);

impl Validate for Body {
    type Context = ();

    fn validate_into(&self, (): &(), path: &mut dyn FnMut() -> garde::Path, report: &mut garde::Report) {
        let bytes = self.0.len();
        let checked = if bytes > limits::BODY_BYTES {
            Err(invalid("too_long", format_args!("must have at most {} bytes, it has {bytes}", limits::BODY_BYTES)))
        } else {
            not_blank(&self.0)
        };
        if let Err(error) = checked {
            report.append(path(), error);
        }
    }
}

impl PartialSchema for Body {
    fn schema() -> RefOr<Schema> {
        let description = format!("At most {} bytes.", limits::BODY_BYTES);
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        text.min_length(Some(1)).max_length(Some(limits::BODY_BYTES)).examples(["The *red* one."]).into()
    }
}

impl ToSchema for Body {}

/// A password, on its way to be hashed or compared. It can be neither shown nor written anywhere.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Password {
    /// Nothing of it: what is serialised is the part of a request that its fingerprint is made of, and a fingerprint is
    /// stored. It would be guessed from that far faster than from its hash. Whoever is asked again under a key compares
    /// the password itself ([`crate::store::Operation::repeats`]).
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl Validate for Password {
    type Context = ();

    fn validate_into(&self, (): &(), path: &mut dyn FnMut() -> garde::Path, report: &mut garde::Report) {
        if let Err(error) = platform::identity::password_rule(&self.0, &()) {
            report.append(path(), error);
        }
    }
}

impl PartialSchema for Password {
    fn schema() -> RefOr<Schema> {
        let (min, max) = PASSWORD_CHARS.into_inner();
        let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(min)).max_length(Some(max));
        text.format(Some(SchemaFormat::KnownFormat(KnownFormat::Password))).examples(["correct horse battery"]).into()
    }
}

impl ToSchema for Password {}

/// An id that a client chose: a UUID of version 7 (RFC 9562), so that ids sort by time.
#[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option, reason = "the signature that garde asks for")]
pub(crate) fn chosen_id<I: Copy + Into<Uuid>>(id: &Option<I>, (): &()) -> garde::Result {
    match id.map(Into::into) {
        Some(id) if id.get_version_num() != 7 => Err(invalid("not_version_7", "must be a UUID of version 7")),
        _ => Ok(()),
    }
}

/// For a field that may be absent but not null; doubled (`Option<Option<T>>`), for one that null clears.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// At most so many, none twice (upper and lower case are the same), and each by a rule of the list.
fn listed<T: AsRef<str>>(max: usize, rule: fn(&str) -> garde::Result) -> impl Fn(&Vec<T>, &()) -> garde::Result {
    move |values, ()| {
        if values.len() > max {
            return Err(invalid("too_long", format_args!("must have a length of at most {max}")));
        }
        let mut seen = HashSet::new();
        if !values.iter().all(|value| seen.insert(value.as_ref().to_lowercase())) {
            return Err(invalid("repeated", "must not contain the same twice; upper and lower case are the same"));
        }
        values.iter().try_for_each(|value| rule(value.as_ref()))
    }
}

fn length(text: &str, min: usize, max: usize) -> garde::Result {
    match text.chars().count() {
        length if length < min => Err(invalid("too_short", format_args!("must have a length of at least {min}"))),
        length if length > max => Err(invalid("too_long", format_args!("must have a length of at most {max}"))),
        _ => Ok(()),
    }
}

#[allow(clippy::unnecessary_wraps, reason = "a rule like the others")]
fn anything(_: &str) -> garde::Result {
    Ok(())
}

fn not_blank(text: &str) -> garde::Result {
    if is_visible(text) { Ok(()) } else { Err(invalid("blank", "must not be blank")) }
}

fn line(text: &str) -> garde::Result {
    if text.contains(|c: char| c.is_control() || LINE_ENDS.contains(&c)) {
        return Err(invalid("control_character", "must be one line without control characters"));
    }
    if let Some(hidden) = hidden(text) {
        let code = u32::from(hidden);
        return Err(invalid("invisible_character", format_args!("must not contain the invisible U+{code:04X}")));
    }
    not_blank(text)
}

fn not_everybodys(kind: &str) -> garde::Result {
    if KINDS.contains(&kind) {
        return Err(invalid("reserved", format_args!("must not name what every community has: {}", KINDS.join(", "))));
    }
    Ok(())
}

fn tag(text: &str) -> garde::Result {
    if text.contains(|c: char| c == ',' || c.is_whitespace()) {
        return Err(invalid("wrong_pattern", "must not contain blanks or commas"));
    }
    line(text)
}

fn slug(text: &str) -> garde::Result {
    let words = text
        .split('-')
        .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    if !words {
        let rule = "must be lower-case letters, digits, and single hyphens between them";
        return Err(invalid("wrong_pattern", rule));
    }
    not_an_id(text)
}

fn username(text: &str) -> garde::Result {
    let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let edges =
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    if !letters || !edges {
        let rule = "must be letters, digits, and `.`, `_` or `-` between them";
        return Err(invalid("wrong_pattern", rule));
    }
    if RESERVED_USERNAMES.contains(&text.to_ascii_lowercase().as_str()) {
        return Err(invalid("reserved", "must not be a word with another meaning in addresses"));
    }
    not_an_id(text)
}

/// Things are addressed by name or by id: the two must differ.
fn not_an_id(text: &str) -> garde::Result {
    match Uuid::try_parse(text) {
        Ok(_) => Err(invalid("looks_like_id", "must not look like an id")),
        Err(_) => Ok(()),
    }
}

fn website(text: &str) -> garde::Result {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => line(text),
        _ => Err(invalid("invalid_url", "must be the address of a website: https://…")),
    }
}

fn email(text: &str) -> garde::Result {
    use garde::rules::email::Email as _;
    text.validate_email()
        .map_err(|reason| invalid("invalid_email", format_args!("must be an e-mail address: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<T: Validate<Context = ()>>(make: fn(String) -> T, texts: &[&str]) -> Vec<bool> {
        texts.iter().map(|text| make((*text).to_owned()).validate().is_ok()).collect()
    }

    #[test]
    fn slugs() {
        assert_eq!(all(Slug, &["tea", "green-tea", "2024"]), [true; 3]);
        let id = "018f3f4e-7c2a-7d10-8a3b-5e6f708192a3";
        assert_eq!(all(Slug, &["", "-tea", "tea-", "a--b", "Tea", "thé", "a b", id]), [false; 8]);
        assert_eq!(all(Slug, &[&"x".repeat(64), &"x".repeat(65)]), [true, false]);
    }

    #[test]
    fn usernames() {
        assert_eq!(all(Username, &["ada", "Ada.L", "a_b-c", "x", "user-42"]), [true; 5]);
        let id = "018F3F4E-7C2A-7D10-8A3B-5E6F708192A3";
        assert_eq!(all(Username, &["", ".ada", "ada-", "a b", "adé", "me", "ME", "import", id]), [false; 9]);
    }

    #[test]
    fn lines_have_no_control_characters_and_count_characters_not_bytes() {
        assert_eq!(all(Title, &["Tea?", &"é".repeat(300)]), [true; 2]);
        assert_eq!(all(Title, &["", "  ", "a\nb", "a\u{7f}b", &"é".repeat(301)]), [false; 5]);
        assert_eq!(all(Title, &["\u{200b}", "Admin\u{200b}", "\u{202e}nimdA", "a\u{2028}b", "\u{2800}"]), [false; 5]);
        assert_eq!(all(DisplayName, &["नमस्ते श्री\u{200d}", "👩\u{200d}💻", "نمی\u{200c}خواهم"]), [true; 3]);
    }

    #[test]
    fn tags_are_one_word() {
        assert_eq!(all(Tag, &["c++", ".net", "thé"]), [true; 3]);
        assert_eq!(all(Tag, &["", "a b", "a,b", "a\tb"]), [false; 4]);
        let tags = |tags: &[&str]| Tags(tags.iter().map(|tag| Tag((*tag).to_owned())).collect()).validate();
        assert!(tags(&["a", "b"]).is_ok() && tags(&[]).is_ok());
        assert!(tags(&["a", "b", "a"]).is_err() && tags(&["Thé", "b", "THÉ"]).is_err(), "none twice");
        let kinds = |kinds: &[&str]| ReactionKinds(kinds.iter().map(|it| ReactionKind((*it).to_owned())).collect());
        assert!(kinds(&["cheers"]).validate().is_ok() && kinds(&["cheers", "up"]).validate().is_err());
        assert_eq!(tags(&["a", "b c"]).map_err(|report| report.to_string().starts_with("[1]: ")), Err(true));
        let numbers: Vec<_> = (0..=limits::TAGS).map(|n| n.to_string()).collect();
        let numbers: Vec<_> = numbers.iter().map(String::as_str).collect();
        assert!(tags(&numbers[1..]).is_ok() && tags(&numbers).is_err(), "at most ten");
    }

    #[test]
    fn websites_and_addresses() {
        assert_eq!(all(Website, &["https://example.org", "http://x"]), [true; 2]);
        assert_eq!(all(Website, &["javascript:alert(1)", "example.org", "https://", "https://a b"]), [false; 4]);
        assert_eq!(all(Email, &["ada@example.org", "ada", "@example.org"]), [true, false, false]);
    }

    #[test]
    fn bodies_are_limited_in_bytes() {
        assert_eq!(all(Body, &["x", &"é".repeat(limits::BODY_BYTES / 2)]), [true; 2]);
        assert_eq!(all(Body, &[" \n", &"é".repeat(limits::BODY_BYTES / 2 + 1)]), [false; 2]);
    }

    #[test]
    fn chosen_ids_are_of_version_7() {
        assert!(chosen_id(&Some(events::ThreadId::new()), &()).is_ok());
        assert!(chosen_id(&None::<events::ThreadId>, &()).is_ok());
        assert!(chosen_id(&Some(Uuid::nil()), &()).is_err());
    }

    #[test]
    fn a_password_shows_nowhere() {
        let password = Password("hunter22".to_owned());
        assert_eq!(
            (format!("{password:?}"), serde_json::to_string(&password).ok()),
            ("***".into(), Some("null".into()))
        );
    }
}
