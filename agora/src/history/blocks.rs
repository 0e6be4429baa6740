//! A part of the history in order, read and written out by several tasks at once, in bounded memory.

use std::collections::VecDeque;

use events::{Delivered, Position, cloud_event};
use store_reader::{Copy, CopyError, StoreReader, Unreadable};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::Part;

/// Statements in flight. While one span is taken, the next is on its way; more gain nothing, as who takes is one.
const IN_FLIGHT: usize = 2;
/// Positions that one statement goes over: enough that what it costs to begin one does not show (1 ms of 30), and few, as
/// its snapshot keeps Postgres from clearing up until it has ended.
const SPAN: Position = 16_384;
/// Bytes after which a block is handed on.
const BLOCK_BYTES: usize = 256 * 1024;
/// Blocks of one statement that wait to be taken: 4 MiB, so that most spans end although nobody takes them yet.
const BLOCKS: usize = 16;

/// What events are gathered in on the way.
pub trait Gather: Default + Send + 'static {
    /// Takes one in; a refusal leaves it as it was.
    ///
    /// # Errors
    /// Why nobody can read the event.
    fn add(&mut self, event: Delivered) -> Result<(), Unreadable>;

    /// What it holds, in bytes, more or less.
    fn bytes(&self) -> usize;
}

/// Lines of JSON.
#[derive(Debug)]
pub struct Lines(pub Vec<u8>);

/// Some events that follow those of the block before.
#[derive(Debug)]
pub struct Block<G> {
    /// The events.
    pub gathered: G,
    /// How many.
    pub events: u64,
    /// How many more there were that nobody can read, and that every reader leaves out.
    pub left_out: u64,
    /// The part is read up to here.
    pub through: Position,
}

/// A part of the history, block by block.
pub struct Blocks<G> {
    store: StoreReader,
    part: Part,
    /// The next span begins behind this.
    next: Position,
    running: VecDeque<Receiver<anyhow::Result<Block<G>>>>,
}

impl Default for Lines {
    /// With room for a block and its last line, mostly: to grow there step by step copies it over and over.
    fn default() -> Self {
        Self(Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 16))
    }
}

impl Gather for Lines {
    fn add(&mut self, event: Delivered) -> Result<(), Unreadable> {
        cloud_event::write_lines(&event, &mut self.0).map_err(|error| Unreadable::of(&event.envelope, error))
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl<G: Gather> Blocks<G> {
    /// Begins to read.
    pub fn of(store: StoreReader, part: Part) -> Self {
        Self { store, next: part.after, part, running: VecDeque::new() }
    }

    /// The next block; none at the end. A block may have no events, and says how far they were looked for.
    ///
    /// # Errors
    /// Those of the database, and an event that cannot be read and that nobody left out: after what precedes it.
    pub async fn next(&mut self) -> anyhow::Result<Option<Block<G>>> {
        loop {
            while self.running.len() < IN_FLIGHT && self.next < self.part.through {
                self.begin_span();
            }
            let Some(span) = self.running.front_mut() else { return Ok(None) };
            match span.recv().await {
                Some(block) => return block.map(Some),
                None => self.running.pop_front(),
            };
        }
    }

    fn begin_span(&mut self) {
        let after = self.next;
        self.next = self.part.through.min(after + SPAN);
        let (sender, receiver) = mpsc::channel(BLOCKS);
        let part = Part { after, through: self.next, ..self.part.clone() };
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = read(&store, part, &sender).await {
                // Nobody to tell: whoever read has gone.
                let _ = sender.send(Err(error)).await;
            }
        });
        self.running.push_back(receiver);
    }
}

async fn read<G: Gather>(
    store: &StoreReader,
    part: Part,
    sender: &Sender<anyhow::Result<Block<G>>>,
) -> anyhow::Result<()> {
    let mut copy = store.copy(part.after, part.through, &part.filter).await?;
    let mut block = Block { gathered: G::default(), events: 0, left_out: 0, through: part.after };
    loop {
        // Asked beside the rows, on the connection that is kept for that.
        let step = match next(copy.next().await, &part, &mut block) {
            Err(error) => pass_by(store, error, &mut block).await,
            more => more,
        };
        let ended = !matches!(step, Ok(true));
        if block.gathered.bytes() >= BLOCK_BYTES || ended {
            let through = if matches!(step, Ok(false)) { part.through } else { block.through };
            let next = Block { gathered: G::default(), events: 0, left_out: 0, through };
            let full = Block { through, ..std::mem::replace(&mut block, next) };
            if sender.send(Ok(full)).await.is_err() {
                read_to_end(copy).await;
                return Ok(());
            }
        }
        if ended {
            read_to_end(copy).await;
            return step.map(drop);
        }
    }
}

/// Before a copy has ended, its connection is not fit for the next statement. It is a span at most.
async fn read_to_end(mut copy: Copy) {
    while !matches!(copy.next().await, Ok(None) | Err(CopyError::Database(_))) {}
}

/// Gathers one event; false where there is none any more.
fn next<G: Gather>(
    event: Result<Option<Delivered>, CopyError>,
    part: &Part,
    block: &mut Block<G>,
) -> anyhow::Result<bool> {
    let event = match event {
        Ok(Some(event)) => event,
        Ok(None) => return Ok(false),
        Err(CopyError::Unreadable(unreadable)) => return Err(unreadable.into()),
        Err(CopyError::Database(error)) => return Err(error.into()),
    };
    anyhow::ensure!(event.history == part.history, "the event store was put back to an earlier state meanwhile");
    let position = event.envelope.position;
    block.gathered.add(event)?;
    block.events += 1;
    block.through = position;
    Ok(true)
}

/// Goes on where what stopped it is an event that every reader leaves out.
async fn pass_by<G>(store: &StoreReader, stop: anyhow::Error, block: &mut Block<G>) -> anyhow::Result<bool> {
    let unreadable: Unreadable = stop.downcast()?;
    if !store.is_left_out(unreadable.event_id).await? {
        return Err(unreadable.into());
    }
    block.left_out += 1;
    block.through = unreadable.position;
    Ok(true)
}
