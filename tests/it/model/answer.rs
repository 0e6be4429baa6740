//! From rows to answers: one thing that changes, its rows and their checkpoint, the notices of it, the cache of a
//! query-service, and readers who bring the position that they want to see.

use stateright::{Model, Property};

use super::explore;

const EVENTS: usize = 3;
const LOST_NOTICES: u8 = 1;
const READERS: usize = 2;
const READS: u8 = 2;

/// A promise that is broken, to see that it is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// `token-from-memory`.
    TokenFromMemory,
    /// `notice-lost`.
    NoticeLost,
    /// `old-load`.
    OldLoad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Idle,
    /// It wants to see that much.
    Wants(usize),
    /// The checkpoints have passed it.
    Reached(usize),
    /// It waits for the load that is under way.
    Joined(usize),
}

/// An answer, or one that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    /// The clock before its rows were read.
    born: usize,
    /// What its rows show; not read yet where there is none.
    shows: Option<usize>,
    /// Up to where it says that they do.
    reflects: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    appended: usize,
    /// Rows and checkpoint: one transaction writes both.
    rows: usize,
    /// Each change, and what was before it.
    notices: Vec<usize>,
    lost_notices: u8,
    /// Up to where every change is noted, and what of the checkpoints was seen.
    noted: usize,
    seen: usize,
    clock: usize,
    /// When the thing last changed, as far as is known.
    changed: usize,
    kept: Option<Entry>,
    load: Option<Entry>,
    readers: [Reader; READERS],
    reads: u8,
    /// Somebody was shown less than he wanted.
    less: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Append,
    Commit,
    Notice,
    LoseNotice,
    Look,
    Ask(usize),
    Answer(usize),
    ReadRows,
    EndLoad,
}

struct Answering(Broken);

impl State {
    fn touch(&mut self) {
        self.clock += 1;
        self.changed = self.clock;
    }

    /// Nothing is on its way.
    fn at_rest(&self) -> bool {
        let looked = self.seen == self.rows && self.noted == self.rows;
        self.rows == self.appended && looked && self.notices.is_empty() && self.load.is_none()
    }

    fn is_current(&self, entry: Entry) -> bool {
        self.changed <= entry.born
    }

    /// Whether an entry is good for who wants that much.
    fn is_good(&self, entry: Entry, wanted: usize) -> bool {
        let reflects = if self.is_current(entry) { self.noted.max(entry.reflects) } else { entry.reflects };
        reflects >= wanted
    }

    fn show(&mut self, reader: usize, entry: Entry, wanted: usize) {
        self.less |= entry.shows.is_none_or(|shown| shown < wanted);
        self.readers[reader] = Reader::Idle;
    }
}

impl Answering {
    /// A break in the chain: everything may have changed.
    fn lose(&self, state: &mut State) {
        if self.0 != Broken::NoticeLost {
            state.touch();
        }
    }

    fn hear(&self, state: &mut State) {
        let before = state.notices.remove(0);
        if before > state.noted {
            self.lose(state);
        } else {
            state.touch();
        }
        state.noted = state.noted.max(before + 1);
    }

    fn look(&self, state: &mut State) {
        state.seen = state.rows;
        if state.noted < state.rows {
            self.lose(state);
            state.noted = state.rows;
        }
    }

    fn answer(state: &mut State, reader: usize) {
        match state.readers[reader] {
            Reader::Wants(wanted) if state.seen >= wanted => state.readers[reader] = Reader::Reached(wanted),
            Reader::Reached(wanted) => match state.kept {
                Some(kept) if state.is_current(kept) && state.is_good(kept, wanted) => {
                    state.show(reader, kept, wanted);
                }
                _ => {
                    state.load.get_or_insert(Entry { born: state.clock, shows: None, reflects: 0 });
                    state.readers[reader] = Reader::Joined(wanted);
                }
            },
            Reader::Idle | Reader::Wants(_) | Reader::Joined(_) => {}
        }
    }

    fn end_load(&self, state: &mut State) {
        let Some(mut entry) = state.load.take() else { return };
        if self.0 == Broken::TokenFromMemory {
            entry.reflects = state.seen;
        }
        if self.0 == Broken::OldLoad {
            entry.born = state.clock;
        }
        state.kept = Some(entry);
        for reader in 0..READERS {
            let Reader::Joined(wanted) = state.readers[reader] else { continue };
            if state.is_good(entry, wanted) {
                state.show(reader, entry, wanted);
            } else {
                state.readers[reader] = Reader::Reached(wanted);
            }
        }
    }
}

impl Model for Answering {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            appended: 0,
            rows: 0,
            notices: vec![],
            lost_notices: LOST_NOTICES,
            noted: 0,
            seen: 0,
            clock: 0,
            changed: 0,
            kept: None,
            load: None,
            readers: [Reader::Idle; READERS],
            reads: READS,
            less: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.appended < EVENTS {
            actions.push(Action::Append);
        }
        if state.rows < state.appended {
            actions.push(Action::Commit);
        }
        if !state.notices.is_empty() {
            actions.push(Action::Notice);
            if state.lost_notices > 0 {
                actions.push(Action::LoseNotice);
            }
        }
        if state.seen < state.rows || state.noted < state.rows {
            actions.push(Action::Look);
        }
        for (n, reader) in state.readers.iter().enumerate() {
            match reader {
                Reader::Idle if state.reads > 0 => actions.push(Action::Ask(n)),
                Reader::Wants(_) | Reader::Reached(_) => actions.push(Action::Answer(n)),
                Reader::Idle | Reader::Joined(_) => {}
            }
        }
        if let Some(load) = state.load {
            actions.push(if load.shows.is_none() { Action::ReadRows } else { Action::EndLoad });
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Append => state.appended += 1,
            Action::Commit => {
                state.notices.push(state.rows);
                state.rows += 1;
            }
            Action::Notice => self.hear(&mut state),
            Action::LoseNotice => {
                state.lost_notices -= 1;
                state.notices.remove(0);
            }
            Action::Look => self.look(&mut state),
            Action::Ask(reader) => {
                state.reads -= 1;
                state.readers[reader] = Reader::Wants(state.appended);
            }
            Action::Answer(reader) => Self::answer(&mut state, reader),
            Action::ReadRows => {
                // Rows and checkpoint in one snapshot.
                let load = state.load.as_mut()?;
                (load.shows, load.reflects) = (Some(state.rows), state.rows);
            }
            Action::EndLoad => self.end_load(&mut state),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nobody is shown less than he wants to see", |_: &Self, state: &State| !state.less),
            Property::always("what is kept at rest is what there is", |_: &Self, state: &State| {
                let kept = state.kept.filter(|kept| state.is_current(*kept));
                !state.at_rest() || kept.is_none_or(|kept| kept.shows == Some(state.rows))
            }),
            Property::sometimes("all is seen from what is kept", |_: &Self, state: &State| {
                state.reads == 0 && state.kept.is_some_and(|kept| kept.shows == Some(EVENTS) && state.is_current(kept))
            }),
        ]
    }
}

#[test]
fn a_reader_sees_what_he_wants_and_what_is_kept_is_not_old() {
    let (states, violated) = explore(Answering(Broken::Nothing));
    assert_eq!(violated, Vec::<&str>::new());
    assert!(states > 1_000, "{states} states are not everything that can happen");
}

#[test]
fn a_broken_promise_is_found_out() {
    for broken in [Broken::TokenFromMemory, Broken::NoticeLost, Broken::OldLoad] {
        let (_, violated) = explore(Answering(broken));
        assert!(!violated.is_empty(), "{broken:?} was not found");
    }
}
