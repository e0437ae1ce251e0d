//! What is shown while a model trains.

use std::io::IsTerminal;
use std::ops::ControlFlow;

use fused_rnn::Error;
use fused_rnn::figures::rounded;
use fused_rnn::model::{BatchEnd, Callback, EpochEnd, Training};
use indicatif::{ProgressBar, ProgressStyle};

use crate::interrupt;
use crate::output::note;

/// How progress is shown.
enum Display {
    Silent,
    /// One line per so many epochs.
    Lines(usize),
    Bar(ProgressBar),
}

/// Shows training on standard error, collects its losses, and stops it where a signal asks for it.
pub struct Progress {
    display: Display,
    /// Whether the bar is as long as all batches.
    has_length: bool,
    /// All epochs that were completed.
    pub epochs: Vec<Epoch>,
}

/// What is kept of an epoch.
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    pub loss: f64,
    pub val_loss: Option<f64>,
    /// Whether it is the best so far.
    pub best: bool,
}

impl Progress {
    /// For training of at most `epochs` epochs.
    pub fn new(epochs: usize, quiet: bool) -> Self {
        let display = if quiet {
            Display::Silent
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(epochs as u64);
            let template = "{bar:28.cyan/dim} {msg}  {elapsed} (at most {eta} left)";
            // The template is fixed; should it ever not parse, the plain bar does as well.
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━━─"));
            Display::Bar(bar)
        } else {
            Display::Lines(epochs.div_ceil(20))
        };
        Progress { display, has_length: false, epochs: Vec::new() }
    }

    /// For a training that is not shown.
    pub fn silent() -> Self {
        Progress { display: Display::Silent, has_length: false, epochs: Vec::new() }
    }

    /// The last epoch that was the best so far.
    pub fn best(&self) -> Option<&Epoch> {
        self.epochs.iter().rev().find(|e| e.best)
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }

    fn flow() -> ControlFlow<()> {
        if interrupt::is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn line(state: &EpochEnd) -> String {
    let val_loss = state.val_loss.map(|l| format!("  val_loss {}", rounded(l, 5))).unwrap_or_default();
    let metrics: String =
        state.metrics.iter().map(|(name, value)| format!("  {name} {}", rounded(*value, 4))).collect();
    format!("epoch {}/{}  loss {}{val_loss}{metrics}", state.epoch, state.epochs, rounded(state.loss, 5))
}

impl Callback for Progress {
    fn on_batch_end(&mut self, state: &BatchEnd) -> ControlFlow<()> {
        if let Display::Bar(bar) = &self.display {
            if !self.has_length {
                // It may begin in the middle, where an earlier training is gone on with.
                self.has_length = true;
                bar.set_length(bar.length().unwrap_or(0).saturating_mul(state.batches as u64));
                bar.set_position((state.epoch - 1).saturating_mul(state.batches).saturating_add(state.batch) as u64);
            } else {
                bar.inc(1);
            }
            if state.epoch == 1 && state.batch % 16 == 1 {
                bar.set_message(format!("epoch 1  loss {}", rounded(state.loss, 5)));
            }
        }
        Self::flow()
    }

    fn on_epoch_end(&mut self, state: &EpochEnd, _: &mut dyn Training) -> fused_rnn::Result<ControlFlow<()>> {
        let EpochEnd { epoch, loss, val_loss, best, .. } = *state;
        self.epochs.push(Epoch { epoch, loss, val_loss, best });
        match &self.display {
            Display::Silent => {}
            Display::Lines(every) => {
                if state.epoch == 1 || state.epoch.is_multiple_of(*every) || state.epoch == state.epochs {
                    note(&line(state));
                }
            }
            Display::Bar(bar) => bar.set_message(line(state)),
        }
        Ok(Self::flow())
    }

    fn state(&self) -> Option<String> {
        // Numbers by their bits.
        let epochs = self.epochs.iter().map(|e| (e.epoch, e.loss.to_bits(), e.val_loss.map(f64::to_bits), e.best));
        serde_json::to_string(&epochs.collect::<Vec<_>>()).ok()
    }

    fn set_state(&mut self, state: &str) -> fused_rnn::Result<()> {
        let epochs: Vec<(usize, u64, Option<u64>, bool)> = serde_json::from_str(state).map_err(Error::other)?;
        let epoch = |(epoch, loss, val_loss, best): (usize, u64, Option<u64>, bool)| Epoch {
            epoch,
            loss: f64::from_bits(loss),
            val_loss: val_loss.map(f64::from_bits),
            best,
        };
        self.epochs = epochs.into_iter().map(epoch).collect();
        if !matches!(self.display, Display::Silent) {
            note(&format!("goes on after epoch {}", self.epochs.len()));
        }
        Ok(())
    }
}
