//! Every test over the real parts, in one binary: the servers are started once.

mod embedded;
mod event_store;
mod pipeline;
mod support;
