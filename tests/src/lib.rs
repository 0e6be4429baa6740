//! What the tests stand on: real servers, started once and gone when the test process is.

pub mod forum;
pub mod kafka;
pub mod postgres;
mod reaper;
