//! The recurrent layers that `train` puts together.

use fused_rnn::cell::CellKind;
use fused_rnn::nn::{Bidirectional, Dropout, Layer as _, LayerConfig, RecurrentOptions};
use fused_rnn::{Error, Result};

/// Most layers: each is slower to train than all below it, so that more are a slip of the hand.
const MOST_LAYERS: usize = 100;

/// What the network is made of.
#[derive(Clone, clap::Args)]
pub struct Network {
    /// Recurrent layer: rnn, lstm, gru or another cell that `info` lists.
    #[arg(long, default_value_t = CellKind::Lstm)]
    cell: CellKind,
    /// Units of each recurrent layer.
    #[arg(long, default_value_t = 50, value_name = "N")]
    units: usize,
    /// Recurrent layers, one on top of the other.
    #[arg(long, default_value_t = 1, value_name = "N")]
    layers: usize,
    /// Read in both directions of time: each layer has two halves, whose outputs stand side by side.
    #[arg(long)]
    bidirectional: bool,
    /// Part of each recurrent layer's outputs that is zeroed at random in training.
    #[arg(long, default_value_t = 0.0, value_name = "RATE")]
    dropout: f64,
}

impl Network {
    /// The layers, the last of which gives one output for a sequence.
    pub fn layers(&self) -> Result<Vec<LayerConfig>> {
        if !(1..=MOST_LAYERS).contains(&self.layers) {
            return Err(Error::InvalidOption {
                option: "layers".to_owned(),
                expected: format!("1 to {MOST_LAYERS}"),
                got: self.layers.to_string(),
            });
        }
        let mut layers = Vec::new();
        for layer in 1..=self.layers {
            let sequences = layer < self.layers;
            let recurrent = self.recurrent(sequences);
            layers.push(if self.bidirectional { Bidirectional::new(recurrent).into() } else { recurrent });
            if self.dropout != 0.0 {
                layers.push(Dropout::new(self.dropout).into());
            }
        }
        Ok(layers)
    }

    /// The same with other sizes.
    pub fn sized(&self, units: usize, layers: usize) -> Self {
        Network { units, layers, ..self.clone() }
    }

    /// As in `LSTM(50)`.
    pub fn name(&self) -> String {
        let one = format!("{}({})", self.class(), self.units);
        let one = if self.bidirectional { format!("Bidirectional({one})") } else { one };
        if self.layers == 1 { one } else { format!("{} x {one}", self.layers) }
    }

    /// As in `LSTM and dense layer`.
    pub fn described(&self) -> String {
        let both = if self.bidirectional { "bidirectional " } else { "" };
        let layers = if self.layers == 1 { String::new() } else { format!("{} layers of ", self.layers) };
        format!("{layers}{both}{} and dense layer", self.class())
    }

    fn recurrent(&self, return_sequences: bool) -> LayerConfig {
        LayerConfig::of_cell(self.cell, self.units, RecurrentOptions { return_sequences, ..Default::default() })
    }

    fn class(&self) -> String {
        self.recurrent(false).class_name().to_owned()
    }
}
