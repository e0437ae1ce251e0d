//! Pictures of forecasts that several subcommands draw.

use fused_rnn::data::{Series, TimeAxis};
use fused_rnn::model::Backtest;
use fused_rnn::plot::{Colour, Curve, LinePlot};

use crate::errors::Errors;
use crate::rows::Rows;

/// Width and height of the pictures, in pixels.
pub const PLOT_SIZE: (u32, u32) = (1000, 500);

/// Forecasts one step ahead beside what came; `part` says of what data.
pub fn forecast_plot(name: &str, part: &str, rows: &Rows, backtest: &Backtest, errors: &Errors) -> LinePlot {
    let Rows { series, complete, .. } = rows;
    let axis = TimeAxis::new(&complete.labels);
    let points = |values: &ndarray::Array2<f64>| {
        let first = values.column(0);
        first.iter().enumerate().map(|(i, v)| (axis.position(backtest.start + i), *v)).collect::<Vec<_>>()
    };
    LinePlot::new("Forecast and truth")
        .subtitle(format!(
            "{name}, one step ahead, on {part}: RMSE {:.4} (naive {:.4})",
            errors.rmse, errors.naive_rmse
        ))
        .x_label(x_label(series, &axis))
        .x_dates(axis.is_date())
        .y_label(series.name.clone())
        .curve(Curve::new("truth", points(&backtest.truth)).colour(Colour::GREY))
        .curve(Curve::new("forecast", points(&backtest.forecast)).colour(Colour::VERMILLION).width(1.5))
        .size(PLOT_SIZE.0, PLOT_SIZE.1)
}

/// What the horizontal axis of a plot counts.
pub fn x_label(series: &Series, axis: &TimeAxis) -> String {
    match &series.label_name {
        Some(name) if axis.is_labelled() => name.clone(),
        _ => "position in the series".to_owned(),
    }
}
