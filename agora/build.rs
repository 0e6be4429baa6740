//! `sqlx::migrate!` sees migrations that change, but none that is added.

fn main() {
    println!("cargo:rerun-if-changed=../migrations/read");
}
