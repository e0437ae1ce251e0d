//! A PyTorch `state_dict` taken apart: the modules that its names speak of.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::interop::safetensors::TensorFile;

/// A module with tensors: those whose names begin with its prefix.
#[derive(Clone, Debug)]
pub(super) struct Module {
    /// `rnn`, `head.0`; empty where the file is that of the module itself.
    pub prefix: String,
    /// Shapes by the names within the module: `weight_ih_l0`; that of a parameter by itself by an empty one.
    pub tensors: BTreeMap<String, Vec<usize>>,
}

/// How the names of tensors begin that modules with weights have; others are parameters by themselves.
const OF_MODULES: &[&str] =
    &["weight", "bias", "running_", "num_batches_tracked", "in_proj_", "out_proj.", "q_proj_", "k_proj_", "v_proj_"];

/// Parts of one module that stand in a module of their own in PyTorch.
const INNER: &[&str] = &["out_proj"];

impl Module {
    /// All modules of a file, in the order of their names, numbers in them by their size. Those of attention are whole where `attention` is set;
    /// otherwise its projections are modules by themselves, as products are.
    pub fn all(file: &TensorFile, attention: bool) -> Vec<Module> {
        let mut found: BTreeMap<String, Module> = BTreeMap::new();
        for name in file.names() {
            let (mut prefix, mut own) = name.rsplit_once('.').unwrap_or(("", name));
            if let Some(inner) = INNER.iter().find(|inner| attention && prefix.rsplit('.').next() == Some(**inner)) {
                let outer = prefix.strip_suffix(inner).unwrap_or(prefix);
                prefix = outer.strip_suffix('.').unwrap_or(outer);
                own = name.get(outer.len()..).unwrap_or(own);
            }
            if !OF_MODULES.iter().any(|start| own.starts_with(start)) {
                (prefix, own) = (name, "");
            }
            let Some(shape) = file.shape(name) else { continue };
            let module = found
                .entry(prefix.to_owned())
                .or_insert_with(|| Module { prefix: prefix.to_owned(), tensors: BTreeMap::new() });
            module.tensors.insert(own.to_owned(), shape.to_vec());
        }
        let mut modules: Vec<Module> = found.into_values().collect();
        modules.sort_by(|a, b| natural(&a.prefix, &b.prefix));
        modules
    }

    /// The full name of one of its tensors.
    pub fn full(&self, name: &str) -> String {
        join(&self.prefix, name)
    }

    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(Vec::as_slice)
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Layers of a recurrent module; 0 for others.
    pub fn levels(&self) -> usize {
        (0..self.tensors.len()).take_while(|level| self.has(&format!("weight_ih_l{level}"))).count()
    }

    /// Whether it normalizes by moving averages.
    pub fn is_batch_norm(&self) -> bool {
        self.has("running_mean") && self.has("running_var")
    }

    /// What it is, for messages: `rnn (weight_ih_l0 [24, 3], …)`.
    pub fn describe(&self) -> String {
        let tensors = self.tensors.iter().map(|(name, shape)| format!("{name} {shape:?}").trim_start().to_owned());
        format!("{} ({})", self.prefix, tensors.collect::<Vec<_>>().join(", "))
    }
}

/// A name within a prefix; either may be empty.
pub(super) fn join(prefix: &str, name: &str) -> String {
    match (prefix.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => prefix.to_owned(),
        _ => format!("{prefix}.{name}"),
    }
}

/// Names in order, with the numbers in them by their size: `head.2` before `head.10`.
fn natural(a: &str, b: &str) -> Ordering {
    let parts = |name: &str| -> Vec<(u64, String)> {
        let mut parts = Vec::new();
        let mut rest = name;
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, behind) = rest.split_at(digits);
            let letters = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
            let (text, further) = behind.split_at(letters);
            parts.push((number.parse().unwrap_or(u64::MAX), text.to_owned()));
            rest = further;
        }
        parts
    };
    parts(a).cmp(&parts(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_by_their_size() {
        let mut names = ["head.10", "fc2", "head.2", "fc10", "fc1", "embedding", "head"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["embedding", "fc1", "fc2", "fc10", "head", "head.2", "head.10"]);
    }
}
