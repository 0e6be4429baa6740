//! Every test over the real parts, in one binary: the servers are started once.

mod account;
mod bad_input;
mod category;
mod community;
mod contention;
mod cqrs_es;
mod database;
mod embedded;
mod event_store;
mod history;
mod http;
mod identity;
mod jobs;
mod membership;
mod model;
mod moderation_log;
mod pipeline;
mod post;
mod projector;
mod query_service;
mod reaction;
mod session;
mod support;
mod thread;
mod topics;
mod upgrade;
