//! What is counted in and out as threads and posts come and go.

use uuid::Uuid;

use super::{AccountCount, CategoryCount, CommunityCount, Rows, TagCount, Thread, ThreadPost, can_be_seen};
use crate::projection::{Changed, Fault};

impl Rows {
    /// Counts a thread in or out, with all of its posts that can be seen.
    pub(super) fn count_thread(&mut self, id: Uuid, sign: i64, changed: &mut Changed) -> Result<(), Fault> {
        let thread = self.threads.change(id)?.clone();
        if thread.deleted {
            return Ok(());
        }
        self.category(&thread).threads += sign;
        self.community(&thread).threads += sign;
        if let Some(author) = thread.author_id {
            self.account(author, &thread).threads += sign;
            changed.account(author);
        }
        let posts: Vec<ThreadPost> = self.posts_of(id).filter(|post| can_be_seen(post)).cloned().collect();
        for post in posts {
            self.count_in(&thread, &post, sign, changed);
        }
        self.count_tags(id, sign)
    }

    /// Counts a thread in or out of each of its tags.
    pub(super) fn count_tags(&mut self, id: Uuid, sign: i64) -> Result<(), Fault> {
        let thread = self.threads.change(id)?;
        if thread.deleted {
            return Ok(());
        }
        let community_id = thread.community_id;
        for tag in thread.tags.0.clone() {
            let none = || TagCount { community_id, tag: tag.clone(), threads: 0 };
            self.tags.change_or((community_id, tag.clone()), none).threads += sign;
        }
        Ok(())
    }

    /// Counts a post in (1), out (-1) or not at all (0), where its thread is not deleted.
    pub(super) fn count_post(
        &mut self,
        post: &ThreadPost,
        difference: i32,
        changed: &mut Changed,
    ) -> Result<(), Fault> {
        let thread = self.threads.change(post.thread_id)?.clone();
        if !thread.deleted {
            self.count_in(&thread, post, difference.into(), changed);
        }
        Ok(())
    }

    fn count_in(&mut self, thread: &Thread, post: &ThreadPost, difference: i64, changed: &mut Changed) {
        self.category(thread).posts += difference;
        let community = self.community(thread);
        community.posts += difference;
        community.last_activity_at = community.last_activity_at.max(Some(post.written_at));
        if let Some(author) = post.author_id {
            self.account(author, thread).posts += difference;
            changed.account(author);
        }
    }

    fn category(&mut self, thread: &Thread) -> &mut CategoryCount {
        let (category_id, community_id) = (thread.category_id, thread.community_id);
        let none = || CategoryCount { category_id, community_id, threads: 0, posts: 0 };
        self.categories.change_or(category_id, none)
    }

    fn community(&mut self, thread: &Thread) -> &mut CommunityCount {
        let community_id = thread.community_id;
        let none = || CommunityCount { community_id, threads: 0, posts: 0, last_activity_at: None };
        self.communities.change_or(community_id, none)
    }

    fn account(&mut self, account_id: Uuid, thread: &Thread) -> &mut AccountCount {
        let community_id = thread.community_id;
        let none = || AccountCount { account_id, community_id, threads: 0, posts: 0 };
        self.accounts.change_or((account_id, community_id), none)
    }
}
