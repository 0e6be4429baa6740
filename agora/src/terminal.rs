//! What long work shows: a bar with rate and time left where there is a terminal, else a plain line now and then.

use std::{
    fmt::{self, Display},
    io::IsTerminal as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressState, ProgressStyle};

/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things, such as `commands`.
    Things(&'static str),
    /// Bytes.
    Bytes,
}

/// How far a piece of work has come. It shows itself on stderr, and is gone when dropped.
pub struct Progress {
    name: &'static str,
    unit: Unit,
    total: u64,
    done: AtomicU64,
    started: Instant,
    note: Mutex<String>,
    look: Look,
}

enum Look {
    Bar(ProgressBar),
    /// When the last line was printed.
    Lines(Mutex<Instant>),
}

impl Progress {
    /// Begins; `total` is what [`Self::add`] will have counted in the end, as far as one knows.
    pub fn start(name: &'static str, total: u64, unit: Unit) -> Self {
        let look = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total).with_style(style(unit)).with_message(name);
            bar.enable_steady_tick(Duration::from_millis(200));
            Look::Bar(bar)
        } else {
            Look::Lines(Mutex::new(Instant::now()))
        };
        Self { name, unit, total, done: AtomicU64::new(0), started: Instant::now(), note: Mutex::default(), look }
    }

    /// So much more is done.
    pub fn add(&self, more: u64) {
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        match &self.look {
            Look::Bar(bar) => bar.inc(more),
            Look::Lines(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    eprintln!("{}", self.line(done));
                }
            }
        }
    }

    /// What is to be said besides the count, from the next line on: `at position 9`.
    pub fn note(&self, words: String) {
        match &self.look {
            Look::Bar(bar) => bar.set_prefix(words),
            Look::Lines(_) => *self.note.lock().unwrap_or_else(PoisonError::into_inner) = words,
        }
    }

    /// Prints a line, above the bar where there is one.
    pub fn say(&self, line: impl Display) {
        match &self.look {
            Look::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
            Look::Lines(_) => eprintln!("{line}"),
        }
    }

    /// `posting: 3,200 of 6,740 commands, 1,320/s, 3 seconds left`.
    fn line(&self, done: u64) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss)] // A rate for people.
        let rate = done as f64 / seconds;
        #[allow(clippy::cast_precision_loss)]
        let left = self.total.saturating_sub(done) as f64 / rate;
        let left = Duration::try_from_secs_f64(left)
            .map_or_else(|_| "unknown time".into(), |left| HumanDuration(left).to_string());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rate = rate as u64;
        let note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        let note = if note.is_empty() { String::new() } else { format!(", {note}") };
        match self.unit {
            Unit::Things(things) => format!(
                "{}: {} of {} {things}, {}/s, {left} left{note}",
                self.name,
                HumanCount(done),
                HumanCount(self.total),
                HumanCount(rate)
            ),
            Unit::Bytes => format!(
                "{}: {} of {}, {}/s, {left} left{note}",
                self.name,
                HumanBytes(done),
                HumanBytes(self.total),
                HumanBytes(rate)
            ),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Look::Bar(bar) = &self.look {
            bar.finish_and_clear();
        }
    }
}

fn style(unit: Unit) -> ProgressStyle {
    let counted = match unit {
        Unit::Things(_) => "{human_pos}/{human_len}  {rate}",
        Unit::Bytes => "{binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}",
    };
    let template = format!("{{msg:9}} {{wide_bar:.green/dim}} {counted}  {{eta}} left  {{prefix}}");
    let style = ProgressStyle::with_template(&template).expect("a template of ours").progress_chars("━━─");
    // indicatif takes what follows a colon for colours, not for a format.
    style.with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
        let _ = write!(text, "{:.0}/s", state.per_sec());
    })
}

/// A number as people write it: `1,703`.
pub fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_says_how_far_how_fast_and_how_long() {
        let mut progress = Progress::start("posting", 3_000, Unit::Things("commands"));
        progress.started = Instant::now().checked_sub(Duration::from_secs(1)).expect("the machine is up for a second");
        let line = progress.line(1_000);
        assert!(line.starts_with("posting: 1,000 of 3,000 commands, 99") || line.contains("1,000/s"), "{line}");
        assert!(line.ends_with("2 seconds left"), "{line}");
        assert!(progress.line(0).ends_with("unknown time left"));
        progress.note("at position 9".into());
        assert!(progress.line(0).ends_with("unknown time left, at position 9"));
    }

    #[test]
    fn the_templates_are_templates() {
        style(Unit::Bytes);
        style(Unit::Things("commands"));
    }
}
