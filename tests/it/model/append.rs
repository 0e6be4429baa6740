//! From commands to events: one thread that is locked, unlocked and replied to, by two services that each remember how
//! it stood when they last looked.

use stateright::{Model, Property};

use super::explore;

/// What clients send: each command once, the reply once more under the same key where its answer is lost.
const COMMANDS: [Command; 4] = [Command::Lock, Command::Unlock, Command::Lock, Command::Reply];
const SERVICES: usize = 2;
const LOST_ANSWERS: u8 = 1;

/// A promise that is broken, to see that it is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// `lock-and-check-at-once`.
    LockAndCheck,
    /// `no-guards`.
    Guards,
    /// `blind-flush`.
    Flush,
    /// `unconfirmed`.
    Confirmation,
    /// `no-receipt`.
    Receipt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Command {
    Lock,
    Unlock,
    /// Refused while the thread is locked. It writes another stream, and is guarded by the thread's version.
    Reply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Locked,
    Unlocked,
    /// By the number of its command.
    Replied(usize),
}

/// What a command comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Decision {
    Write(Event),
    /// "Nothing to do", or a refusal: that the thread is locked, or not, is what is claimed.
    Claim {
        locked: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    New,
    Sent {
        service: usize,
        since: usize,
    },
    /// Decided on the thread at that version.
    Decided {
        service: usize,
        since: usize,
        version: usize,
        decision: Decision,
    },
    /// Its flush waits for the lock of all appends; the thread was at `seen` when it began to.
    Flushing {
        service: usize,
        since: usize,
        version: usize,
        decision: Decision,
        seen: usize,
    },
    Answered,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    store: Vec<Event>,
    commands: [Stage; COMMANDS.len()],
    /// The version of the thread that each service has in memory.
    remembered: [usize; SERVICES],
    receipts: Vec<usize>,
    lost_answers: u8,
    /// Something was claimed that was not so at any time since it was asked.
    lied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Send {
        command: usize,
        service: usize,
    },
    Decide(usize),
    Begin(usize),
    Commit(usize),
    /// Two commands in one flush, in this order.
    Together(usize, usize),
    LoseAnswer(usize),
}

struct Appending(Broken);

impl State {
    /// Where the thread's own stream ends.
    fn version(&self) -> usize {
        self.store.iter().filter(|event| !matches!(event, Event::Replied(_))).count()
    }

    /// Whether the thread is locked at a version.
    fn locked_at(&self, version: usize) -> bool {
        let mut thread = self.store.iter().filter(|event| !matches!(event, Event::Replied(_)));
        version > 0 && thread.nth(version - 1) == Some(&Event::Locked)
    }

    /// Whether it was so at some time since the store was so long.
    fn was_so(&self, locked: bool, since: usize) -> bool {
        (since..=self.store.len()).any(|end| {
            let last = self.store[..end].iter().rev().find(|event| !matches!(event, Event::Replied(_)));
            (last == Some(&Event::Locked)) == locked
        })
    }
}

impl Appending {
    fn decide(&self, state: &mut State, command: usize) {
        let Stage::Sent { service, since } = state.commands[command] else { return };
        let version = state.remembered[service];
        let locked = state.locked_at(version);
        let decision = match COMMANDS[command] {
            Command::Lock if !locked => Decision::Write(Event::Locked),
            Command::Unlock if locked => Decision::Write(Event::Unlocked),
            Command::Reply if !locked => Decision::Write(Event::Replied(command)),
            Command::Lock | Command::Unlock | Command::Reply => Decision::Claim { locked },
        };
        state.commands[command] = Stage::Decided { service, since, version, decision };
        if self.0 == Broken::Confirmation && matches!(decision, Decision::Claim { .. }) {
            Self::answer(state, command, decision, since);
        }
    }

    /// Carries it out where what it rests on is `seen`; else it is decided anew.
    fn carry_out(&self, state: &mut State, command: usize, seen: usize) {
        let (Stage::Decided { service, since, version, decision }
        | Stage::Flushing { service, since, version, decision, .. }) = state.commands[command]
        else {
            return;
        };
        let replayed = state.receipts.contains(&command) && self.0 != Broken::Receipt;
        let guarded = !matches!(decision, Decision::Write(Event::Replied(_))) || self.0 != Broken::Guards;
        if replayed {
            state.commands[command] = Stage::Answered;
        } else if guarded && version != seen {
            state.remembered[service] = state.version();
            state.commands[command] = Stage::Sent { service, since };
        } else {
            if let Decision::Write(event) = decision {
                state.store.push(event);
                state.receipts.push(command);
            }
            Self::answer(state, command, decision, since);
        }
    }

    fn answer(state: &mut State, command: usize, decision: Decision, since: usize) {
        state.commands[command] = Stage::Answered;
        if let Decision::Claim { locked } = decision {
            state.lied |= !state.was_so(locked, since);
        }
    }
}

impl Model for Appending {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            store: vec![],
            commands: [Stage::New; COMMANDS.len()],
            remembered: [0; SERVICES],
            receipts: vec![],
            lost_answers: LOST_ANSWERS,
            lied: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (command, stage) in state.commands.iter().enumerate() {
            match stage {
                Stage::New => actions.extend((0..SERVICES).map(|service| Action::Send { command, service })),
                Stage::Sent { .. } => actions.push(Action::Decide(command)),
                Stage::Decided { service, .. } => {
                    actions.push(Action::Begin(command));
                    let beside = |other: &usize| {
                        *other != command
                            && matches!(&state.commands[*other], Stage::Decided { service: its, .. } if its == service)
                    };
                    actions.extend((0..COMMANDS.len()).filter(beside).map(|other| Action::Together(command, other)));
                }
                Stage::Flushing { .. } => actions.push(Action::Commit(command)),
                Stage::Answered if COMMANDS[command] == Command::Reply && state.lost_answers > 0 => {
                    actions.push(Action::LoseAnswer(command));
                }
                Stage::Answered => {}
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Send { command, service } => {
                state.commands[command] = Stage::Sent { service, since: state.store.len() };
            }
            Action::Decide(command) => self.decide(&mut state, command),
            Action::Begin(command) => {
                let Stage::Decided { service, since, version, decision } = state.commands[command] else { return None };
                let seen = state.version();
                state.commands[command] = Stage::Flushing { service, since, version, decision, seen };
            }
            Action::Commit(command) => {
                let Stage::Flushing { seen, .. } = state.commands[command] else { return None };
                // It has the lock now: what it checks is of now, unless it was looked at before.
                let seen = if self.0 == Broken::LockAndCheck { seen } else { state.version() };
                self.carry_out(&mut state, command, seen);
            }
            Action::Together(first, second) => {
                let before = state.version();
                self.carry_out(&mut state, first, before);
                let seen = if self.0 == Broken::Flush { before } else { state.version() };
                self.carry_out(&mut state, second, seen);
            }
            Action::LoseAnswer(command) => {
                state.lost_answers -= 1;
                state.commands[command] = Stage::New;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nobody replies to a locked thread", |_: &Self, state: &State| {
                let mut locked = false;
                state.store.iter().all(|event| {
                    locked = match event {
                        Event::Locked => true,
                        Event::Unlocked => false,
                        Event::Replied(_) => return !locked,
                    };
                    true
                })
            }),
            Property::always("a thread that is locked is not locked again", |_: &Self, state: &State| {
                let thread: Vec<_> = state.store.iter().filter(|event| !matches!(event, Event::Replied(_))).collect();
                thread.windows(2).all(|two| two[0] != two[1])
            }),
            Property::always("a command takes effect once", |_: &Self, state: &State| {
                state.store.iter().filter(|event| matches!(event, Event::Replied(_))).count() <= 1
            }),
            Property::always("what is claimed was so", |_: &Self, state: &State| !state.lied),
            Property::sometimes("all are answered, and all wrote", |_: &Self, state: &State| {
                state.store.len() == COMMANDS.len() && state.commands.iter().all(|it| *it == Stage::Answered)
            }),
        ]
    }
}

#[test]
fn commands_take_effect_once_and_on_what_holds() {
    let (states, violated) = explore(Appending(Broken::Nothing));
    assert_eq!(violated, Vec::<&str>::new());
    assert!(states > 10_000, "{states} states are not everything that can happen");
}

#[test]
fn a_broken_promise_is_found_out() {
    for (broken, shows) in [
        (Broken::LockAndCheck, ["nobody replies to a locked thread", "a thread that is locked is not locked again"]),
        (Broken::Guards, ["nobody replies to a locked thread"; 2]),
        (Broken::Flush, ["nobody replies to a locked thread", "a thread that is locked is not locked again"]),
        (Broken::Confirmation, ["what is claimed was so"; 2]),
        (Broken::Receipt, ["a command takes effect once"; 2]),
    ] {
        let (_, violated) = explore(Appending(broken));
        assert!(violated.iter().any(|name| shows.contains(name)), "{broken:?} was not found: {violated:?}");
    }
}
