use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use events::membership::Role;

use super::*;
use crate::{
    Refusal,
    fixture::{self, category, category_created as created, standing},
};

fn given(events: Vec<CategoryEvent>) -> AggregateTestExecutor<CategoryTree> {
    TestFramework::with(()).given(events)
}

fn by() -> Admin {
    standing(Role::Admin).admin().expect("an admin")
}

fn presentation(slug: &str) -> Presentation {
    Presentation { slug: slug.into(), name: slug.into(), description: String::new() }
}

fn create(n: u128, parent: Option<u128>, slug: &str) -> CategoryCommand {
    let (category, parent) = (category(n), parent.map(category));
    CreateCategory { by: by(), category, parent, presentation: presentation(slug) }.into()
}

fn change(n: u128, slug: &str) -> CategoryCommand {
    ChangeCategory { by: by(), category: category(n), presentation: presentation(slug) }.into()
}

fn put(n: u128, parent: Option<u128>) -> CategoryCommand {
    MoveCategory { by: by(), category: category(n), parent: parent.map(category) }.into()
}

fn reorder(parent: Option<u128>, order: &[u128]) -> CategoryCommand {
    let order = order.iter().copied().map(category).collect();
    ReorderCategories { by: by(), parent: parent.map(category), order }.into()
}

fn archive(n: u128) -> CategoryCommand {
    ArchiveCategory { by: by(), category: category(n) }.into()
}

fn restore(n: u128) -> CategoryCommand {
    RestoreCategory { by: by(), category: category(n) }.into()
}

fn moved(n: u128, parent: Option<u128>) -> CategoryEvent {
    CategoryEvent::Moved(Moved { category: category(n), parent: parent.map(category) })
}

fn archived(n: u128) -> CategoryEvent {
    CategoryEvent::Archived(Archived { category: category(n) })
}

fn restored(n: u128) -> CategoryEvent {
    CategoryEvent::Restored(Restored { category: category(n) })
}

fn refused(refusal: CategoryRefusal) -> Refusal {
    refusal.into()
}

/// 1 above 2 above 3; 4 beside 1.
fn forest() -> Vec<CategoryEvent> {
    vec![created(1, None, "a"), created(2, Some(1), "b"), created(3, Some(2), "c"), created(4, None, "d")]
}

#[test]
fn categories_are_created_once() {
    given(vec![]).when(create(1, None, "a")).then_expect_events(vec![created(1, None, "a")]);
    given(forest()).when(create(2, None, "x")).then_expect_error(refused(CategoryRefusal::DuplicateId));
}

#[test]
fn a_slug_is_unique_among_siblings_only() {
    given(forest()).when(create(9, None, "a")).then_expect_error(refused(CategoryRefusal::SlugTaken));
    given(forest()).when(create(9, Some(4), "a")).then_expect_events(vec![created(9, Some(4), "a")]);
    given(forest()).when(change(4, "a")).then_expect_error(refused(CategoryRefusal::SlugTaken));
    let beside = [forest(), vec![created(9, Some(4), "a")]].concat();
    given(beside).when(put(9, None)).then_expect_error(refused(CategoryRefusal::SlugTaken));
}

#[test]
fn a_tree_has_three_levels() {
    given(forest()).when(create(9, Some(3), "x")).then_expect_error(refused(CategoryRefusal::TooDeep));
    given(forest()).when(put(4, Some(3))).then_expect_error(refused(CategoryRefusal::TooDeep));
    given(forest()).when(put(1, Some(4))).then_expect_error(refused(CategoryRefusal::TooDeep));
    given(forest()).when(put(2, Some(4))).then_expect_events(vec![moved(2, Some(4))]);
}

#[test]
fn nothing_goes_below_itself() {
    for below in [1, 2, 3] {
        given(forest()).when(put(1, Some(below))).then_expect_error(refused(CategoryRefusal::Cycle));
    }
}

#[test]
fn a_parent_is_of_the_same_tree() {
    given(forest()).when(create(9, Some(99), "x")).then_expect_error(refused(CategoryRefusal::UnknownParent));
    given(forest()).when(put(4, Some(99))).then_expect_error(refused(CategoryRefusal::UnknownParent));
    given(forest()).when(reorder(Some(99), &[])).then_expect_error(refused(CategoryRefusal::UnknownParent));
    given(forest()).when(put(99, None)).then_expect_error(refused(CategoryRefusal::NotFound));
}

#[test]
fn what_is_so_already_is_no_fact() {
    given(forest()).when(change(1, "a")).then_expect_events(vec![]);
    given(forest()).when(put(2, Some(1))).then_expect_events(vec![]);
    given(forest()).when(reorder(None, &[1, 4])).then_expect_events(vec![]);
    given([forest(), vec![archived(1)]].concat()).when(archive(1)).then_expect_events(vec![]);
}

#[test]
fn what_is_archived_or_below_it_is_read_only() {
    let below_archived = || [forest(), vec![archived(1)]].concat();
    for command in [create(9, Some(2), "x"), change(1, "x"), change(3, "x"), put(2, None), put(4, Some(1))] {
        given(below_archived()).when(command).then_expect_error(refused(CategoryRefusal::Archived));
    }
    given(below_archived()).when(archive(3)).then_expect_events(vec![archived(3)]);
    let tree: CategoryTree = fixture::given(below_archived());
    let open = [1, 2, 3, 4].map(|n| tree.open(category(n)).map(OpenCategory::id));
    let closed = Err(CategoryRefusal::Archived);
    assert_eq!(open, [closed.clone(), closed.clone(), closed, Ok(category(4))]);
    assert_eq!(tree.open(category(99)), Err(CategoryRefusal::Unknown));
}

#[test]
fn what_was_archived_by_itself_is_restored_by_itself() {
    given([forest(), vec![archived(1)]].concat()).when(restore(1)).then_expect_events(vec![restored(1)]);
    given(forest()).when(restore(1)).then_expect_events(vec![]);
    given([forest(), vec![archived(1)]].concat()).when(restore(2)).then_expect_events(vec![]);
    given(forest()).when(restore(99)).then_expect_error(refused(CategoryRefusal::NotFound));
    let tree: CategoryTree = fixture::given([forest(), vec![archived(1), archived(3), restored(1)]].concat());
    assert_eq!([1, 2, 3].map(|n| tree.is_archived(category(n))), [false, false, true]);
}

#[test]
fn an_order_names_each_child_once() {
    let ordered = |order: &[u128]| {
        let order = order.iter().copied().map(category).collect();
        vec![CategoryEvent::Reordered(Reordered { parent: None, order })]
    };
    given(forest()).when(reorder(None, &[4, 1])).then_expect_events(ordered(&[4, 1]));
    for wrong in [&[4][..], &[4, 1, 1], &[4, 1, 2], &[]] {
        given(forest()).when(reorder(None, wrong)).then_expect_error(refused(CategoryRefusal::NotTheChildren));
    }
    let forest: CategoryTree = fixture::given([forest(), ordered(&[4, 1]), vec![created(5, None, "e")]].concat());
    let order: Vec<_> = forest.children(None).map(|it| it.id).collect();
    assert_eq!(order, [4, 1, 5].map(category));
}

#[test]
fn what_moves_goes_last_among_its_new_siblings_with_all_below_it() {
    let forest: CategoryTree = fixture::given([forest(), vec![moved(2, None)]].concat());
    assert_eq!(forest.children(None).map(|it| it.id).collect::<Vec<_>>(), [1, 4, 2].map(category));
    assert_eq!(forest.get(category(3)).and_then(|it| it.parent), Some(category(2)));
}

#[test]
fn a_community_has_a_thousand_categories() {
    let full = (0..limits::CATEGORIES as u128).map(|n| created(n, None, &n.to_string())).collect();
    given(full).when(create(9_999, None, "x")).then_expect_error(refused(CategoryRefusal::TooMany));
}
