//! A version more of one event, in a build for the tests of an upgrade (`--features next-version`): it stands for a release
//! to come. In every other build nothing of it is there.

use crate::upcast::{Step, Versioned};

/// The event that has it: no other than its own command writes it.
const NAME: &str = "community.archived";

/// Its newest version.
pub(crate) const VERSION: u32 = if cfg!(feature = "next-version") { 2 } else { 1 };

/// What brings the old version to it: both say the same.
pub(crate) const STEPS: &[Step] = if cfg!(feature = "next-version") {
    &[Step { name: NAME, from: 1, run: |payload| Ok(vec![Versioned { name: NAME, version: VERSION, payload }]) }]
} else {
    &[]
};
