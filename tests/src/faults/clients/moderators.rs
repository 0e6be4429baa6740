//! Who locks, bans, appoints and dismisses while others write, and one another.

use std::time::Duration;

use rand::{RngExt as _, rngs::ChaCha8Rng, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::json;

use super::{Effect, World, lock, order};

impl World {
    /// Of a place: locks and unlocks threads, bans and forgives.
    pub(super) async fn moderates(&self, place: usize, mut dice: ChaCha8Rng) {
        let community = &self.communities[place];
        let me = &community.moderator;
        while !self.is_over() {
            if dice.random_bool(0.7) {
                let threads: Vec<String> = {
                    let threads = lock(&self.threads);
                    threads.iter().filter(|(of, _)| *of == place).map(|(_, id)| id.clone()).collect()
                };
                let Some(thread) = threads.choose(&mut dice).cloned() else { continue };
                let locked = dice.random_bool(0.4);
                let method = if locked { Method::PUT } else { Method::DELETE };
                let effect = Effect::Locked { thread: thread.clone(), locked };
                let order = order(me, method, format!("/v2/threads/{thread}/lock"), effect);
                self.carry_out(order, &mut dice).await;
            } else {
                let Some(member) = self.posters.choose(&mut dice).cloned() else { continue };
                let banned = dice.random_bool(0.3);
                let method = if banned { Method::PUT } else { Method::DELETE };
                let effect = Effect::Banned { membership: format!("{}.{}", community.id, member.id), banned };
                let path = format!("/v2/communities/{}/members/{}/ban", community.id, member.id);
                let mut order = order(me, method, path, effect);
                order.body = banned.then(|| json!({"reason": "to see what happens"}));
                self.carry_out(order, &mut dice).await;
            }
            tokio::time::sleep(Duration::from_millis(dice.random_range(5..60))).await;
        }
    }

    /// Two owners of a place, who make and unmake moderators and each other.
    pub(super) async fn owns(&self, place: usize, which: usize, mut dice: ChaCha8Rng) {
        let community = &self.communities[place];
        let (me, other) = (&community.owners[which], &community.owners[1 - which]);
        while !self.is_over() {
            let order = if dice.random_bool(0.5) {
                let moderator = dice.random_bool(0.6);
                let method = if moderator { Method::PUT } else { Method::DELETE };
                let membership = format!("{}.{}", community.id, community.moderator.id);
                let path = format!("/v2/communities/{}/members/{}/role", community.id, community.moderator.id);
                let mut order = order(me, method, path, Effect::Moderator { membership, moderator });
                order.body = moderator.then(|| json!({"role": "moderator"}));
                order
            } else {
                let owner = dice.random_bool(0.6);
                let method = if owner { Method::PUT } else { Method::DELETE };
                let whom = if owner || dice.random_bool(0.5) { other } else { me };
                let effect = Effect::Owner { community: community.id.clone(), account: whom.id.clone(), owner };
                order(me, method, format!("/v2/communities/{}/owners/{}", community.id, whom.id), effect)
            };
            self.carry_out(order, &mut dice).await;
            tokio::time::sleep(Duration::from_millis(dice.random_range(20..150))).await;
        }
    }
}
