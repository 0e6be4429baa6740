//! Which stream somebody means: by ids, or by what accounts and communities are called.

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use events::Stream;
use sqlx::PgPool;
use uuid::Uuid;

use crate::claims::{self, SLUG, USERNAME};

/// The types of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Aggregate {
    Account,
    #[value(name = "category_tree")]
    CategoryTree,
    Community,
    Membership,
    Post,
    Reaction,
    Thread,
}

/// What an id, or half of one, names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Account,
    Community,
    /// A post or a thread, which has no other name.
    Nameless,
    /// An account; or what a post was imported with, which has a stream beside those of its readers.
    Reader,
}

impl Aggregate {
    /// The stream of that id or name.
    ///
    /// # Errors
    /// Where nothing is called so, or it is no id.
    pub(super) async fn stream(self, store: &PgPool, named: &str) -> anyhow::Result<Stream> {
        let value = self.to_possible_value().expect("none is hidden");
        let aggregate = value.get_name().to_owned();
        let article = if aggregate.starts_with('a') { "an" } else { "a" };
        let wrong = || format!("`{named}` does not name the stream of {article} {aggregate}: it is {}", self.wanted());
        let id = match (self.parts(), named.split_once('.')) {
            ((part, None), _) => part.id(store, named).await?,
            ((one, Some(other)), Some((first, second))) => match one.id(store, first).await? {
                Some(first) => other.id(store, second).await?.map(|second| format!("{first}.{second}")),
                None => None,
            },
            ((_, Some(_)), None) => None,
        };
        let id = id.with_context(wrong)?;
        Ok(Stream { aggregate, id })
    }

    fn parts(self) -> (Part, Option<Part>) {
        match self {
            Self::Account => (Part::Account, None),
            Self::CategoryTree | Self::Community => (Part::Community, None),
            Self::Membership => (Part::Community, Some(Part::Account)),
            Self::Post | Self::Thread => (Part::Nameless, None),
            Self::Reaction => (Part::Nameless, Some(Part::Reader)),
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Account => "a username or the account's id",
            Self::CategoryTree | Self::Community => "a slug or the community's id",
            Self::Membership => "<community>.<account>, each by its name or id, such as tea.ada",
            Self::Post | Self::Thread => "an id such as 0191e2b8-7c00-7000-8000-000000000001",
            Self::Reaction => "<post's id>.<account>, or <post's id>.imported",
        }
    }
}

impl Part {
    /// As ids are stored; none where it can be neither an id nor a name.
    async fn id(self, store: &PgPool, named: &str) -> anyhow::Result<Option<String>> {
        if let Ok(id) = named.parse::<Uuid>() {
            return Ok(Some(id.to_string()));
        }
        let (kind, what) = match self {
            _ if named.is_empty() => return Ok(None),
            Self::Nameless => return Ok(None),
            Self::Reader if named == "imported" => return Ok(Some(named.to_owned())),
            Self::Account | Self::Reader => (USERNAME, "account"),
            Self::Community => (SLUG, "community"),
        };
        match claims::owner(store, kind, named).await? {
            Some(id) => Ok(Some(id)),
            None => bail!("no {what} is called `{named}`"),
        }
    }
}
