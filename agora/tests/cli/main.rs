//! The binary as a person meets it, in processes of its own: what it says, what it does, and what outlives it.

mod agora;
mod client;
mod import;
mod postgres;
mod reaper;
mod tables;
mod up;
mod words;
