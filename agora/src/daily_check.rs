//! What the daily check looks by: what `agora check` does of everything, of one shard.

use std::sync::Arc;

use command_service::jobs::Check;
use events::Shard;
use futures::{FutureExt as _, future::BoxFuture};
use projector::{
    check,
    rebuild::{Purpose, Rebuild, Silent, What},
};

use crate::{command, config::Config};

/// Rows that are told of a shard, of those that differ.
const MOST_TOLD: usize = 3;

/// Looks at one shard, in the databases of this configuration.
pub struct DailyCheck {
    config: Config,
}

impl DailyCheck {
    /// Of these databases.
    pub fn of(config: &Config) -> Arc<Self> {
        Arc::new(Self { config: config.clone() })
    }

    async fn look(&self, shard: Shard) -> anyhow::Result<Vec<String>> {
        let database = &self.config.database;
        let what = What { shard: Some(shard), ..What::everything(Purpose::Look) };
        // First of all: whoever builds already is to be waited for.
        let rebuild = Rebuild::begin(database, self.config.read_tables(), what).await?;
        let store = command::history(&self.config).await?;
        let promises = check::shard(&store, shard).await?;
        store.pool().close().await;
        let compared = rebuild.compare(MOST_TOLD, &Silent).await;
        rebuild.discard().await?;
        let places = promises.iter().flat_map(|checked| {
            checked.broken.iter().map(|place| format!("it is not so that {}: {place}", checked.promise))
        });
        let rows = compared?.differences;
        let rows = rows.iter().map(|row| command::rebuild::shown(row).trim_end().replace('\n', ";"));
        Ok(places.chain(rows).collect())
    }
}

impl Check for DailyCheck {
    fn shard(&self, shard: Shard) -> BoxFuture<'_, anyhow::Result<Vec<String>>> {
        self.look(shard).boxed()
    }
}
