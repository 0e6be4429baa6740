//! From what Postgres's programs print to one line that a person can act on.

use std::{io, path::Path};

use anyhow::anyhow;

/// How Postgres says that the disk is full; a short write comes without the system's own words.
const DISK_FULL: [&str; 4] = ["No space left on device", "Disk quota exceeded", "Check free disk space", "wrote only"];

/// What `program` failed with, by the output it left.
pub(super) fn explain(program: &str, output: &str, place: &Path) -> anyhow::Error {
    if DISK_FULL.iter().any(|words| output.contains(words)) {
        return disk_full(place);
    }
    // The first failure is the cause, the last is what became of it. Who came too early or too late is no cause.
    let failure = |line: &&str| {
        let failed = ["FATAL:", "PANIC:", "error:"].iter().any(|it| line.contains(it));
        failed && !line.contains("FATAL:  the database system is ")
    };
    let last = || output.lines().rev().find(|line| !line.trim().is_empty());
    match (output.lines().find(failure), last()) {
        (Some(reason), _) => anyhow!("Postgres: {program}: {}", undated(reason)),
        (None, Some(last)) => anyhow!("Postgres: {program}: it gave no reason, and last said: {}", last.trim()),
        (None, None) => anyhow!("Postgres: {program}: it gave no reason"),
    }
}

/// A line of Postgres's log without its time and process, which its log shows: the same reason is the same words again.
fn undated(line: &str) -> &str {
    let line = line.trim();
    let severity = ["FATAL:", "PANIC:", "ERROR:"].iter().find_map(|it| line.find(it));
    severity.map_or(line, |at| &line[at..])
}

/// The same for our own writes; nothing where the disk is not the reason.
pub(super) fn storage(error: &io::Error, place: &Path) -> Option<anyhow::Error> {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    full.then(|| disk_full(place))
}

fn disk_full(place: &Path) -> anyhow::Error {
    anyhow!("the disk that holds {} is full: free some space (a new database takes about 60 MB)", place.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_what_to_do() {
        for output in [
            "initdb: error: could not write file \"x\": No space left on device\n",
            "FATAL:  could not write block 0 in file \"x\": wrote only 4096 of 8192 bytes\nPANIC:  cannot abort\n",
        ] {
            let said = explain("initdb", output, Path::new("/data")).to_string();
            assert!(said.starts_with("the disk that holds /data is full"), "{said}");
        }
    }

    #[test]
    fn the_first_fatal_line_is_the_reason() {
        let log = "LOG:  starting\nFATAL:  the database system is starting up\n2026-01-01 [7] FATAL:  data directory has wrong ownership\nHINT:  chown\nFATAL:  gone\n";
        let said = explain("pg_ctl", log, Path::new("/data")).to_string();
        assert!(said.ends_with("pg_ctl: FATAL:  data directory has wrong ownership"), "{said}");
    }
}
