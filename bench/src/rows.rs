//! What is measured, in groups that share what they are measured on.

mod append;

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
}

impl ValueEnum for Row {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.about()))
    }
}
