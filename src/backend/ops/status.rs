//! What calls report, and where it stands in a status: losses, values that are not finite, indices outside their table.
#![expect(clippy::indexing_slicing, reason = "places of an array of STATUS_LEN numbers, constants below it")]

use crate::backend::tensor::TensorMut;

/// How a loss enters the status.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossEntry {
    /// What the loss is multiplied with before it is added to [`Report::total`]: the samples of the batch, for a mean over batches.
    pub weight: f64,
    /// What [`Report::bad_loss`] shall say if it is not finite; not 0.
    pub code: u32,
}

/// Numbers of a status.
pub const STATUS_LEN: usize = 6;

/// Places in a status.
pub(crate) const LOSS: usize = 0;
pub(crate) const TOTAL: usize = 1;
pub(crate) const BAD_LOSS: usize = 2;
pub(crate) const BAD_GRADIENT: usize = 3;
pub(crate) const BAD_VALUE: usize = 4;
pub(crate) const BAD_INDEX: usize = 5;

/// What a status says. A status is a tensor of [`STATUS_LEN`] `f64`, zeros at first, that calls write to where they compute;
/// a code in it is that of the first call that had something to report.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// The last loss.
    pub loss: f64,
    /// Sum of all losses, each times its weight.
    pub total: f64,
    /// Code of the first loss that was NaN or infinite.
    pub bad_loss: Option<u32>,
    /// Code of the first check that found a value NaN or infinite.
    pub bad_gradient: Option<u32>,
    /// That loss, or else that value (on a device NaN, whatever it was).
    pub bad_value: f64,
    /// Code of the first gather or scatter with an index outside its table. On the host that is an error at once.
    pub bad_index: Option<u32>,
}

impl Report {
    /// What the numbers of a status say.
    pub fn new(status: &[f64; STATUS_LEN]) -> Self {
        // Codes are whole numbers of 32 bits, which f64 holds exactly.
        let code = |at: usize| (status[at] != 0.0).then_some(status[at] as u32);
        Report {
            loss: status[LOSS],
            total: status[TOTAL],
            bad_loss: code(BAD_LOSS),
            bad_gradient: code(BAD_GRADIENT),
            bad_value: status[BAD_VALUE],
            bad_index: code(BAD_INDEX),
        }
    }
}

/// Where a call that finds an index outside its table notes so, on a device: `code` (not 0) in the status. On the host that is an
/// error at once.
pub struct IndexStatus<'a> {
    /// What [`Report::bad_index`] shall say.
    pub code: u32,
    /// The status.
    pub status: TensorMut<'a>,
}
