//! Models with Keras's names and defaults: [`Sequential`], a stack of layers; [`Graph`], from which a [`Model`] with several inputs, outputs and shared
//! layers is made; [`Forecaster`], a model with everything needed to continue a series;
//! [`SequenceModel`], one that says a class or a number of a whole series; and [`Trained`], whatever a file holds.
//!
//! ```
//! use fused_rnn::Device;
//! use fused_rnn::data::windows;
//! use fused_rnn::model::{FitOptions, Sequential};
//! use fused_rnn::nn::{Dense, Lstm};
//! let sine: Vec<f32> = (0..60).map(|t| (t as f32 * 0.3).sin()).collect();
//! let (x, y) = windows(&sine, 10, 1)?;
//! let mut model = Sequential::new(Device::cpu(), &[10, 1], 7)?;
//! model.add(Lstm::new(8))?.add(Dense::new(1))?;
//! let history = model.fit(x.view(), y.view(), FitOptions { epochs: 3, batch_size: 10, ..FitOptions::default() })?;
//! assert!(history.loss[2] < history.loss[0]);
//! assert_eq!(model.predict(x.view())?.shape(), [50, 1]);
//! # Ok::<(), fused_rnn::Error>(())
//! ```

mod arrays;
pub mod backup;
mod batch;
pub mod callbacks;
pub mod correction;
pub mod diagram;
mod evaluate;
mod feed;
pub(crate) mod file;
mod fingerprint;
pub mod fit;
pub mod forecast;
pub mod graph;
pub mod history;
mod host_loss;
mod input_shape;
mod lengths;
pub mod loss_advice;
mod loss_scale;
#[allow(clippy::module_inception)]
pub mod model;
mod monitor;
mod output;
mod passes;
mod penalties;
pub mod progress;
pub mod purpose;
pub mod ranks;
pub mod sequences;
pub mod sequential;
mod summary;
mod trainable;
mod weights;

pub use arrays::{AnyArray, Arrays};
pub use backup::{BackupAndRestore, SaveFrequency};
pub use batch::{Batch, Batches};
pub use callbacks::{
    BatchEnd, Callback, Checkpoint, CsvLog, EarlyStopping, EpochBegin, EpochEnd, LearningRateSchedule,
    ReduceLearningRate, Training,
};
pub use correction::{ChosenCorrection, Correction, SeenSeries};
pub use fit::{Clip, FitOptions};
pub use forecast::{
    Backtest, ForecastConfig, Forecaster, InputColumn, Known, KnownColumn, Panel, PanelSeries, SeriesValues,
};
pub use graph::{CallConfig, Graph, GraphConfig, GraphTensor, InputConfig, LayerId, NamedConfig, Source};
pub use history::{History, Outcome};
pub use input_shape::{Axis, InputShape};
pub use loss_scale::LossScale;
pub use model::Model;
pub use progress::{ProgressBar, ProgressMode};
pub use purpose::{Purpose, Trained};
#[cfg(feature = "mpi")]
pub use ranks::MpiRanks;
#[cfg(feature = "nccl")]
pub use ranks::NcclRanks;
pub use ranks::{Ranks, ThreadRanks, thread_ranks};
pub use sequences::{RowsConfig, SequenceConfig, SequenceModel, SequencePredictions, SequenceTarget};
pub use sequential::Sequential;
