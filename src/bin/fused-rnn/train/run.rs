//! Training itself, whatever is trained: progress, what is kept, and the picture of the loss.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use fused_rnn::figures::rounded;
use fused_rnn::model::{EarlyStopping, FitOptions, History, Outcome, Sequential};
use fused_rnn::plot::{Colour, Curve, LinePlot};
use fused_rnn::{Error, Result};
use ndarray::ArrayViewD;

use super::checkpoints::Checkpoints;
use super::options::{Args, Outputs};
use crate::interrupt;
use crate::output::{note, plain, print};
use crate::pictures::of_target;
use crate::progress::{Epoch, Progress};

/// Trains, and shows how it goes. `member` is the number of its seed, from 0.
pub fn fit<'a>(
    model: &mut Sequential,
    args: &Args,
    x: ArrayViewD<'a, f32>,
    y: ArrayViewD<'a, f32>,
    validation: Option<(ArrayViewD<'a, f32>, ArrayViewD<'a, f32>)>,
    progress: &'a mut Progress,
    member: usize,
) -> Result<History> {
    let ranks = args.ranks.as_deref();
    let most = x.shape().first().map_or(0, |samples| samples / ranks.map_or(1, |ranks| ranks.count()));
    let batch_size = args.batch_size.unwrap_or(32.min(most.max(1)));
    model.fit(
        x,
        y,
        FitOptions {
            epochs: args.epochs,
            batch_size,
            validation_data: validation.map(|(x, y)| (vec![x.into()], vec![y.into()])),
            early_stopping: Some(EarlyStopping { patience: args.patience, min_delta: 0.0, restore_best_weights: true }),
            callbacks: vec![progress],
            backup: args.checkpoints.as_ref().map(|checkpoints| checkpoints.of(member)).transpose()?,
            ranks,
            ..FitOptions::default()
        },
    )
}

/// Saves the best model there is, however training ended, and says so where it ended early: `None` where there is no model.
pub fn settle(
    trained: Result<History>,
    progress: &Progress,
    args: &Args,
    path: &Path,
    save: impl FnOnce() -> Result<()>,
) -> Result<Option<Outcome>> {
    let save = || {
        save().inspect_err(|_| {
            if args.checkpoints.as_ref().is_some_and(Checkpoints::exist) {
                note("training is not lost: when the model can be written, --resume goes on from the last checkpoint");
            }
        })
    };
    progress.finish();
    // What has diverged would do so again.
    let forget = || args.checkpoints.as_ref().map_or(Ok(()), Checkpoints::remove);
    let outcome = match (trained, progress.best()) {
        (Err(error @ Error::Diverged { .. }), Some(best)) => {
            save()?;
            forget()?;
            note(&format!("the model of the best epoch, {}, is kept in {}", best.epoch, path.display()));
            return Err(error);
        }
        (Err(error @ Error::Diverged { .. }), None) => {
            forget()?;
            note("no epoch was completed: no model is saved");
            return Err(error);
        }
        (Err(error), _) => return Err(error),
        (Ok(history), None) if history.outcome == Outcome::Interrupted => {
            note(&format!("interrupted before the first epoch was completed: no model is saved{}", way_on(args)));
            return Ok(None);
        }
        (Ok(history), _) => history.outcome,
    };
    save()?;
    Ok(Some(outcome))
}

/// How an interrupted training goes on, behind a sentence that says that it was.
fn way_on(args: &Args) -> &'static str {
    if args.checkpoints.is_some() { "; --resume goes on with training" } else { "" }
}

/// The report on a model that has been saved: where it fails, as for a full disk, the model is not lost.
pub fn report<T>(outputs: &Outputs, write: impl FnOnce() -> Result<T>) -> Result<T> {
    write().inspect_err(|_| note(&format!("the trained model is kept in {}", outputs.model.display())))
}

/// Says what was written, and where training was interrupted.
pub fn finish(args: &Args, written: &[&PathBuf], outcome: &Outcome, outputs: &Outputs) -> Result<ExitCode> {
    let removed = outputs.remove_others(written)?;
    if !args.quiet {
        let written: Vec<_> = written.iter().map(|p| p.display().to_string()).collect();
        print(&format!("\nwrote {}\n", written.join(", ")))?;
        if !removed.is_empty() {
            print(&format!("removed what an earlier run left beside them: {}\n", removed.join(", ")))?;
        }
    }
    if *outcome == Outcome::Interrupted {
        let kept = outputs.model.display();
        note(&format!("interrupted: the best model so far is kept in {kept}{}", way_on(args)));
        return Ok(interrupt::exit_code());
    }
    if let Some(checkpoints) = &args.checkpoints {
        checkpoints.remove()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How training ended, in a line.
pub fn ending(outcome: &Outcome, progress: &Progress, started: Instant) -> String {
    let epochs = progress.epochs.len();
    let why = match outcome {
        Outcome::Finished => "all epochs",
        Outcome::EarlyStopped => "the validation loss no longer fell",
        Outcome::Interrupted => "interrupted",
    };
    let best = progress.best().map_or(String::new(), |best| {
        let val_loss = best.val_loss.map(|l| format!(", val_loss {}", rounded(l, 5))).unwrap_or_default();
        format!("; best epoch {} (loss {}{val_loss})", best.epoch, rounded(best.loss, 5))
    });
    format!("trained {epochs} epochs in {:.1} s ({why}){best}", started.elapsed().as_secs_f64())
}

/// The losses over the epochs of learning a target; `loss` is what it is called, `of` what it is of.
pub fn loss_plot(args: &Args, target: Option<&str>, (loss, of): (&str, &str), progress: &Progress) -> LinePlot {
    let curve = |name, colour, loss: fn(&Epoch) -> Option<f64>| {
        let points: Vec<_> = progress.epochs.iter().filter_map(|e| Some((e.epoch as f64, loss(e)?))).collect();
        (!points.is_empty()).then(|| Curve::new(name, points).colour(colour))
    };
    let losses = progress.epochs.iter().flat_map(|e| [Some(e.loss), e.val_loss]).flatten();
    let (least, most) = losses.fold((f64::INFINITY, 0.0f64), |(least, most), loss| (least.min(loss), most.max(loss)));
    let file = args.data.file_name().map_or_else(|| "data".into(), |name| name.to_string_lossy());
    let mut plot = LinePlot::new(format!("{}: loss{}", plain(&file), of_target(target)))
        .subtitle(format!("{}, {loss}{of}", args.network.described()))
        .x_label("epoch")
        .y_label(loss)
        .log_y(least > 0.0 && most > 30.0 * least);
    let curves =
        [curve("training", Colour::BLUE, |e| Some(e.loss)), curve("validation", Colour::VERMILLION, |e| e.val_loss)];
    for curve in curves.into_iter().flatten() {
        plot = plot.curve(curve);
    }
    match progress.best() {
        Some(best) => plot.mark(best.epoch as f64, "best model"),
        None => plot,
    }
}
