//! Agora's write side: aggregates ([`cqrs_es::Aggregate`]), command endpoints, and the event store.

#[macro_use]
mod macros;

pub mod access;
pub mod account;
pub mod category;
pub mod community;
pub mod membership;
pub mod post;
pub mod reaction;
mod refusal;
pub mod store;
pub mod thread;

#[cfg(test)]
mod fixture;

pub use refusal::Refusal;
