//! A pretrained encoder–decoder, g2p_en, in this crate's layers: two GRUs of 256 units convert English words to phonemes.
//!
//! The encoder reads a word's letters; the decoder starts from its last state and predicts one phoneme at a time, each from the one
//! before, until the end symbol. The weights are read tensor by tensor from a file in PyTorch's layout (`examples/data/README.md` has its
//! origin), and words are processed in batches.
//!
//! ```text
//! cargo run --release --example g2p -- hello world     # words
//! cargo run --release --example g2p -- --file WORDS    # a file of words, one a line
//! cargo run --release --example g2p                    # against the original's phonemes for 1,000 words
//! ```
//!
//! A line is a word, a tab and its phonemes. The throughput goes to standard error.
//!
//! ```text
//! hello   HH EH1 L OW0
//! world   W ER1 L D
//! ```

pub mod common;

use std::time::Instant;

use fused_rnn::interop::safetensors::TensorFile;
use fused_rnn::metrics::argmax_rows;
use fused_rnn::model::{Graph, Model};
use fused_rnn::nn::{Dense, Embedding, Gru};
use fused_rnn::{Device, Error, Result};
use ndarray::{Array2, Axis};

/// Width of embeddings and states.
const UNITS: usize = 256;
/// Indices of the letters: 0 is padding, 1 any other character, 2 the end of the word, then come a to z.
const LETTERS: usize = 29;
const OTHER: usize = 1;
const WORD_END: usize = 2;
/// The decoder's start and end symbols.
const START: usize = 2;
const END: usize = 3;
/// Maximum number of phonemes of a word.
const MOST_PHONEMES: usize = 20;
/// Words of a batch.
const BATCH: usize = 128;

fn main() -> Result<()> {
    let options = common::options("g2p");
    let device = options.device()?;
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })
    };
    let (words, expected): (Vec<String>, Vec<String>) = match &options.rest[..] {
        [] => list(&read(&common::data("g2p_words.tsv"))?, if options.short { 50 } else { usize::MAX }),
        [flag, path] if flag == "--file" => {
            let lines = read(path.as_ref())?;
            (lines.lines().map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect(), Vec::new())
        }
        words => (words.to_vec(), Vec::new()),
    };
    let mut speller = Speller::new(device)?;
    let start = Instant::now();
    let spelled = speller.spell(&words)?;
    let seconds = start.elapsed().as_secs_f64();

    for (word, phonemes) in words.iter().zip(&spelled) {
        println!("{word}\t{phonemes}");
    }
    eprintln!("{} words in {seconds:.3} s, {:.0} words a second", words.len(), words.len() as f64 / seconds);
    if !expected.is_empty() {
        let same = spelled.iter().zip(&expected).filter(|(ours, theirs)| ours == theirs).count();
        eprintln!("{same} of {} words spelled as by the original", words.len());
        common::result("g2p", "GRU encoder-decoder", "same_words", same as f64, seconds);
    }
    Ok(())
}

/// The words of a list, and the phonemes that the original model predicts for them.
pub fn list(text: &str, most: usize) -> (Vec<String>, Vec<String>) {
    let lines = text.lines().filter_map(|line| line.split_once('\t')).take(most);
    lines.map(|(word, phonemes)| (word.to_owned(), phonemes.to_owned())).unzip()
}

/// The pretrained model.
pub struct Speller {
    device: Device,
    file: TensorFile,
    phonemes: Vec<String>,
    /// The encoder of the last batch, with the length of its words.
    encoder: Option<(usize, Model)>,
    /// One step: from a phoneme and a state to the scores of the next phoneme and the next state.
    decoder: Model,
}

impl Speller {
    /// Loads the model from `examples/data`.
    pub fn new(device: Device) -> Result<Self> {
        let file = TensorFile::read(common::data("g2p_en.safetensors"))?;
        let path = common::data("g2p_phonemes.txt");
        let names = std::fs::read_to_string(&path).map_err(|source| Error::Io { action: "read", path, source })?;
        let phonemes: Vec<String> = names.lines().map(str::to_owned).collect();

        let mut graph = Graph::new(device.clone(), 0);
        let (before, state) = (graph.input("phoneme", &[1])?, graph.input("state", &[UNITS])?);
        let embedded = graph.add(Embedding::new(phonemes.len(), UNITS), &[&before])?;
        let outputs = graph.add_all(Gru::new(UNITS).return_state(true), &[&embedded, &state])?;
        let scores = graph.add(Dense::new(phonemes.len()), &[&outputs[0]])?;
        let mut decoder = graph.model(&[&scores, &outputs[1]])?;
        load(&file, "dec", &mut decoder)?;
        for (ours, theirs) in [("dense.weight", "fc_w"), ("dense.bias", "fc_b")] {
            decoder.set_weight(ours, &file.floats::<f32>(theirs)?.1)?;
        }
        Ok(Speller { device, file, phonemes, encoder: None, decoder })
    }

    /// The phonemes of each word, separated by spaces. Upper case counts as lower case.
    pub fn spell(&mut self, words: &[impl AsRef<str>]) -> Result<Vec<String>> {
        let letters: Vec<Vec<usize>> = words.iter().map(|word| numbers(word.as_ref())).collect();
        // Words of similar length in one batch need little padding.
        let mut order: Vec<usize> = (0..words.len()).collect();
        order.sort_by_key(|&word| letters[word].len());
        let mut spelled = vec![String::new(); words.len()];
        for together in order.chunks(BATCH) {
            let letters: Vec<&[usize]> = together.iter().map(|&word| &letters[word][..]).collect();
            let states = self.encode(&letters)?;
            for (&word, phonemes) in together.iter().zip(self.decode(states)?) {
                let names: Vec<&str> = phonemes.iter().map(|&phoneme| &self.phonemes[phoneme][..]).collect();
                spelled[word] = names.join(" ");
            }
        }
        Ok(spelled)
    }

    /// The state after each word, `[words, UNITS]`.
    fn encode(&mut self, words: &[&[usize]]) -> Result<Array2<f32>> {
        let longest = words.iter().map(|letters| letters.len()).max().unwrap_or(0);
        let encoder = match &mut self.encoder {
            Some((seq_len, encoder)) if *seq_len == longest => encoder,
            other => {
                let mut graph = Graph::new(self.device.clone(), 0);
                let letters = graph.input("letters", &[longest])?;
                // Index 0 is padding: the GRU skips those steps.
                let embedded = graph.add(Embedding::new(LETTERS, UNITS).mask_zero(true), &[&letters])?;
                let state = graph.add(Gru::new(UNITS), &[&embedded])?;
                let mut encoder = graph.model(&[&state])?;
                load(&self.file, "enc", &mut encoder)?;
                &mut other.insert((longest, encoder)).1
            }
        };
        let mut padded = Array2::zeros((words.len(), longest));
        for (mut row, letters) in padded.rows_mut().into_iter().zip(words) {
            row.iter_mut().zip(*letters).for_each(|(to, letter)| *to = *letter as f32);
        }
        Ok(common::rows(&encoder.predict(&padded)?))
    }

    /// Greedy decoding from each state.
    fn decode(&mut self, mut states: Array2<f32>) -> Result<Vec<Vec<usize>>> {
        let mut spelled = vec![Vec::new(); states.nrows()];
        // The words not finished yet, and their last phonemes.
        let mut words: Vec<usize> = (0..states.nrows()).collect();
        let mut last = vec![START; words.len()];
        for _ in 0..MOST_PHONEMES {
            if words.is_empty() {
                break;
            }
            let before = Array2::from_shape_fn((words.len(), 1), |(row, _)| last[row] as f32);
            let outputs = self.decoder.predict_all([before.view().into_dyn(), states.view().into_dyn()])?;
            let (scores, next) = (common::rows(&outputs[0]), common::rows(&outputs[1]));
            last = argmax_rows(scores.view())?;
            let open: Vec<usize> = (0..words.len()).filter(|&row| last[row] != END).collect();
            words = open.iter().map(|&row| words[row]).collect();
            last = open.iter().map(|&row| last[row]).collect();
            states = next.select(Axis(0), &open);
            words.iter().zip(&last).for_each(|(&word, &phoneme)| spelled[word].push(phoneme));
        }
        Ok(spelled)
    }
}

/// The indices of a word's letters and of its end.
fn numbers(word: &str) -> Vec<usize> {
    let letter = |c: char| if c.is_ascii_lowercase() { 3 + (c as usize - 'a' as usize) } else { OTHER };
    word.to_lowercase().chars().map(letter).chain([WORD_END]).collect()
}

/// Loads the weights of an embedding and a GRU. The file has PyTorch's shapes and gate order (r, z, n), which are this crate's too.
fn load(file: &TensorFile, side: &str, model: &mut Model) -> Result<()> {
    for (ours, theirs) in [
        ("embedding.weight", "emb"),
        ("gru.weight_ih_l0", "w_ih"),
        ("gru.weight_hh_l0", "w_hh"),
        ("gru.bias_ih_l0", "b_ih"),
        ("gru.bias_hh_l0", "b_hh"),
    ] {
        model.set_weight(ours, &file.floats::<f32>(&format!("{side}_{theirs}"))?.1)?;
    }
    Ok(())
}
