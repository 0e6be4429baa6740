//! Bodies, use cases and endpoints.
