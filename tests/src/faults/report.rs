//! What a campaign survived, in numbers.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::check::Checked;

/// Totals over rounds.
#[derive(Default)]
pub struct Report {
    /// Rounds that ended well.
    pub rounds: usize,
    checked: Checked,
    recoveries: BTreeMap<&'static str, Vec<Duration>>,
}

impl Report {
    /// After such a fault all served again within so long.
    pub(crate) fn recovered(&mut self, fault: &'static str, within: Duration) {
        self.recoveries.entry(fault).or_default().push(within);
    }

    /// Adds what a round came to.
    pub(crate) fn add(&mut self, checked: &Checked) {
        self.checked.faults += checked.faults;
        self.checked.sent += checked.sent;
        self.checked.acknowledged += checked.acknowledged;
        self.checked.refused += checked.refused;
        self.checked.reads += checked.reads;
        self.checked.events += checked.events;
        self.checked.messages += checked.messages;
        self.checked.rows += checked.rows;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked { faults, sent, acknowledged, refused, reads, events, messages, rows } = self.checked;
        writeln!(f, "{} rounds, {faults} faults survived", self.rounds)?;
        writeln!(f, "{sent} commands: {acknowledged} acknowledged, {refused} refused; {reads} reads")?;
        writeln!(f, "{events} events, {messages} Kafka messages and {rows} rows of read tables checked\n")?;
        writeln!(f, "| fault | times | all serve again after, median | worst |")?;
        writeln!(f, "|---|---:|---:|---:|")?;
        for (fault, times) in &self.recoveries {
            let mut times = times.clone();
            times.sort_unstable();
            let seconds = |n: usize| times[n].as_secs_f64();
            let (middle, last) = (times.len() / 2, times.len() - 1);
            writeln!(f, "| {fault} | {} | {:.2} s | {:.2} s |", times.len(), seconds(middle), seconds(last))?;
        }
        Ok(())
    }
}
