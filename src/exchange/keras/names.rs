//! Keras's names: of groups in files of weights, and the order in which layers are counted there.

use std::collections::{BTreeMap, BTreeSet};

/// The name of a class in Keras's style for files, `to_snake_case`: `MaxPooling1D` is `max_pooling1d`, `LeakyReLU` `leaky_re_lu`.
pub(super) fn snake_case(class: &str) -> String {
    let letters: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let at = |i: usize| letters.get(i).copied();
    // A word of a capital and small letters, behind something: (.)([A-Z][a-z]+), from the left, each letter once.
    let mut words: Vec<char> = Vec::new();
    let mut i = 0;
    while let Some(letter) = at(i) {
        words.push(letter);
        i += 1;
        if at(i).is_some_and(|c| c.is_ascii_uppercase()) && at(i + 1).is_some_and(|c| c.is_ascii_lowercase()) {
            words.push('_');
            words.extend(at(i));
            i += 1;
            while let Some(small) = at(i).filter(char::is_ascii_lowercase) {
                words.push(small);
                i += 1;
            }
        }
    }
    // A capital behind a small letter: ([a-z])([A-Z]).
    let mut name = String::new();
    let mut before = '_';
    for letter in words {
        if before.is_ascii_lowercase() && letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
        before = letter;
    }
    name
}

/// Counts layers of a class: `lstm`, `lstm_1`, `lstm_2`, …
#[derive(Default)]
pub(super) struct Counters(BTreeMap<String, usize>);

impl Counters {
    /// The next name for a layer of this class.
    pub fn next(&mut self, class: &str) -> String {
        let name = snake_case(class);
        match self.0.get_mut(&name) {
            Some(count) => {
                *count += 1;
                format!("{name}_{count}")
            }
            None => {
                self.0.insert(name.clone(), 0);
                name
            }
        }
    }
}

/// A use of an operation, for [`model_order`]: the operation's number, and the uses that it reads, in their order.
pub(super) struct Use {
    pub operation: usize,
    pub inputs: Vec<usize>,
}

/// The order in which Keras keeps the operations of a functional model that it has made from a configuration, and so counts its layers:
/// by their distance from the outputs, then by when they are met on the way from the outputs to the inputs (`map_graph`).
pub(super) fn model_order(uses: &[Use], outputs: &[usize]) -> Vec<usize> {
    // From the outputs, each use behind those that it reads.
    let (mut finished, mut behind) = (BTreeSet::new(), Vec::new());
    let mut met: BTreeMap<usize, usize> = BTreeMap::new();
    for output in outputs {
        let mut open = vec![(*output, 0)];
        while let Some((node, next)) = open.pop() {
            let Some(one) = uses.get(node).filter(|_| !finished.contains(&node)) else { continue };
            let order = met.len();
            met.entry(one.operation).or_insert(order);
            match one.inputs.get(next) {
                Some(input) => {
                    open.push((node, next + 1));
                    open.push((*input, 0));
                }
                None => {
                    finished.insert(node);
                    behind.push(node);
                }
            }
        }
    }
    let (mut of_use, mut of_operation) = (BTreeMap::new(), BTreeMap::new());
    for node in behind.iter().rev() {
        let Some(one) = uses.get(*node) else { continue };
        let depth = *of_use.entry(*node).or_insert(0usize);
        let depth = depth.max(of_operation.get(&one.operation).copied().unwrap_or(0));
        of_operation.insert(one.operation, depth);
        of_use.insert(*node, depth);
        for input in &one.inputs {
            let known = of_use.entry(*input).or_insert(0);
            *known = (*known).max(depth + 1);
        }
    }
    let mut order: Vec<(usize, usize)> = of_operation.into_iter().collect();
    order.sort_by_key(|(operation, depth)| (std::cmp::Reverse(*depth), met.get(operation).copied()));
    order.into_iter().map(|(operation, _)| operation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kerass() {
        for (class, name) in [
            ("LSTM", "lstm"),
            ("GRU", "gru"),
            ("SimpleRNN", "simple_rnn"),
            ("MaxPooling1D", "max_pooling1d"),
            ("GlobalAveragePooling1D", "global_average_pooling1d"),
            ("Conv1D", "conv1d"),
            ("LeakyReLU", "leaky_re_lu"),
            ("ReLU", "re_lu"),
            ("ELU", "elu"),
            ("TimeDistributed", "time_distributed"),
            ("MultiHeadAttention", "multi_head_attention"),
            ("InputLayer", "input_layer"),
            ("LSTMCell", "lstm_cell"),
            ("SimpleRNNCell", "simple_rnn_cell"),
            ("SpatialDropout1D", "spatial_dropout1d"),
            ("Functional", "functional"),
        ] {
            assert_eq!(snake_case(class), name);
        }
        let mut counters = Counters::default();
        let names: Vec<String> = ["LSTM", "GRU", "LSTM", "LSTM"].iter().map(|class| counters.next(class)).collect();
        assert_eq!(names, ["lstm", "gru", "lstm_1", "lstm_2"]);
    }
}
