//! Where this process runs and for whom: words for a record, and no proof of anything.

/// The machine's name, or the container's; `localhost` where it has none.
pub fn host() -> String {
    let name = whoami::fallible::hostname().unwrap_or_default();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Who runs this process, and where: `ada@web-1`. A user without a name, as containers have them, is `unknown`.
pub fn user() -> String {
    let name = whoami::fallible::username().unwrap_or_default();
    format!("{}@{}", if name.is_empty() { "unknown" } else { &name }, host())
}
