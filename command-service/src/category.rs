//! A community's category tree: one stream, so that its rules need no other.

use events::{
    CategoryEvent, CategoryId,
    category::{Archived, Changed, Created, Moved, Presentation, Reordered, Restored},
    limits,
};
use serde::{Deserialize, Serialize};

use crate::access::Admin;

pub mod endpoints;
#[cfg(test)]
mod tests;

/// The kind of claim by which a category's id names its community. It is never given up.
pub const CATEGORY: &str = "category";

/// A category tree, folded from its stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CategoryTree {
    /// Siblings in their order; nothing is said by the order of others.
    categories: Vec<Category>,
}

/// One category of a [`CategoryTree`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Category {
    /// Its id.
    pub id: CategoryId,
    /// The category that it is below; none at the top.
    pub parent: Option<CategoryId>,
    /// How it presents itself.
    pub presentation: Presentation,
    /// Whether it is read-only itself; it is as well where one above it is.
    archived: bool,
}

/// A category that takes threads and posts: neither itself archived nor below one that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCategory(CategoryId);

aggregate! {
    /// What can be done with a category tree.
    CategoryTree("category_tree", 1) given () => CategoryEvent, or CategoryRefusal;
    CategoryCommand { CreateCategory, ChangeCategory, MoveCategory, ReorderCategories, ArchiveCategory, RestoreCategory }
}

/// Adds a category, last among its siblings.
#[derive(Clone, Debug)]
pub struct CreateCategory {
    /// An admin sets the place up.
    pub by: Admin,
    /// The new category.
    pub category: CategoryId,
    /// Below which; none for the top.
    pub parent: Option<CategoryId>,
    /// How it presents itself.
    pub presentation: Presentation,
}

/// Presents a category anew.
#[derive(Clone, Debug)]
pub struct ChangeCategory {
    /// An admin sets the place up.
    pub by: Admin,
    /// Which.
    pub category: CategoryId,
    /// How it shall present itself.
    pub presentation: Presentation,
}

/// Puts a category, with all that is below it, below another one.
#[derive(Clone, Debug)]
pub struct MoveCategory {
    /// An admin sets the place up.
    pub by: Admin,
    /// Which.
    pub category: CategoryId,
    /// Below which; none for the top.
    pub parent: Option<CategoryId>,
}

/// Puts siblings in a new order.
#[derive(Clone, Debug)]
pub struct ReorderCategories {
    /// An admin sets the place up.
    pub by: Admin,
    /// Whose children; none for those at the top.
    pub parent: Option<CategoryId>,
    /// All of them, first to last.
    pub order: Vec<CategoryId>,
}

/// Makes a category, and what is below it, read-only.
#[derive(Clone, Debug)]
pub struct ArchiveCategory {
    /// An admin sets the place up.
    pub by: Admin,
    /// Which.
    pub category: CategoryId,
}

/// Lets an archived category, and what is below it, take threads and posts again.
#[derive(Clone, Debug)]
pub struct RestoreCategory {
    /// An admin sets the place up.
    pub by: Admin,
    /// Which.
    pub category: CategoryId,
}

/// Why a category tree's command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CategoryRefusal {
    /// No such category, or none of a community that shows itself to who asks.
    #[error("There is no such category.")]
    NotFound,
    /// The body names a category that is none of this community's.
    #[error("This community has no such category.")]
    Unknown,
    /// The body names a parent that is no category of this community's.
    #[error("This community has no such category to be below.")]
    UnknownParent,
    /// The id is in use.
    #[error("A category of this id is there already.")]
    DuplicateId,
    /// The slug is in use among its siblings.
    #[error("A category beside it has this slug.")]
    SlugTaken,
    /// It, or one above it, is read-only.
    #[error("The category is archived, and read-only.")]
    Archived,
    /// It would be below itself.
    #[error("A category cannot go below itself.")]
    Cycle,
    /// Too far down.
    #[error("A category tree has at most {} levels.", limits::CATEGORY_DEPTH)]
    TooDeep,
    /// Too many.
    #[error("A community has at most {} categories, archived ones included.", limits::CATEGORIES)]
    TooMany,
    /// An order names each child once.
    #[error("The order has to name each category of this level exactly once, archived ones included.")]
    NotTheChildren,
}

impl CategoryTree {
    /// A category of this tree.
    pub fn get(&self, id: CategoryId) -> Option<&Category> {
        self.categories.iter().find(|category| category.id == id)
    }

    /// The category, where it takes threads and posts.
    pub fn open(&self, id: CategoryId) -> Result<OpenCategory, CategoryRefusal> {
        self.get(id).ok_or(CategoryRefusal::Unknown)?;
        if self.is_archived(id) { Err(CategoryRefusal::Archived) } else { Ok(OpenCategory(id)) }
    }

    /// Whether it, or a category above it, is read-only.
    pub fn is_archived(&self, id: CategoryId) -> bool {
        self.upwards(id).any(|category| category.archived)
    }

    /// A category and those above it, upwards; it ends, as no command makes a cycle.
    fn upwards(&self, id: CategoryId) -> impl Iterator<Item = &Category> {
        std::iter::successors(self.get(id), |category| category.parent.and_then(|parent| self.get(parent)))
    }

    fn children(&self, parent: Option<CategoryId>) -> impl Iterator<Item = &Category> {
        self.categories.iter().filter(move |category| category.parent == parent)
    }

    /// Levels from this category down, itself included.
    fn height(&self, id: CategoryId) -> usize {
        1 + self.children(Some(id)).map(|child| self.height(child.id)).max().unwrap_or(0)
    }

    /// What both a new and a moved category of this many levels need of their place.
    fn admit(&self, parent: Option<CategoryId>, slug: &str, height: usize) -> Result<(), CategoryRefusal> {
        if let Some(parent) = parent {
            self.get(parent).ok_or(CategoryRefusal::UnknownParent)?;
            if self.is_archived(parent) {
                return Err(CategoryRefusal::Archived);
            }
            if self.upwards(parent).count() + height > limits::CATEGORY_DEPTH {
                return Err(CategoryRefusal::TooDeep);
            }
        }
        let taken = self.children(parent).any(|sibling| sibling.presentation.slug == slug);
        if taken { Err(CategoryRefusal::SlugTaken) } else { Ok(()) }
    }

    /// A category that can be changed.
    fn changeable(&self, id: CategoryId) -> Result<&Category, CategoryRefusal> {
        let category = self.get(id).ok_or(CategoryRefusal::NotFound)?;
        if self.is_archived(id) { Err(CategoryRefusal::Archived) } else { Ok(category) }
    }

    fn get_mut(&mut self, id: CategoryId) -> Option<&mut Category> {
        self.categories.iter_mut().find(|category| category.id == id)
    }

    fn fold(&mut self, event: CategoryEvent) {
        match event {
            CategoryEvent::Created(Created { category: id, parent, presentation }) => {
                self.categories.push(Category { id, parent, presentation, archived: false });
            }
            CategoryEvent::Changed(Changed { category, presentation }) => {
                if let Some(category) = self.get_mut(category) {
                    category.presentation = presentation;
                }
            }
            CategoryEvent::Moved(Moved { category, parent }) => {
                if let Some(index) = self.categories.iter().position(|it| it.id == category) {
                    let moved = self.categories.remove(index);
                    self.categories.push(Category { parent, ..moved });
                }
            }
            CategoryEvent::Reordered(Reordered { order, .. }) => {
                let place = |category: &Category| order.iter().position(|id| *id == category.id);
                self.categories.sort_by_key(place);
            }
            CategoryEvent::Archived(Archived { category }) => {
                if let Some(category) = self.get_mut(category) {
                    category.archived = true;
                }
            }
            CategoryEvent::Restored(Restored { category }) => {
                if let Some(category) = self.get_mut(category) {
                    category.archived = false;
                }
            }
        }
    }
}

impl OpenCategory {
    /// Which.
    pub fn id(self) -> CategoryId {
        self.0
    }
}

type Decision = Result<Option<CategoryEvent>, CategoryRefusal>;

impl CreateCategory {
    /// Ids are unique on the platform: what other communities' trees have, the claim decides.
    pub fn decide(self, tree: &CategoryTree, (): &()) -> Decision {
        let Self { category, parent, presentation, by: _ } = self;
        if tree.get(category).is_some() {
            return Err(CategoryRefusal::DuplicateId);
        }
        if tree.categories.len() >= limits::CATEGORIES {
            return Err(CategoryRefusal::TooMany);
        }
        tree.admit(parent, &presentation.slug, 1)?;
        Ok(Some(CategoryEvent::Created(Created { category, parent, presentation })))
    }
}

impl ChangeCategory {
    /// What it says already is no fact.
    pub fn decide(self, tree: &CategoryTree, (): &()) -> Decision {
        let Self { category, presentation, by: _ } = self;
        let current = tree.changeable(category)?;
        if current.presentation == presentation {
            return Ok(None);
        }
        let mut siblings = tree.children(current.parent).filter(|sibling| sibling.id != category);
        if siblings.any(|sibling| sibling.presentation.slug == presentation.slug) {
            return Err(CategoryRefusal::SlugTaken);
        }
        Ok(Some(CategoryEvent::Changed(Changed { category, presentation })))
    }
}

impl MoveCategory {
    /// Where it is already is no move.
    pub fn decide(self, tree: &CategoryTree, (): &()) -> Decision {
        let Self { category, parent, by: _ } = self;
        let current = tree.changeable(category)?;
        if current.parent == parent {
            return Ok(None);
        }
        if parent.is_some_and(|parent| tree.upwards(parent).any(|above| above.id == category)) {
            return Err(CategoryRefusal::Cycle);
        }
        tree.admit(parent, &current.presentation.slug, tree.height(category))?;
        Ok(Some(CategoryEvent::Moved(Moved { category, parent })))
    }
}

impl ReorderCategories {
    /// An order that stands already is no fact.
    pub fn decide(self, tree: &CategoryTree, (): &()) -> Decision {
        let Self { parent, order, by: _ } = self;
        if parent.is_some_and(|parent| tree.get(parent).is_none()) {
            return Err(CategoryRefusal::UnknownParent);
        }
        let current: Vec<_> = tree.children(parent).map(|child| child.id).collect();
        if current == order {
            return Ok(None);
        }
        let sorted = |ids: &[CategoryId]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        if sorted(&current) != sorted(&order) {
            return Err(CategoryRefusal::NotTheChildren);
        }
        Ok(Some(CategoryEvent::Reordered(Reordered { parent, order })))
    }
}

impl ArchiveCategory {
    /// Below an archived one it is read-only already, and can still be archived by itself.
    pub fn decide(self, tree: &CategoryTree, (): &()) -> Decision {
        let Self { category, by: _ } = self;
        let current = tree.get(category).ok_or(CategoryRefusal::NotFound)?;
        Ok((!current.archived).then_some(CategoryEvent::Archived(Archived { category })))
    }
}

impl RestoreCategory {
    /// Below an archived one it stays read-only, and so does what is archived below it by itself.
    pub fn decide(self, tree: &CategoryTree, (): &()) -> Decision {
        let Self { category, by: _ } = self;
        let current = tree.get(category).ok_or(CategoryRefusal::NotFound)?;
        Ok(current.archived.then_some(CategoryEvent::Restored(Restored { category })))
    }
}

problems! { CategoryRefusal:
    NotFound => NOT_FOUND "category-not-found",
    Unknown => UNPROCESSABLE_ENTITY "unknown-category" at "#/category_id",
    UnknownParent => UNPROCESSABLE_ENTITY "unknown-category" at "#/parent_id",
    DuplicateId => CONFLICT "duplicate" at "#/id",
    SlugTaken => CONFLICT "duplicate" at "#/slug",
    Archived => UNPROCESSABLE_ENTITY "category-archived",
    Cycle => UNPROCESSABLE_ENTITY "category-cycle" at "#/parent_id",
    TooDeep => UNPROCESSABLE_ENTITY "too-deep" at "#/parent_id",
    TooMany => UNPROCESSABLE_ENTITY "too-many",
    NotTheChildren => UNPROCESSABLE_ENTITY "order-mismatch" at "#/order",
}
