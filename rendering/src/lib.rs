//! What of a post is worked out rather than told: the [HTML](html()) of its body, and its [score]. Pure, and the same
//! where posts are projected and where they are shown as they were.

mod html;
pub mod score;

pub use html::html;
