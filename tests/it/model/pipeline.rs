//! From events to rows: one shard, two relays that both believe they lead, two projectors that share it, a broker that
//! forgets, a store that was put back.
//!
//! What must always hold: the rows are the store's events up to the checkpoint, each once and in order; and where nothing
//! more will happen by itself, all of them are there.

use stateright::{Model, Property};

use super::explore;

/// What may happen in one run, at most.
const EVENTS: usize = 2;
const CRASHES: u8 = 1;
const WIPES: u8 = 1;
const RESTORES: u8 = 1;

/// A promise that is broken, to see that it is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// `no-compare-and-set`.
    CompareAndSet,
    /// `checkpoint-apart`.
    OneTransaction,
    /// `no-gap-filling`.
    GapFilling,
    /// `no-tail-check`.
    TailCheck,
    /// `any-history`.
    HistoryId,
}

/// An event, by the order in which it was made: another one at the same position is another event.
type Id = u8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Message {
    history: u8,
    previous: usize,
    position: usize,
    id: Id,
}

/// What a projector has folded and not yet written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Folded {
    history: u8,
    from: usize,
    to: usize,
    ids: Vec<Id>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Projector {
    /// Where it believes its lane stands; not at all after a start or a failure.
    at: Option<(u8, usize)>,
    /// What it has heard of.
    target: usize,
    offset: usize,
    folded: Option<Folded>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    store: Vec<Id>,
    made: Id,
    history: u8,
    /// How far each relay has sent; the one that froze goes on where it was.
    relays: [usize; 2],
    topic: Vec<Message>,
    projectors: [Projector; 2],
    rows: Vec<Id>,
    checkpoint: (u8, usize),
    crashes: u8,
    wipes: u8,
    restores: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Append,
    Send(usize),
    Consume(usize),
    Fill(usize),
    Write(usize),
    CrashRelay(usize),
    CrashProjector(usize),
    Wipe,
    Restore,
}

struct Protocol(Broken);

impl State {
    fn beginning() -> Self {
        Self {
            store: vec![],
            made: 0,
            history: 0,
            relays: [0; 2],
            topic: vec![],
            projectors: [Projector::default(), Projector::default()],
            rows: vec![],
            checkpoint: (0, 0),
            crashes: CRASHES,
            wipes: WIPES,
            restores: RESTORES,
        }
    }

    /// Whether a projector has something to fill: it heard of more than it has, or the tail check finds more.
    fn is_behind(&self, projector: &Projector, broken: Broken) -> bool {
        match projector.at {
            None => true,
            Some((history, at)) => {
                let heard = projector.target > at && broken != Broken::GapFilling;
                let tail = self.checkpoint.1 < self.store.len() && broken != Broken::TailCheck;
                history != self.checkpoint.0 || heard || tail
            }
        }
    }
}

impl Protocol {
    /// What goes on by itself: none of it is a fault, and none waits for a client.
    fn goes_on(&self, state: &State) -> Vec<Action> {
        let mut actions = vec![];
        for n in 0..2 {
            let projector = &state.projectors[n];
            if state.relays[n] < state.store.len() {
                actions.push(Action::Send(n));
            }
            if projector.folded.is_some() {
                actions.push(Action::Write(n));
                continue;
            }
            if projector.offset < state.topic.len() {
                actions.push(Action::Consume(n));
            }
            if state.is_behind(projector, self.0) {
                actions.push(Action::Fill(n));
            }
        }
        actions
    }

    fn consume(&self, state: &mut State, n: usize) {
        let message = state.topic[state.projectors[n].offset].clone();
        let projector = &mut state.projectors[n];
        projector.offset += 1;
        let Some((history, at)) = projector.at else { return };
        let ours = message.history == history || self.0 == Broken::HistoryId;
        if !ours || message.position <= at {
            return;
        }
        projector.target = projector.target.max(message.position);
        if message.previous == at || self.0 == Broken::GapFilling {
            let folded = Folded { history, from: at, to: message.position, ids: vec![message.id] };
            self.fold(state, n, folded);
        }
    }

    /// From the store, from where the database says that the lane stands.
    fn fill(&self, state: &mut State, n: usize) {
        let (history, from) = state.checkpoint;
        state.projectors[n].at = Some((history, from));
        let to = (from + 1).min(state.store.len());
        if to > from {
            let ids = state.store[from..to].to_vec();
            self.fold(state, n, Folded { history, from, to, ids });
        } else {
            state.projectors[n].target = from;
        }
    }

    fn fold(&self, state: &mut State, n: usize, folded: Folded) {
        if self.0 == Broken::OneTransaction {
            // The checkpoint is committed by itself, and the rows some time after.
            if state.checkpoint != (folded.history, folded.from) {
                state.projectors[n].at = None;
                return;
            }
            state.checkpoint.1 = folded.to;
        }
        state.projectors[n].folded = Some(folded);
    }

    fn write(&self, state: &mut State, n: usize) {
        let Some(folded) = state.projectors[n].folded.take() else { return };
        let stands = state.checkpoint == (folded.history, folded.from);
        if stands || matches!(self.0, Broken::CompareAndSet | Broken::OneTransaction) {
            state.rows.extend(&folded.ids);
            state.checkpoint = (folded.history, folded.to);
            state.projectors[n].at = Some((folded.history, folded.to));
        } else {
            state.projectors[n].at = None;
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::beginning()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(self.goes_on(state));
        if usize::from(state.made) < EVENTS {
            actions.push(Action::Append);
        }
        if state.crashes > 0 {
            actions.extend((0..2).flat_map(|n| [Action::CrashRelay(n), Action::CrashProjector(n)]));
        }
        if state.wipes > 0 && !state.topic.is_empty() {
            actions.push(Action::Wipe);
        }
        if state.restores > 0 && !state.store.is_empty() {
            actions.push(Action::Restore);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Append => {
                state.made += 1;
                state.store.push(state.made);
            }
            Action::Send(n) => {
                let previous = state.relays[n];
                let (position, id) = (previous + 1, state.store[previous]);
                state.topic.push(Message { history: state.history, previous, position, id });
                state.relays[n] = position;
            }
            Action::Consume(n) => self.consume(&mut state, n),
            Action::Fill(n) => self.fill(&mut state, n),
            Action::Write(n) => self.write(&mut state, n),
            Action::CrashRelay(n) => {
                state.crashes -= 1;
                // What it had noted may be older than what it has sent.
                state.relays[n] = 0;
            }
            Action::CrashProjector(n) => {
                state.crashes -= 1;
                state.projectors[n] = Projector::default();
            }
            Action::Wipe => {
                state.wipes -= 1;
                state.topic.clear();
                state.projectors.iter_mut().for_each(|projector| projector.offset = 0);
            }
            Action::Restore => {
                // The services start anew on it, and find that the checkpoints know more than it does.
                state.restores -= 1;
                state.store.pop();
                state.history += 1;
                state.relays = [0; 2];
                (state.rows, state.checkpoint) = (vec![], (state.history, 0));
                let offsets = state.projectors.clone().map(|projector| projector.offset);
                state.projectors = offsets.map(|offset| Projector { offset, ..Projector::default() });
            }
        }
        // Sending again and again what is there already leads nowhere new.
        (state.topic.len() <= 2 * EVENTS).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "the rows are the store's events up to the checkpoint",
                |protocol: &Self, state: &State| {
                    let written = state.store.get(..state.checkpoint.1);
                    // Apart, they are so only once both are committed.
                    let midway = protocol.0 == Broken::OneTransaction
                        && state.projectors.iter().any(|projector| projector.folded.is_some());
                    midway || written.is_some_and(|events| events == state.rows)
                },
            ),
            Property::always("what is left alone comes to show all", |protocol: &Self, state: &State| {
                !protocol.goes_on(state).is_empty() || state.rows == state.store
            }),
            Property::sometimes("all is shown", |_: &Self, state: &State| state.rows.len() == EVENTS),
        ]
    }
}

#[test]
fn whatever_happens_rows_are_the_events_and_come_to_be_all_of_them() {
    let (states, violated) = explore(Protocol(Broken::Nothing));
    assert_eq!(violated, Vec::<&str>::new());
    assert!(states > 10_000, "{states} states are not everything that can happen");
}

#[test]
fn a_broken_promise_is_found_out() {
    for broken in
        [Broken::CompareAndSet, Broken::OneTransaction, Broken::GapFilling, Broken::TailCheck, Broken::HistoryId]
    {
        let (_, violated) = explore(Protocol(broken));
        assert!(!violated.is_empty(), "{broken:?} was not found");
    }
}
