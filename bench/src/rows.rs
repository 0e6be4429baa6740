//! What is measured, in groups that share what they are measured on.

mod append;
mod cold;
mod command;
mod connections;
mod fresh;
mod history;
mod memory;
mod projection;
mod reads;
mod rebuild;
mod rebuilding;
mod relay;
mod size;
mod uncached;
mod visible;

use clap::{ValueEnum, builder::PossibleValue};

use crate::{lab::Lab, report::Report};

macro_rules! rows {
    ($($row:ident = $module:ident: $about:literal,)+) => {
        /// A group of rows, by its name on the command line.
        #[derive(Clone, Copy, Debug)]
        pub enum Row {
            $(#[doc = $about] $row,)+
        }

        impl Row {
            /// All of them, in the order in which they are measured.
            pub const ALL: &'static [Self] = &[$(Self::$row,)+];

            /// As it is called.
            pub fn name(self) -> &'static str {
                match self { $(Self::$row => stringify!($module),)+ }
            }

            /// Measures it.
            ///
            /// # Errors
            /// Where something does not run; never for a number.
            pub async fn measure(self, lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
                match self { $(Self::$row => Box::pin($module::measure(lab, report)).await,)+ }
            }

            fn about(self) -> &'static str {
                match self { $(Self::$row => $about,)+ }
            }
        }
    };
}

rows! {
    Append = append: "the event store alone, from 1 to 1,024 commands in flight",
    Command = command: "commands over HTTP, at most, one alone, and all into one thread",
    Reads = reads: "cached reads over HTTP, as a guest and signed in",
    Uncached = uncached: "reads that no cache has",
    Cold = cold: "a cache that is empty after a restart, at 2,000 reads/s",
    Memory = memory: "an idle `agora up`, and what a connection that rests adds to it",
    Connections = connections: "10,000 open connections, 1% of them active",
    Rebuild = rebuild: "read tables made anew, beside COPY of the events out and the rows in",
    History = history: "the event history into this process, as NDJSON and as Parquet, beside COPY to a file",
    Visible = visible: "from a command's answer to a read that shows it, at 500 commands/s",
    Rebuilding = rebuilding: "reads while a rebuild runs and 200 commands/s come in",
    Relay = relay: "from the store to Kafka, catching up and live",
    Projection = projection: "all projections, live, through Kafka",
    Fresh = fresh: "from a start on an empty read database to caught up, beside a rebuild",
    Size = size: "what a larger store, a longer thread and a longer stream cost",
}

impl ValueEnum for Row {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.about()))
    }
}
