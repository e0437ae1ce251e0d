//! How a training went.

use crate::error::{Error, Result};
use crate::plot::{Curve, LinePlot, Panels};

/// Losses and metrics over epochs, by name with their values, one an epoch from epoch 1 on: the picture that is usually made of
/// Keras's [`History`](https://keras.io/api/models/model_training_apis/#fit-method). A quantity and its counterpart on validation
/// data, whose name begins with `val_`, share a panel, which counts in powers of ten where they fall by more than a factor of 30.
/// `best_epoch`, counted from 1, is marked. A quantity without values is left out, so that an empty `val_loss` is no error.
///
/// ```
/// let picture = fused_rnn::plot::history(&[("loss", &[0.9, 0.5, 0.4]), ("val_loss", &[0.8, 0.6, 0.7])], Some(2))?;
/// assert!(picture.svg()?.contains("val_loss"));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::ZeroSize`] without any value, [`Error::Shape`] where two quantities have different numbers of epochs,
/// [`Error::InvalidOption`] for a best epoch that there was not.
pub fn history(quantities: &[(&str, &[f64])], best_epoch: Option<usize>) -> Result<Panels> {
    let present: Vec<_> = quantities.iter().filter(|(_, values)| !values.is_empty()).collect();
    let Some((first_name, first)) = present.first() else {
        return Err(Error::ZeroSize { name: "number of epochs" });
    };
    if let Some((name, values)) = present.iter().find(|(_, values)| values.len() != first.len()) {
        let expected = format!("{} values, one an epoch, as {first_name} has", first.len());
        return Err(Error::shape(*name, expected, format!("{} values", values.len())));
    }
    if let Some(best) = best_epoch.filter(|best| !(1..=first.len()).contains(best)) {
        return Err(Error::option("best_epoch", format!("1..={}", first.len()), best));
    }
    let base = |name: &str| name.strip_prefix("val_").unwrap_or(name).to_owned();
    let mut bases: Vec<String> = Vec::new();
    for (name, _) in &present {
        if !bases.contains(&base(name)) {
            bases.push(base(name));
        }
    }
    let mut picture = Panels::new(if bases.len() == 1 { "" } else { "Training" });
    for quantity in bases {
        let members = || present.iter().filter(|(name, _)| base(name) == quantity);
        let values = || members().flat_map(|(_, values)| values.iter().copied()).filter(|v| v.is_finite());
        let (least, most) = values().fold((f64::INFINITY, 0.0f64), |(least, most), v| (least.min(v), most.max(v)));
        let mut plot = LinePlot::new(quantity.clone()).x_label("epoch").y_label(quantity.clone());
        plot = plot.log_y(least > 0.0 && most > 30.0 * least);
        for (name, values) in members() {
            let points = values.iter().enumerate().map(|(i, value)| ((i + 1) as f64, *value));
            plot = plot.curve(Curve::new(*name, points));
        }
        if let Some(best) = best_epoch {
            plot = plot.mark(best as f64, format!("best epoch: {best}"));
        }
        picture = picture.panel(plot);
    }
    Ok(picture)
}
