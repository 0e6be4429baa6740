//! The binary as a person meets it, in processes of its own: what it says, what it does, and what outlives it.

mod agora;
mod client;
mod demo;
mod export;
mod history;
mod import;
mod jobs;
mod machine;
mod metrics;
mod postgres;
mod reaper;
mod restore;
mod tables;
mod tour;
mod up;
mod words;
