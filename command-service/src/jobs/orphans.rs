//! Unique values that are kept for nobody: their owner's stream does not hold them any more, and nobody else can take
//! them. No command leaves one behind; a defect may have, or somebody who repaired something by hand.

use std::fmt;

use events::{AccountId, CategoryId, CommunityId, Stream};
use futures::{StreamExt as _, stream};
use opentelemetry::{KeyValue, metrics::Counter};

use super::Outcome;
use crate::{
    account::{Account, EMAIL, USERNAME},
    category::{CATEGORY, CategoryTree},
    community::{Community, SLUG},
    store::{Store, StoreError},
};

/// Claims read in one statement.
const PAGE: i64 = 500;
/// Streams read at once: it may take its time, and leaves the connections to others.
const AT_ONCE: usize = 4;
/// Alarms of one run, at most: who has more has one defect, not many.
const ALARMS: u64 = 20;

/// A unique value, and for whom it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    kind: String,
    value: String,
    owner: String,
}

/// Looks at every claim, and raises an alarm for each that is kept for nobody. Answers how many.
pub(super) async fn report(store: &Store, alarms: &Counter<u64>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut after = (String::new(), String::new());
    loop {
        let page = match page(store, &after).await {
            Ok(page) => page,
            Err(error) => return Outcome { failure: Some(error.to_string()), ..outcome },
        };
        let Some(last) = page.last() else { break };
        after = (last.kind.clone(), last.value.clone());
        let looks = stream::iter(page).map(|claim| async move { (claim.is_orphaned(store).await, claim) });
        let mut looks = looks.buffered(AT_ONCE);
        while let Some((orphaned, claim)) = looks.next().await {
            match orphaned {
                Ok(true) => {
                    outcome.done += 1;
                    alarms.add(1, &[KeyValue::new("kind", "orphaned_claim")]);
                    if outcome.done <= ALARMS {
                        tracing::error!("{claim}");
                    }
                }
                Ok(false) => {}
                // What cannot be read now keeps no other from being looked at.
                Err(error) => {
                    outcome.failure.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }
    if outcome.done > ALARMS {
        tracing::error!(
            "{} more claims are kept for nobody: `agora jobs run report_orphaned_claims` names the next ones \
            once these are freed",
            outcome.done - ALARMS
        );
    }
    outcome
}

async fn page(store: &Store, (kind, value): &(String, String)) -> sqlx::Result<Vec<Claim>> {
    let claims = sqlx::query_as!(
        Claim,
        "select kind, value, owner from claims where (kind, value) > ($1, $2) order by kind, value limit $3",
        kind,
        value,
        PAGE,
    );
    claims.fetch_all(store.pool()).await
}

impl Claim {
    /// Whether it is kept for nobody. It may be given up while its owner is looked at: then it is there no more.
    async fn is_orphaned(&self, store: &Store) -> Result<bool, StoreError> {
        let Self { kind, value, owner } = self;
        Ok(!self.is_held(store).await?
            && store.claimed_by(kind, value).await?.as_ref() == Some(owner)
            && !self.is_held(store).await?)
    }

    /// Whether its owner holds the value. An e-mail address is beside the stream, as private data.
    async fn is_held(&self, store: &Store) -> Result<bool, StoreError> {
        let (account, community) = (self.owner.parse().ok(), self.owner.parse().ok());
        Ok(match (&*self.kind, account, community) {
            (USERNAME, Some(account), _) => {
                let account = store.look::<Account>(&Stream::account(account)).await?;
                account.username.is_some_and(|name| name.to_lowercase() == self.value)
            }
            (EMAIL, Some(account), _) => {
                let account: AccountId = account;
                store.private(account, EMAIL).await?.as_ref() == Some(&self.value)
            }
            (SLUG, _, Some(community)) => {
                let community = store.look::<Community>(&Stream::community(community)).await?;
                community.exists() && community.settings.slug == self.value
            }
            (CATEGORY, _, Some(community)) => {
                let community: CommunityId = community;
                let Ok(category) = self.value.parse::<CategoryId>() else { return Ok(false) };
                let tree = Stream::category_tree(community);
                // Each of a community's categories asks for the same tree. None ever leaves it: one that was there, is.
                store.recall::<CategoryTree>(&tree).await?.state.get(category).is_some()
                    || store.look::<CategoryTree>(&tree).await?.get(category).is_some()
            }
            (USERNAME | EMAIL | SLUG | CATEGORY, ..) => false,
            // What this release does not know, it does not judge.
            _ => true,
        })
    }
}

/// What is wrong, and the statement that mends it. An e-mail address is nobody's business, also not the log's.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, value, owner } = self;
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let (what, condition) = if kind == EMAIL {
            let condition = "not exists (select from store.private_data p where p.kind = 'email' and p.owner::text = c.owner \
                             and p.value = c.value)";
            ("an e-mail address".to_owned(), condition.to_owned())
        } else {
            (format!("the {kind} {value:?}"), format!("c.value = {}", quoted(value)))
        };
        write!(
            f,
            "{what} is kept for {owner}, who does not have it: nobody can take it. Free it in the event store's database \
             with psql: delete from store.claims c where c.kind = {} and c.owner = {} and {condition}",
            quoted(kind),
            quoted(owner)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(kind: &str, value: &str) -> String {
        Claim { kind: kind.into(), value: value.into(), owner: "7".into() }.to_string()
    }

    #[test]
    fn an_alarm_says_which_and_what_to_do() {
        let said = claim(SLUG, "o'tea");
        assert!(said.starts_with("the slug \"o'tea\" is kept for 7, who does not have it"), "{said}");
        let sql = "delete from store.claims c where c.kind = 'slug' and c.owner = '7' and c.value = 'o''tea'";
        assert!(said.ends_with(sql), "{said}");
    }

    #[test]
    fn an_email_address_is_not_named() {
        let said = claim(EMAIL, "ada@example.org");
        assert!(!said.contains("ada@") && said.contains("delete from store.claims c where c.kind = 'email'"), "{said}");
    }
}
