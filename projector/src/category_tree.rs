//! Projection: the category tree of each community.

use chrono::{DateTime, Utc};
use events::{
    CategoryEvent, Event,
    category::{Archived, Changed as CategoryChanged, Created, Moved, Presentation, Reordered, Restored},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    projection::{Changed, Fault, Kept, Projection, Recorded},
    table::{Table, Writes, read_table},
};

pub(crate) struct CategoryTree;

read_table! {
    /// A category.
    Category in "category" {
        key { category_id: Uuid }
        community_id: Uuid,
        parent_id: Option<Uuid>,
        slug: String,
        name: String,
        description: String,
        place: i32,
        archived: bool,
        created_at: DateTime<Utc>,
        version: i64,
        position: i64,
    }
}

impl Projection for CategoryTree {
    const NAME: &'static str = "category_tree";
    const TABLES: &'static [Kept] = &[Kept::of_community("category")];
    type Rows = Table<Category>;

    fn concerns(event: &Event) -> bool {
        matches!(event, Event::Category(_))
    }

    /// Whole trees: a place among siblings depends on all of them, and a tree has at most
    /// [`events::limits::CATEGORIES`].
    async fn load(events: &[Recorded<'_>], from: &mut PgConnection) -> sqlx::Result<Self::Rows> {
        let mut communities: Vec<Uuid> = events.iter().filter_map(|event| event.community().ok()).collect();
        communities.sort_unstable();
        communities.dedup();
        let mut rows = Table::default();
        rows.add_where("community_id", &communities, from).await?;
        Ok(rows)
    }

    fn fold(rows: &mut Self::Rows, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        let Event::Category(event) = recorded.event else { return Ok(()) };
        let community = recorded.community()?;
        match event {
            CategoryEvent::Created(Created { category, parent, presentation }) => {
                let parent = parent.map(Uuid::from);
                let place = next_place(rows, community, parent);
                let Presentation { slug, name, description } = presentation.clone();
                rows.put(Category {
                    category_id: category.0,
                    community_id: community,
                    parent_id: parent,
                    slug,
                    name,
                    description,
                    place,
                    archived: false,
                    created_at: recorded.at(),
                    version: recorded.version(),
                    position: recorded.position(),
                });
            }
            CategoryEvent::Changed(CategoryChanged { category, presentation }) => {
                let row = touch(rows, recorded, category.0)?;
                let Presentation { slug, name, description } = presentation.clone();
                (row.slug, row.name, row.description) = (slug, name, description);
            }
            CategoryEvent::Moved(Moved { category, parent }) => {
                let parent = parent.map(Uuid::from);
                let place = next_place(rows, community, parent);
                let row = touch(rows, recorded, category.0)?;
                (row.parent_id, row.place) = (parent, place);
            }
            CategoryEvent::Reordered(Reordered { parent: _, order }) => {
                for (place, category) in (0..).zip(order) {
                    touch(rows, recorded, category.0)?.place = place;
                }
            }
            CategoryEvent::Archived(Archived { category }) => touch(rows, recorded, category.0)?.archived = true,
            CategoryEvent::Restored(Restored { category }) => touch(rows, recorded, category.0)?.archived = false,
        }
        changed.community(community);
        Ok(())
    }

    fn write(rows: Self::Rows, to: &mut Writes) {
        rows.write(to);
    }
}

fn touch<'a>(rows: &'a mut Table<Category>, recorded: &Recorded<'_>, id: Uuid) -> Result<&'a mut Category, Fault> {
    let row = rows.change(id)?;
    row.version = recorded.version();
    row.position = recorded.position();
    Ok(row)
}

/// Behind the last sibling. One that left behind a gap leaves it.
fn next_place(rows: &Table<Category>, community: Uuid, parent: Option<Uuid>) -> i32 {
    let siblings = rows.iter().filter(|row| row.community_id == community && row.parent_id == parent);
    siblings.map(|row| row.place + 1).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use events::{CategoryId, Stream};

    use super::*;
    use crate::fixture::History;

    fn created(category: CategoryId, parent: Option<CategoryId>) -> CategoryEvent {
        CategoryEvent::Created(Created { category, parent, presentation: Presentation::default() })
    }

    fn rows(history: &History) -> Table<Category> {
        let mut rows = Table::default();
        history.fold::<CategoryTree>(&mut rows).expect("it folds");
        rows
    }

    #[test]
    fn a_category_comes_last_among_its_siblings_and_keeps_its_place() {
        let mut history = History::new();
        let tree = Stream::category_tree(history.community);
        let [a, b, c] = [(); 3].map(|()| CategoryId::new());
        history.then(&tree, created(a, None)).then(&tree, created(b, None)).then(&tree, created(c, Some(a)));
        let place = |history: &History, id: CategoryId| rows(history).get(id.0).map(|row| (row.parent_id, row.place));
        assert_eq!([a, b, c].map(|id| place(&history, id)), [Some((None, 0)), Some((None, 1)), Some((Some(a.0), 0))]);
        history.then(&tree, CategoryEvent::Moved(Moved { category: c, parent: None }));
        assert_eq!(place(&history, c), Some((None, 2)));
        history.then(&tree, CategoryEvent::Reordered(Reordered { parent: None, order: vec![c, a, b] }));
        assert_eq!([a, b, c].map(|id| place(&history, id)), [Some((None, 1)), Some((None, 2)), Some((None, 0))]);
        assert_eq!(rows(&history).iter().map(|row| row.version).max(), Some(5));
    }

    #[test]
    fn an_archived_category_stays_where_it_is() {
        let mut history = History::new();
        let tree = Stream::category_tree(history.community);
        let category = CategoryId::new();
        history.then(&tree, created(category, None)).then(&tree, CategoryEvent::Archived(Archived { category }));
        let rows = rows(&history);
        let row = rows.get(category.0).expect("the category");
        assert!(row.archived && row.place == 0 && row.version == 2);
        history.then(&tree, CategoryEvent::Restored(Restored { category }));
        let restored = self::rows(&history);
        assert!(restored.get(category.0).is_some_and(|row| !row.archived && row.version == 3));
    }
}
