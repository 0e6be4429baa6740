//! What the tests stand on: real servers, started once and gone when the test process is.

pub mod contract;
pub mod counts;
pub mod faults;
pub mod forum;
pub mod kafka;
pub mod pages;
pub mod postgres;
pub mod reaper;
pub mod sse;
pub mod store;
pub mod telemetry;
