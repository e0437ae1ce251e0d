//! What is shown while a model trains, as Keras's `verbose` shows it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Stderr, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::model::callbacks::{BatchEnd, Callback, EpochBegin, EpochEnd, Training};

/// Least time between two drawings of the bar.
const REDRAW: Duration = Duration::from_millis(100);
/// Where batches are short the clock is read once in so many.
const STRIDE: usize = 16;
/// Characters of the bar itself, as in Keras.
const BAR: usize = 20;
/// Width of a terminal where nothing else is said.
const COLUMNS: usize = 80;

/// How much a [`ProgressBar`] shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressMode {
    /// A bar on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// A line after each epoch: Keras's `verbose=2`.
    Lines,
    /// Nothing: Keras's `verbose=0`.
    Quiet,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Display {
    Bar,
    Lines,
    Quiet,
}

/// Shows how training goes: epoch, batches, time and metrics. What cannot be written, because nobody reads it any more, is left
/// out; training goes on.
///
/// ```
/// use fused_rnn::model::progress::ProgressBar;
/// let mut progress = ProgressBar::to_writer(Vec::new(), false);
/// progress.epoch_begin(1, 1, 10);
/// for batch in 1..=10 {
///     progress.batch_end(batch, &[("loss", 0.5)]);
/// }
/// progress.epoch_end(&[("loss", 0.5), ("val_loss", 0.6)]);
/// let text = String::from_utf8_lossy(&progress.into_writer()).into_owned();
/// assert!(text.starts_with("Epoch 1/1") && text.ends_with(" - loss: 0.5000 - val_loss: 0.6000\n"));
/// ```
pub struct ProgressBar<W: Write = Stderr> {
    writer: W,
    display: Display,
    columns: usize,
    epoch: usize,
    epochs: usize,
    batches: usize,
    batch: usize,
    /// Batch at which the clock is read next.
    next_look: usize,
    epoch_started: Instant,
    last_look: Instant,
    last_drawn: Option<Instant>,
    /// Characters that stand in the line of the bar.
    shown: usize,
    line: String,
    is_closed: bool,
}

impl ProgressBar {
    /// Shows it on standard error.
    pub fn new(mode: ProgressMode) -> Self {
        let display = match mode {
            ProgressMode::Quiet => Display::Quiet,
            ProgressMode::Lines => Display::Lines,
            ProgressMode::Auto if std::io::stderr().is_terminal() => Display::Bar,
            ProgressMode::Auto => Display::Lines,
        };
        ProgressBar::with_display(std::io::stderr(), display)
    }
}

impl<W: Write> ProgressBar<W> {
    /// Shows it on any writer; with a bar, which is drawn over itself again and again, or with lines.
    pub fn to_writer(writer: W, bar: bool) -> Self {
        ProgressBar::with_display(writer, if bar { Display::Bar } else { Display::Lines })
    }

    fn with_display(writer: W, display: Display) -> Self {
        let now = Instant::now();
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(COLUMNS);
        ProgressBar {
            writer,
            display,
            columns,
            epoch: 0,
            epochs: 0,
            batches: 0,
            batch: 0,
            next_look: 0,
            epoch_started: now,
            last_look: now,
            last_drawn: None,
            shown: 0,
            line: String::new(),
            is_closed: false,
        }
    }

    /// Sets the width of the terminal: the bar's line is cut to it. Without, the environment's `COLUMNS`, or 80.
    pub fn columns(self, columns: usize) -> Self {
        ProgressBar { columns, ..self }
    }

    /// Gives the writer back.
    pub fn into_writer(self) -> W {
        self.writer
    }

    /// An epoch begins: which, counted from 1, of how many, and of how many batches; 0 where that is not known.
    pub fn epoch_begin(&mut self, epoch: usize, epochs: usize, batches: usize) {
        (self.epoch, self.epochs, self.batches, self.batch) = (epoch, epochs, batches, 0);
        self.next_look = 0;
        self.epoch_started = Instant::now();
        (self.last_look, self.last_drawn) = (self.epoch_started, None);
        if self.display == Display::Bar {
            self.break_line();
            self.write(&format!("Epoch {epoch}/{epochs}\n"));
        }
    }

    /// A batch, counted from 1, is done, with these means of the epoch so far. Returns at once where the bar was drawn a moment ago.
    #[inline]
    pub fn batch_end(&mut self, batch: usize, metrics: &[(&str, f64)]) {
        self.batch = batch;
        if self.is_due(batch) {
            self.look(batch, metrics);
        }
    }

    fn is_due(&self, batch: usize) -> bool {
        self.display == Display::Bar && batch >= self.next_look
    }

    /// The epoch is over, with these metrics.
    pub fn epoch_end(&mut self, metrics: &[(&str, f64)]) {
        let elapsed = self.epoch_started.elapsed();
        let batches = if self.batches > 0 { self.batches } else { self.batch };
        let time = format!("{} {}", duration(elapsed), per_step(elapsed, batches));
        match self.display {
            Display::Quiet => {}
            Display::Lines => {
                let time = time.replacen(' ', " - ", 1);
                let line = format!("Epoch {}/{} - {time}{}\n", self.epoch, self.epochs, listed(metrics));
                self.write(&line);
            }
            Display::Bar => {
                // The last state stays, and is not cut.
                self.line = format!("{batches}/{batches} {} {time}{}", "━".repeat(BAR), listed(metrics));
                self.redraw();
                self.break_line();
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self, batch: usize, metrics: &[(&str, f64)]) {
        let now = Instant::now();
        let is_quick = now.duration_since(self.last_look) < REDRAW / 10;
        self.last_look = now;
        // Batches that suddenly take long delay the next drawing by no more than a stride.
        self.next_look = batch.saturating_add(if is_quick { STRIDE } else { 1 });
        if self.last_drawn.is_some_and(|last| now.duration_since(last) < REDRAW) {
            return;
        }
        self.last_drawn = Some(now);
        let elapsed = now.duration_since(self.epoch_started);
        self.line.clear();
        // Writing to a String cannot fail.
        if self.batches > 0 {
            let done = batch.min(self.batches);
            let width = self.batches.to_string().len();
            let filled = ((done as u128 * BAR as u128) / self.batches as u128) as usize;
            let bar = format!("{}{}", "━".repeat(filled), "─".repeat(BAR - filled));
            let left = elapsed.mul_f64((self.batches - done) as f64 / done.max(1) as f64);
            let _ = write!(self.line, "{done:>width$}/{} {bar} {}", self.batches, duration(left));
        } else {
            let _ = write!(self.line, "{batch}/? {}", duration(elapsed));
        }
        let _ = write!(self.line, " {}{}", per_step(elapsed, batch), listed(metrics));
        // A line that wraps could not be drawn over.
        let most = self.columns.saturating_sub(1);
        if let Some((end, _)) = self.line.char_indices().nth(most) {
            self.line.truncate(end);
        }
        self.redraw();
    }

    /// Draws the line over what stands there.
    fn redraw(&mut self) {
        let length = self.line.chars().count();
        let blank = " ".repeat(self.shown.saturating_sub(length));
        let text = format!("\r{}{blank}", self.line);
        self.shown = length;
        self.write(&text);
    }

    fn break_line(&mut self) {
        if self.shown > 0 {
            self.write("\n");
            self.shown = 0;
        }
    }

    fn write(&mut self, text: &str) {
        if !self.is_closed {
            let written = self.writer.write_all(text.as_bytes()).and_then(|()| self.writer.flush());
            self.is_closed = written.is_err();
        }
    }
}

/// ` - loss: 0.1234 - accuracy: 0.9`, with Keras's choice of digits.
fn listed(metrics: &[(&str, f64)]) -> String {
    let mut text = String::new();
    for (name, value) in metrics {
        let _ = match value.abs() {
            // Zero is written in full too: only what four decimals could not show is not.
            size if size > 1e-3 && size < 1e6 || size == 0.0 => write!(text, " - {name}: {value:.4}"),
            _ => write!(text, " - {name}: {value:.4e}"),
        };
    }
    text
}

/// `3s`, `2:05`, `1:02:03`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

fn per_step(elapsed: Duration, steps: usize) -> String {
    let seconds = elapsed.as_secs_f64() / steps.max(1) as f64;
    match seconds {
        s if s >= 1.0 => format!("{s:.0}s/step"),
        s if s >= 1e-3 => format!("{:.0}ms/step", s * 1e3),
        s => format!("{:.0}us/step", s * 1e6),
    }
}

impl<W: Write> Callback for ProgressBar<W> {
    fn on_epoch_begin(&mut self, state: &EpochBegin, _: &mut dyn Training) -> Result<()> {
        self.epoch_begin(state.epoch, state.epochs, state.batches);
        Ok(())
    }

    fn on_epoch_resume(&mut self, state: &EpochBegin, batches_done: usize) -> Result<()> {
        self.epoch_begin(state.epoch, state.epochs, state.batches);
        self.batch = batches_done;
        Ok(())
    }

    fn on_batch_end(&mut self, state: &BatchEnd<'_>) -> ControlFlow<()> {
        self.batch = state.batch;
        // Metrics cost something to compute: only those that may be shown are.
        if self.is_due(state.batch) {
            let metrics: Vec<_> = state.metrics().collect();
            let values = metrics.iter().map(|(name, value)| (name.as_str(), *value));
            self.look(state.batch, &std::iter::once(("loss", state.loss)).chain(values).collect::<Vec<_>>());
        }
        ControlFlow::Continue(())
    }

    fn on_epoch_end(&mut self, state: &EpochEnd, _: &mut dyn Training) -> Result<ControlFlow<()>> {
        let mut values = vec![("loss", state.loss)];
        values.extend(state.val_loss.map(|loss| ("val_loss", loss)));
        values.extend(state.metrics.iter().map(|(name, value)| (name.as_str(), *value)));
        ProgressBar::epoch_end(self, &values);
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bar: bool, columns: usize, pause: Duration) -> String {
        let mut progress = ProgressBar::to_writer(Vec::new(), bar).columns(columns);
        for epoch in 1..=2 {
            progress.epoch_begin(epoch, 2, 40);
            for batch in 1..=40 {
                std::thread::sleep(pause);
                progress.batch_end(batch, &[("loss", 1.0 / batch as f64), ("a_metric_with_a_long_name", 0.5)]);
            }
            progress.epoch_end(&[("loss", 0.025), ("val_loss", 1e-5)]);
        }
        String::from_utf8(progress.into_writer()).unwrap()
    }

    #[test]
    fn lines_are_one_an_epoch() {
        let text = run(false, 80, Duration::ZERO);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        for (i, line) in lines.iter().enumerate() {
            assert!(line.starts_with(&format!("Epoch {}/2 - 0s - ", i + 1)), "{line}");
            assert!(line.ends_with("us/step - loss: 0.0250 - val_loss: 1.0000e-5"), "{line}");
        }
    }

    #[test]
    fn a_bar_is_drawn_over_itself_and_never_wraps() {
        let columns = 60;
        let text = run(true, columns, Duration::from_millis(7));
        for (i, epoch) in text.split("Epoch ").skip(1).enumerate() {
            let (head, rest) = epoch.split_once('\n').unwrap();
            assert_eq!(head, format!("{}/2", i + 1));
            let drawings: Vec<_> = rest.trim_end_matches('\n').split('\r').skip(1).collect();
            // 40 times 7 ms, or longer on a busy machine; one drawing in 100 ms, one at the start and one at the end.
            assert!((3..=32).contains(&drawings.len()), "{drawings:?}");
            let (last, before) = drawings.split_last().unwrap();
            assert!(before.iter().all(|d| d.chars().count() < columns), "{drawings:?}");
            assert!(before[0].starts_with(" 1/40 ─"), "{drawings:?}");
            assert!(last.starts_with("40/40 ━━━━━━━━━━━━━━━━━━━━ ") && last.contains("val_loss: 1.0000e-5"), "{last}");
            assert!(last.chars().count() >= before.last().unwrap().trim_end().chars().count(), "{drawings:?}");
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn drawing_is_throttled() {
        let mut progress = ProgressBar::to_writer(Vec::new(), true);
        let started = Instant::now();
        progress.epoch_begin(1, 1, 1_000_000);
        for batch in 1..=1_000_000 {
            progress.batch_end(batch, &[("loss", 0.5)]);
        }
        let most = started.elapsed().as_millis() as usize / 100 + 1;
        let text = String::from_utf8(progress.into_writer()).unwrap();
        let drawn = text.matches('\r').count();
        assert!((1..=most).contains(&drawn), "{drawn} of at most {most}");
    }

    #[test]
    fn quiet_is_quiet_and_odd_calls_are_no_trouble() {
        let mut quiet = ProgressBar::with_display(Vec::new(), Display::Quiet);
        let mut odd = ProgressBar::to_writer(Vec::new(), true).columns(0);
        odd.epoch_end(&[]);
        odd.batch_end(usize::MAX, &[("loss", f64::NAN)]);
        quiet.epoch_begin(1, 1, 1);
        for batches in [0, 1, usize::MAX] {
            odd.epoch_begin(0, 0, batches);
            odd.batch_end(0, &[]);
            odd.batch_end(usize::MAX, &[("", f64::INFINITY)]);
            odd.epoch_end(&[("loss", f64::NAN)]);
            quiet.batch_end(1, &[("loss", 1.0)]);
            quiet.epoch_end(&[("loss", 1.0)]);
        }
        assert!(quiet.into_writer().is_empty());
        assert!(String::from_utf8(odd.into_writer()).unwrap().contains("loss: NaN"));
    }

    #[test]
    fn a_closed_writer_is_left_alone() {
        struct Closed(usize);
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                self.0 += 1;
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut progress = ProgressBar::to_writer(Closed(0), true);
        for epoch in 1..=3 {
            progress.epoch_begin(epoch, 3, 1);
            progress.batch_end(1, &[("loss", 1.0)]);
            progress.epoch_end(&[("loss", 1.0)]);
        }
        assert_eq!(progress.into_writer().0, 1);
    }

    #[test]
    fn times_are_short() {
        assert_eq!(["3s", "2:05", "1:02:03"], [3, 125, 3723].map(|s| duration(Duration::from_secs(s))));
        assert_eq!(per_step(Duration::from_secs(2), 1000), "2ms/step");
        assert_eq!(per_step(Duration::from_secs(20), 4), "5s/step");
    }
}
