//! Who appends wakes who relays: by a `NOTIFY` on a channel of the store's; or at once, where one process does both.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// The channel on which appenders ping after they have committed.
pub const APPENDED: &str = "agora_appended";

/// The relay of this process, to be woken. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    notify: Notify,
    leads: AtomicBool,
}

impl Wake {
    /// Says that something was appended; false where the relay that leads is none of this process's, and has to be told by
    /// the channel.
    pub fn tell(&self) -> bool {
        let leads = self.0.leads.load(Ordering::Acquire);
        if leads {
            self.0.notify.notify_one();
        }
        leads
    }

    /// Waits until that is said, or not at all where it was since the last wait.
    pub async fn told(&self) {
        self.0.notify.notified().await;
    }

    /// From now on the relay of this process leads, until this is dropped.
    pub fn lead(&self) -> Leads {
        self.0.leads.store(true, Ordering::Release);
        Leads(self.clone())
    }
}

/// While it lives, [`Wake::tell`] is heard.
#[derive(Debug)]
pub struct Leads(Wake);

impl Drop for Leads {
    fn drop(&mut self) {
        self.0.0.leads.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_leads_is_woken() {
        let wake = Wake::default();
        assert!(!wake.tell(), "nobody leads here");
        let leads = wake.lead();
        assert!(wake.tell());
        // At once, as it was told before.
        wake.told().await;
        drop(leads);
        assert!(!wake.tell());
    }
}
