//! The chassis every service stands on: configuration, telemetry, HTTP, problems, databases, Kafka, identity. It knows
//! nothing of what the services are about.

pub mod config;
pub mod db;
pub mod extract;
pub mod health;
pub mod http;
pub mod identity;
pub mod instances;
pub mod kafka;
pub mod lease;
pub mod limits;
pub mod openapi;
pub mod origin;
pub mod patience;
pub mod problem;
pub mod sabotage;
pub mod telemetry;

#[cfg(test)]
mod testing;
