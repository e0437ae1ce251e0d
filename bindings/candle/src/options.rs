//! [`Options`] of the layers that PyTorch has too.

use fused_rnn::cell::{Activation, Activations, CellKind};
use fused_rnn::rnn::{Bias, Direction, Layout, RnnDescriptor};
use fused_rnn::{Error, Result};

/// Options of a layer, with PyTorch's names, meanings and defaults but for one: axes are batch-major, as everywhere in candle.
///
/// For what PyTorch has not (peepholes, clips, other activations, sLSTM, MGU), see
/// [`Recurrent::from_descriptor`](crate::Recurrent::from_descriptor).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// Stacked layers. 1.
    pub num_layers: usize,
    /// Both directions. Not set.
    pub bidirectional: bool,
    /// Biases `bias_ih` and `bias_hh`. Set.
    pub bias: bool,
    /// `x` and `y` are `[batch, seq_len, features]`, otherwise `[seq_len, batch, features]`. Set.
    pub batch_first: bool,
    /// Probability of dropping an element of the input of every layer but the first, in calls for training. 0.
    pub dropout: f64,
    /// LSTM: width of the output, which is projected. None.
    pub proj_size: Option<usize>,
    /// RNN: relu instead of tanh. Not set.
    pub relu: bool,
    /// With which the masks of dropout begin. 0.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            num_layers: 1,
            bidirectional: false,
            bias: true,
            batch_first: true,
            dropout: 0.0,
            proj_size: None,
            relu: false,
            seed: 0,
        }
    }
}

macro_rules! setters {
    ($($name:ident: $type:ty),*) => {
        impl Options {
            $(
                #[doc = concat!("Sets [`", stringify!($name), "`](Self#structfield.", stringify!($name), ").")]
                #[must_use]
                pub fn $name(mut self, $name: $type) -> Self {
                    self.$name = $name;
                    self
                }
            )*
        }
    };
}

setters!(num_layers: usize, bidirectional: bool, bias: bool, batch_first: bool, dropout: f64, proj_size: Option<usize>, relu: bool, seed: u64);

impl Options {
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for relu in another cell than the RNN. What else a cell has not, its descriptor's validation finds.
    pub(crate) fn descriptor(&self, cell: CellKind, input_size: usize, hidden_size: usize) -> Result<RnnDescriptor> {
        let mut descriptor = RnnDescriptor::new(cell, input_size, hidden_size);
        descriptor.num_layers = self.num_layers;
        if self.bidirectional {
            descriptor.direction = Direction::Bidirectional;
        }
        if !self.bias {
            descriptor.bias = Bias::None;
        }
        if self.batch_first {
            descriptor.layout = Layout::BatchMajor;
        }
        descriptor.dropout = self.dropout;
        descriptor.proj_size = self.proj_size;
        if self.relu {
            if cell != CellKind::Rnn {
                return Err(Error::InvalidOption {
                    option: "relu".to_owned(),
                    expected: "the default, since only the RNN has it".to_owned(),
                    got: format!("true for the {cell}; other activations are fields of RnnDescriptor"),
                });
            }
            descriptor.activations = Activations { state: Activation::Relu, ..Activations::default() };
        }
        Ok(descriptor)
    }
}
