//! Agora as one binary: the command line ([`cli`], and a file for each command in [`command`]), all services in one
//! process ([`stack`]), a Postgres of our own ([`embedded`]), and the bulk work that posts through the API like any
//! client ([`client`]): the [`import`] of other forums' history, and the [`demo`]; and what analysts take out of it
//! ([`history`]).

mod claims;
pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod daily_check;
pub mod demo;
pub mod derive;
pub mod embedded;
pub mod history;
pub mod import;
pub mod local;
pub mod slug;
pub mod stack;
pub mod terminal;
