//! Every limit of the forum's language, in one place. Lengths are in characters unless they say bytes.

/// An event's payload, in bytes: what the store and Kafka carry (a fourth of Kafka's default message).
pub const EVENT_BYTES: usize = 256 * 1024;
/// A post's body, in bytes: leaves room for JSON's escapes below [`EVENT_BYTES`].
pub const BODY_BYTES: usize = 100 * 1024;
/// A thread's title.
pub const TITLE_CHARS: usize = 300;
/// A username or a slug.
pub const NAME_CHARS: usize = 64;
/// What is shown in a name's place: display names, community and category names.
pub const DISPLAY_NAME_CHARS: usize = 120;
/// A community's or category's description, and the reason of a moderator's act.
pub const DESCRIPTION_CHARS: usize = 2_000;
/// What an account says about itself.
pub const ABOUT_CHARS: usize = 10_000;
/// Location and website of a profile, an e-mail address (RFC 5321, 4.5.3.1.3).
pub const LINE_CHARS: usize = 254;
/// Tags on one thread.
pub const TAGS: usize = 10;
/// One tag, and the name of one kind of reaction.
pub const TAG_CHARS: usize = 48;
/// Votes of one kind that a post is imported with: what a score holds without an overflow.
pub const VOTES: u32 = 1_000_000_000;
/// Kinds of reaction that a community allows.
pub const REACTION_KINDS: usize = 32;
/// Categories in one community: they are one stream, and shown on one page.
pub const CATEGORIES: usize = 1_000;
/// Levels of the category tree.
pub const CATEGORY_DEPTH: usize = 3;
/// Replies below replies; the opening post has depth 0.
pub const POST_DEPTH: u8 = 12;
/// Owners of one community.
pub const OWNERS: usize = 50;
