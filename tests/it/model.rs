//! The protocols that everything rests on, small enough to look at everything that can happen: from commands to events,
//! from events to rows, from rows to answers. Each promise that the fault campaign breaks on purpose
//! (`./dev faults --sabotage`) is broken here too, and found.

use stateright::{Checker, HasDiscoveries, Model};

mod answer;
mod append;
mod pipeline;

/// Looks at every interleaving; answers how many states there are, and which properties do not hold. What is to happen
/// at least once does.
fn explore<M>(model: M) -> (usize, Vec<&'static str>)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + std::hash::Hash + PartialEq + Send + Sync,
    M::Action: std::fmt::Debug + Clone + PartialEq + Send,
{
    let happens: Vec<_> = model
        .properties()
        .iter()
        .filter(|property| matches!(property.expectation, stateright::Expectation::Sometimes))
        .map(|property| property.name)
        .collect();
    let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let mut violated: Vec<_> = found.keys().copied().filter(|name| !happens.contains(name)).collect();
    violated.sort_unstable();
    for name in happens {
        assert!(found.contains_key(name) || !violated.is_empty(), "it never happens that {name}");
    }
    (checker.unique_state_count(), violated)
}
