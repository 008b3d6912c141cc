//! Progress of long work: a bar on a terminal, a line every few seconds elsewhere; always done, total, rate and time
//! left.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use bellwire_schemas::Timestamp;

use super::exit::Failure;
use super::out::Out;
use super::times::{count, duration};

/// How often progress is asked for.
pub const POLL: Duration = Duration::from_millis(400);
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
const BAR: usize = 24;

/// The progress of one piece of work.
pub struct Progress<'a> {
    out: &'a Out,
    name: String,
    started: Timestamp,
    last_line: Timestamp,
    terminal: bool,
    drawn: bool,
}

impl<'a> Progress<'a> {
    /// Progress that begins now.
    pub fn new(out: &'a Out, name: String, now: Timestamp) -> Self {
        let terminal = io::stderr().is_terminal() && !out.json;
        Self { out, name, started: now, last_line: now, terminal, drawn: false }
    }

    /// Shows how far the work is. With `--json` the body of the API is written instead.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn show(&mut self, done: u64, total: u64, now: Timestamp, body: &[u8]) -> Result<(), Failure> {
        if self.out.quiet {
            return Ok(());
        }
        if self.terminal {
            let text = format!(
                "{}  {}  {}",
                self.name,
                bar(done, total),
                words(done, total, now.since(self.started))
            );
            let _ = write!(io::stderr(), "\r{text}\x1b[K");
            let _ = io::stderr().flush();
            self.drawn = true;
            return Ok(());
        }
        if now.since(self.last_line) < LINE_EVERY {
            return Ok(());
        }
        self.last_line = now;
        if self.out.json {
            return self.out.body(body);
        }
        self.out.note(&format!("{}  {}", self.name, words(done, total, now.since(self.started))));
        Ok(())
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if self.drawn {
            let _ = write!(io::stderr(), "\r\x1b[K");
            self.drawn = false;
        }
    }
}

fn bar(done: u64, total: u64) -> String {
    let share = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
    let full = (share * BAR as f64) as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

/// `29/40  11/s  1 s left`.
fn words(done: u64, total: u64, over: Duration) -> String {
    let mut text = format!("{}/{}", count(done), count(total));
    let rate = done as f64 / over.as_secs_f64().max(0.001);
    if done > 0 && over >= Duration::from_millis(500) {
        text.push_str(&format!("  {}/s", count(rate.round().max(1.0) as u64)));
        let left = Duration::from_secs_f64((total.saturating_sub(done) as f64 / rate).min(1e9));
        if done < total {
            text.push_str(&format!("  {} left", duration(left)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_done_total_rate_and_time_left() {
        assert_eq!(words(29, 40, Duration::from_millis(2_636)), "29/40  11/s  1 s left");
        assert_eq!(words(0, 40, Duration::from_secs(3)), "0/40");
        assert_eq!(words(1_000_000, 1_000_000, Duration::from_secs(10)), "1,000,000/1,000,000  100,000/s");
        assert_eq!(words(0, 0, Duration::ZERO), "0/0");
    }

    #[test]
    fn a_bar_is_as_long_as_it_should_be() {
        for (done, full) in [(0, 0), (20, 12), (40, 24), (99, 24)] {
            let bar = bar(done, 40);
            assert_eq!((bar.chars().count(), bar.matches('█').count()), (BAR, full), "{done}");
        }
        assert_eq!(bar(0, 0).matches('█').count(), BAR);
    }
}
