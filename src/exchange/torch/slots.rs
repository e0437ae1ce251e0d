//! Layers of a model as places for PyTorch's modules: which tensor becomes which.

use std::collections::BTreeMap;

use super::modules::Module;
use crate::model::Model;
use crate::nn::LayerConfig;

/// A layer with weights.
pub(super) struct Slot {
    /// Its name.
    pub layer: String,
    /// What it is, apart from `TimeDistributed` around it.
    pub config: LayerConfig,
    /// Where the names of its tensors begin, within the layer.
    scope: String,
    /// Shapes of its tensors by their names within the layer.
    pub tensors: BTreeMap<String, Vec<usize>>,
}

/// Where a tensor of a layer comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum From {
    /// A tensor as it is.
    Same(String),
    /// Two of one shape, added up.
    Sum(String, String),
    /// `[filters, features, steps]`, here `[steps, features, filters]`.
    Turned(String),
    /// Rows of a tensor, from this one on.
    Rows(String, usize),
    /// Nothing there: zeros.
    Zeros,
    /// Nothing there: ones.
    Ones,
}

impl From {
    /// The tensors that it takes.
    pub fn names(&self) -> Vec<&str> {
        match self {
            From::Same(name) | From::Turned(name) | From::Rows(name, _) => vec![name.as_str()],
            From::Sum(a, b) => vec![a.as_str(), b.as_str()],
            From::Zeros | From::Ones => Vec::new(),
        }
    }
}

/// A tensor of the model with where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Assigned {
    /// Its full name in the model.
    pub name: String,
    pub shape: Vec<usize>,
    pub from: From,
}

/// A recurrent layer or direction of a slot.
struct Unit {
    scope: String,
    level: usize,
    reverse: bool,
}

impl Slot {
    /// The layers of a model that have weights, in its order.
    pub fn all(model: &Model) -> crate::error::Result<Vec<Slot>> {
        let config = model.config()?;
        let mut slots = Vec::new();
        for named in &config.layers {
            let (mut inner, mut scope) = (&named.layer, String::new());
            while let LayerConfig::TimeDistributed(wrapper) = inner {
                inner = &wrapper.layer;
                scope.push_str(&format!("{}.", crate::nn::Layer::stem(inner)));
            }
            let prefix = format!("{}.", named.name);
            let tensors: BTreeMap<String, Vec<usize>> = model
                .weights()
                .filter_map(|(name, shape, _)| Some((name.strip_prefix(&prefix)?.to_owned(), shape.to_vec())))
                .collect();
            if !tensors.is_empty() {
                slots.push(Slot { layer: named.name.clone(), config: inner.clone(), scope, tensors });
            }
        }
        Ok(slots)
    }

    /// Whether some of them are layers of attention.
    pub fn have_attention(slots: &[Slot]) -> bool {
        slots.iter().any(|slot| matches!(slot.config, LayerConfig::MultiHeadAttention(_)))
    }

    /// Whether it is a constant of a graph rather than a layer with a counterpart in PyTorch.
    pub fn is_constant(&self) -> bool {
        matches!(self.config, LayerConfig::Weight(_))
    }

    /// Whether it normalizes by moving averages.
    pub fn is_batch_norm(&self) -> bool {
        matches!(self.config, LayerConfig::BatchNormalization(_))
    }

    fn full(&self, name: &str) -> String {
        format!("{}.{}{name}", self.layer, self.scope)
    }

    fn shape(&self, name: &str) -> Option<&Vec<usize>> {
        self.tensors.get(&format!("{}{name}", self.scope))
    }

    /// What it is, for messages.
    pub fn describe(&self) -> String {
        let tensors: Vec<String> = self.tensors.iter().map(|(name, shape)| format!("{name} {shape:?}")).collect();
        format!("{} ({})", self.layer, tensors.join(", "))
    }

    /// Recurrent layers one above the other that it has; 0 where it is none.
    pub fn levels(&self) -> usize {
        match &self.config {
            LayerConfig::RecurrentOperator(_) => 1,
            LayerConfig::Bidirectional(l) => l.layer.as_recurrent().map_or(0, |layer| layer.options().num_layers),
            layer => layer.as_recurrent().map_or(0, |layer| layer.options().num_layers),
        }
    }

    /// Its directions.
    fn directions(&self) -> usize {
        match &self.config {
            LayerConfig::Bidirectional(_) => 2,
            LayerConfig::RecurrentOperator(l) => l.backwards.len(),
            _ => 1,
        }
    }

    /// Layers and directions, with where the names of their tensors begin.
    fn units(&self) -> Vec<Unit> {
        let scopes: &[&str] = match &self.config {
            LayerConfig::Bidirectional(_) => &["forward.", "backward."],
            _ => &["", "backward."],
        };
        let mut units = Vec::new();
        for level in 0..self.levels() {
            for (direction, scope) in scopes.iter().enumerate().take(self.directions()) {
                let above = if level == 0 { String::new() } else { format!("layer_{level}.") };
                units.push(Unit { scope: format!("{above}{scope}"), level, reverse: direction == 1 });
            }
        }
        units
    }

    /// The tensors of this slot from those of a module, of whose recurrent layers the first is number `level`; or why they do not fit.
    pub fn fit(&self, module: &Module, level: usize) -> Result<Vec<Assigned>, String> {
        let assigned = match &self.config {
            _ if self.levels() > 0 => self.recurrent(module, level),
            // The projections of attention where it is written as products.
            LayerConfig::Dense(_) if module.has("in_proj_weight") => {
                self.parts(module, &[("weight", "in_proj_weight"), ("bias", "in_proj_bias")])
            }
            LayerConfig::Dense(_) => self.parts(module, &[("weight", "weight"), ("bias", "bias")]),
            LayerConfig::Weight(_) => self.parameter(module),
            LayerConfig::PRelu(_) => self.slope(module),
            LayerConfig::Conv1DTranspose(_) => self.transposed_convolution(module),
            LayerConfig::Embedding(_) => self.parts(module, &[("weight", "weight")]),
            LayerConfig::LayerNormalization(_) => self.parts(module, &[("gamma", "weight"), ("beta", "bias")]),
            LayerConfig::BatchNormalization(_) => {
                let names = [
                    ("gamma", "weight"),
                    ("beta", "bias"),
                    ("moving_mean", "running_mean"),
                    ("moving_variance", "running_var"),
                ];
                let mut assigned =
                    self.parts(module, if module.has("weight") { &names } else { names.get(2..).unwrap_or_default() })?;
                if !module.has("weight") && !module.has("bias") {
                    // Without weights of its own, `affine=False`.
                    for (name, from) in [("gamma", From::Ones), ("beta", From::Zeros)] {
                        if let Some(shape) = self.shape(name) {
                            assigned.push(Assigned { name: self.full(name), shape: shape.clone(), from });
                        }
                    }
                }
                Ok(assigned)
            }
            LayerConfig::Conv1D(_) => self.convolution(module),
            LayerConfig::MultiHeadAttention(_) => self.attention(module),
            _ => Err(format!("PyTorch has no module like {}", self.describe())),
        }?;
        // What a module has must go somewhere.
        let used: Vec<&str> = assigned.iter().flat_map(|one| one.from.names()).collect();
        let left = module.tensors.keys().map(|name| module.full(name)).find(|name| {
            let of_level = self.levels() > 0 || name.ends_with("num_batches_tracked");
            !of_level && !used.contains(&name.as_str())
        });
        match left {
            Some(left) => Err(format!("{} has no place for {left}", self.describe())),
            None => Ok(assigned),
        }
    }

    /// Tensors one for one: ours, PyTorch's.
    fn parts(&self, module: &Module, names: &[(&str, &str)]) -> Result<Vec<Assigned>, String> {
        let mut assigned = Vec::new();
        for (own, name) in names {
            let Some(shape) = self.shape(own) else { continue };
            match module.shape(name) {
                Some(found) if found == shape.as_slice() => assigned.push(Assigned {
                    name: self.full(own),
                    shape: shape.clone(),
                    from: From::Same(module.full(name)),
                }),
                Some(found) => {
                    let full = module.full(name);
                    return Err(format!("{full} has the shape {found:?}, but {} needs {shape:?}", self.full(own)));
                }
                None => return Err(format!("there is no {} for {}", module.full(name), self.full(own))),
            }
        }
        Ok(assigned)
    }

    /// A parameter by itself, whose axes of 1 may stand elsewhere.
    fn parameter(&self, module: &Module) -> Result<Vec<Assigned>, String> {
        let long = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
        // The slopes of a rectifier are its only weights.
        let name = if module.has("") { "" } else { "weight" };
        match (self.shape("weight"), module.shape(name)) {
            (Some(shape), Some(found)) if module.tensors.len() == 1 && long(shape) == long(found) => {
                Ok(vec![Assigned {
                    name: self.full("weight"),
                    shape: shape.clone(),
                    from: From::Same(module.full(name)),
                }])
            }
            _ => Err(format!("{} is no parameter of the shape of {}", module.prefix, self.describe())),
        }
    }

    /// PyTorch's slope is one, or one for each channel.
    fn slope(&self, module: &Module) -> Result<Vec<Assigned>, String> {
        match (self.shape("alpha"), module.shape("weight")) {
            (Some(shape), Some(found))
                if module.tensors.len() == 1 && shape.iter().product::<usize>() == found.iter().product::<usize>() =>
            {
                Ok(vec![Assigned {
                    name: self.full("alpha"),
                    shape: shape.clone(),
                    from: From::Same(module.full("weight")),
                }])
            }
            _ => Err(format!("{} has not the slopes of {}", module.prefix, self.describe())),
        }
    }

    /// PyTorch has `[features, filters, steps]`, here `[steps, filters, features]`.
    fn transposed_convolution(&self, module: &Module) -> Result<Vec<Assigned>, String> {
        let (Some(kernel), Some(found)) = (self.shape("kernel"), module.shape("weight")) else {
            return Err(format!("there is no {}", module.full("weight")));
        };
        let turned: Vec<usize> = kernel.iter().rev().copied().collect();
        if found != turned.as_slice() {
            let name = module.full("weight");
            return Err(format!("{name} has the shape {found:?}, but {} needs {turned:?}", self.layer));
        }
        let mut assigned = self.parts(module, &[("bias", "bias")])?;
        assigned.push(Assigned {
            name: self.full("kernel"),
            shape: kernel.clone(),
            from: From::Turned(module.full("weight")),
        });
        Ok(assigned)
    }

    fn convolution(&self, module: &Module) -> Result<Vec<Assigned>, String> {
        let mut assigned = Vec::new();
        let (Some(kernel), Some(found)) = (self.shape("kernel"), module.shape("weight")) else {
            return Err(format!("there is no {}", module.full("weight")));
        };
        let turned: Vec<usize> = kernel.iter().rev().copied().collect();
        if found != turned.as_slice() {
            return Err(format!(
                "{} has the shape {found:?}, but {} needs {turned:?}",
                module.full("weight"),
                self.layer
            ));
        }
        assigned.push(Assigned {
            name: self.full("kernel"),
            shape: kernel.clone(),
            from: From::Turned(module.full("weight")),
        });
        if let Some(shape) = self.shape("bias") {
            let from = match module.shape("bias") {
                Some(found) if found == shape.as_slice() => From::Same(module.full("bias")),
                // A normalization behind it may bring one.
                None => From::Zeros,
                Some(found) => return Err(format!("{} has the shape {found:?}", module.full("bias"))),
            };
            assigned.push(Assigned { name: self.full("bias"), shape: shape.clone(), from });
        }
        Ok(assigned)
    }

    /// PyTorch's projections of queries, keys and values are one tensor.
    fn attention(&self, module: &Module) -> Result<Vec<Assigned>, String> {
        let mut assigned = Vec::new();
        for (part, own) in ["query", "key", "value", "attention_output"].into_iter().enumerate() {
            for (kind, whole) in [("weight", "in_proj_weight"), ("bias", "in_proj_bias")] {
                let name = format!("{own}.{kind}");
                let Some(shape) = self.shape(&name) else { continue };
                let (Some(rows), source) = (
                    shape.first(),
                    if own == "attention_output" { format!("out_proj.{kind}") } else { whole.to_owned() },
                ) else {
                    continue;
                };
                let mut whole_shape = shape.clone();
                if own != "attention_output"
                    && let Some(first) = whole_shape.first_mut()
                {
                    *first = rows.saturating_mul(3);
                }
                match module.shape(&source) {
                    Some(found) if found == whole_shape.as_slice() => {}
                    found => {
                        let full = module.full(&source);
                        return Err(format!(
                            "{full} has the shape {found:?}, but {} needs {whole_shape:?}",
                            self.layer
                        ));
                    }
                }
                let source = module.full(&source);
                let from = if own == "attention_output" { From::Same(source) } else { From::Rows(source, part * rows) };
                assigned.push(Assigned { name: self.full(&name), shape: shape.clone(), from });
            }
        }
        Ok(assigned)
    }

    fn recurrent(&self, module: &Module, first: usize) -> Result<Vec<Assigned>, String> {
        let levels = module.levels();
        if levels == 0 {
            return Err(format!("{} is no recurrent module", module.describe()));
        }
        let both = module.has("weight_ih_l0_reverse");
        if both != (self.directions() == 2) {
            let (theirs, ours) = if both { ("two directions", "one") } else { ("one direction", "two") };
            return Err(format!("{} has {theirs}, but {} {ours}", module.prefix, self.layer));
        }
        if first.saturating_add(self.levels()) > levels {
            return Err(format!("{} has {levels} layers, of which {first} have a place already", module.prefix));
        }
        let reset_before = match &self.config {
            LayerConfig::Gru(l) => !l.reset_after,
            LayerConfig::Bidirectional(l) => matches!(&*l.layer, LayerConfig::Gru(l) if !l.reset_after),
            _ => false,
        };
        if reset_before {
            return Err(format!(
                "the reset gate of {} acts before the product, PyTorch's after it; set reset_after",
                self.layer
            ));
        }
        let mut assigned = Vec::new();
        for Unit { scope, level, reverse } in self.units() {
            let suffix = format!("_l{}{}", first.saturating_add(level), if reverse { "_reverse" } else { "" });
            // One that goes backwards says so in the names of its weights.
            let ours = |name: &str| {
                let plain = format!("{scope}{name}_l0");
                if self.shape(&plain).is_some() { plain } else { format!("{plain}_reverse") }
            };
            for name in ["weight_ih", "weight_hh", "weight_hr"] {
                let theirs = format!("{name}{suffix}");
                match (self.shape(&ours(name)), module.shape(&theirs)) {
                    (Some(shape), Some(found)) if shape.as_slice() == found => assigned.push(Assigned {
                        name: self.full(&ours(name)),
                        shape: shape.clone(),
                        from: From::Same(module.full(&theirs)),
                    }),
                    (None, None) => {}
                    (shape, found) => {
                        return Err(format!(
                            "{} has the shape {}, but {} needs {}",
                            module.full(&theirs),
                            described(found),
                            self.full(&ours(name)),
                            described(shape.map(Vec::as_slice))
                        ));
                    }
                }
            }
            let (ih, hh) = (format!("bias_ih{suffix}"), format!("bias_hh{suffix}"));
            let has_bias = module.has(&ih) && module.has(&hh);
            let mut push = |name: &str, from: From| {
                if let Some(shape) = self.shape(&ours(name)) {
                    assigned.push(Assigned { name: self.full(&ours(name)), shape: shape.clone(), from });
                }
            };
            match (self.shape(&ours("bias_ih")), self.shape(&ours("bias_hh")), has_bias) {
                (None, None, false) => {}
                (Some(_), None, true) => push("bias_ih", From::Sum(module.full(&ih), module.full(&hh))),
                (Some(_), Some(_), true) => {
                    push("bias_ih", From::Same(module.full(&ih)));
                    push("bias_hh", From::Same(module.full(&hh)));
                }
                (_, _, true) => return Err(format!("{} has biases, but {} none", module.prefix, self.layer)),
                (_, _, false) => return Err(format!("{} has no biases, but {} needs them", module.prefix, self.layer)),
            }
            for name in [&ih, &hh] {
                if let (Some(found), Some(shape)) = (module.shape(name), self.shape(&ours("bias_ih")))
                    && found != shape.as_slice()
                {
                    return Err(format!("{} has the shape {found:?}, but {shape:?} is needed", module.full(name)));
                }
            }
        }
        Ok(assigned)
    }
}

fn described(shape: Option<&[usize]>) -> String {
    shape.map_or("of nothing, since it is not there".to_owned(), |shape| format!("{shape:?}"))
}
