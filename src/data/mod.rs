//! From a file to arrays a model learns from: a column of a CSV file ([`CsvTable`]) as a [`Series`], its [`gaps`] closed as chosen, its
//! values scaled ([`Scaler`]), cut into [`windows`](fn@windows) and divided [in time order](TimeSplit). Several columns make a matrix
//! ([`read_columns`], [`Gaps::close_columns`], [`ColumnScaler`], [`split_sequences`]), with a column of classes beside them [`ClassifiedRows`]. Labelled series come from `.ts` files ([`ts`]);
//! [`encode`] makes arrays of classes and of sequences of different lengths, [`split`] divides samples at random, [`text`] numbers
//! characters.
//!
//! ```
//! use fused_rnn::data::{Scaler, TimeSplit, windows};
//! let series: Vec<f64> = (0..100).map(|t| f64::from(t).sin()).collect();
//! let split = TimeSplit::new(series.len(), 0.1, 0.2)?;
//! let scaler = Scaler::min_max(&series[split.train.clone()])?; // what is to be forecast must not leak into the scale
//! let scaled: Vec<f64> = series.iter().map(|v| scaler.transform(*v)).collect();
//! let (x, y) = windows(&scaled[split.train], 10, 1)?;
//! assert_eq!((x.shape(), y.shape()), (&[60, 10, 1][..], &[60, 1][..]));
//! # Ok::<(), fused_rnn::Error>(())
//! ```

pub mod classified;
pub mod csv;
pub mod decode;
pub mod encode;
pub mod gaps;
pub mod scaler;
pub mod split;
pub mod text;
pub mod time;
pub mod timeseries;
pub mod tokenizer;
pub mod ts;
pub mod window;

pub use classified::ClassifiedRows;
pub use csv::{
    ColumnChoice, ColumnsChoice, CsvOptions, CsvTable, DecimalMark, RowOrder, column_names, read_columns, read_series,
};
pub use decode::{Decoded, Sampler, beam_decode, greedy_decode};
pub use encode::{Padding, SequenceEnd, one_hot, pad_feature_sequences, pad_sequences};
pub use gaps::Gaps;
pub use scaler::{ColumnScaler, Scaler};
pub use split::{RandomSplit, stratified_train_test_split, train_test_split};
pub use text::CharVocabulary;
pub use time::{DateOrder, TimeAxis, TimeHoles};
pub use timeseries::{TimeseriesBatches, TimeseriesDataset};
pub use tokenizer::{TokenUnit, Tokenizer, TokenizerOptions};
pub use ts::{MissingValues, TimeSeriesSet, read_ts};
pub use window::{
    SequenceTargets, TimeSplit, create_dataset, has_trend, split_sequence, split_sequences, split_sequences_multi_step,
    windows,
};

/// A column of numbers in time order, some of which may be missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The column's name, or `column 2` where the file names none.
    pub name: String,
    /// The values; `None` is a gap.
    pub values: Vec<Option<f64>>,
    /// What stands beside each value: its date, else the text of the first other column (a year), empty where there is none.
    pub labels: Vec<String>,
    /// The name of what stands beside them.
    pub label_name: Option<String>,
    /// Line of the file of each value, counted from 1.
    pub lines: Vec<u64>,
    /// Where it was read, for messages.
    pub source_name: String,
}
