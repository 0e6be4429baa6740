//! Whether all services serve: one command through each, and a read of it from each.

use anyhow::{Context as _, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Cluster, Person, Role, World, mark, reflected, text};

/// Somebody who looks whether all serve.
pub(crate) struct Probe {
    person: Person,
    thread: String,
    client: Client,
}

impl Probe {
    /// With an account and a thread of its own.
    ///
    /// # Errors
    /// Where they cannot be had.
    pub(crate) async fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let world = World::of(cluster)?;
        let person = world.register("probe").await?;
        let thread = world.place_of_ones_own(&person, "probe").await?;
        Ok(Self { person, thread, client: world.client })
    }

    /// Writes through every command-service, and reads it back from every query-service.
    ///
    /// # Errors
    /// Who does not serve.
    pub(crate) async fn try_all(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        for command in cluster.addresses(Role::Command) {
            let written = self
                .client
                .post(format!("http://{command}/v2/threads/{}/posts", self.thread))
                .bearer_auth(&self.person.bearer)
                .json(&json!({"body": mark(Uuid::now_v7())}))
                .send()
                .await
                .with_context(|| format!("{command} takes no command"))?;
            ensure!(
                written.status() == 201,
                "{command} answers a command {}: {}",
                written.status(),
                written.text().await?
            );
            let position = reflected(&written).first().context("a position")?.to_string();
            let body: Value = written.json().await?;
            for query in cluster.addresses(Role::Query) {
                let read = self
                    .client
                    .get(format!("http://{query}/v2/posts/{}", text(&body["id"])?))
                    .header("agora-position", &position)
                    .header("prefer", "wait=2")
                    .send()
                    .await
                    .with_context(|| format!("{query} answers no read"))?;
                ensure!(read.status() == 200, "{query} answers a read {}: {}", read.status(), read.text().await?);
            }
        }
        Ok(())
    }
}
