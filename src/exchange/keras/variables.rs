//! The HDF5 file of a model's weights: arrays by the paths of the groups that they stand in, `layers/gru/cell/vars/0`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use hdf5_pure::{AttrValue, DType, Dataset, File, FileBuilder, Group, GroupBuilder, Layout};
use ndarray::{ArrayD, IxDyn};

use super::{format_error, unreadable};
use crate::error::{Error, Result};
use crate::memory;

/// Whether these are the bytes of an HDF5 file.
pub(super) fn is_hdf5(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89HDF\r\n\x1a\n")
}

pub(super) fn check_beginning(beginning: &[u8], path: &Path) -> Result<()> {
    if is_hdf5(beginning) { Ok(()) } else { Err(format_error(path, "the weights are no HDF5 file")) }
}

/// Groups inside of groups, at most. Keras has two for each layer, and two more for each model inside of a model.
const DEEPEST: usize = 48;

/// An array as the file describes it.
struct Variable {
    dataset: Dataset,
    shape: Vec<usize>,
}

/// The arrays of a file. Their values are read when they are asked for.
pub(super) struct Variables {
    path: PathBuf,
    variables: BTreeMap<String, Variable>,
    /// Groups that belong to layers, with the layers' names where the file says them.
    names: BTreeMap<String, String>,
}

/// Runs the HDF5 library on bytes that may be hostile. It checks what it reads; should it fail to, this is an error and no panic.
fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(format_error(path, "its HDF5 structure is damaged")))
}

impl Variables {
    /// Finds the arrays of a file, the optimizer's left out. Time and memory are bounded by its size.
    pub fn parse(bytes: Vec<u8>, path: &Path) -> Result<Self> {
        check_beginning(&bytes, path)?;
        let size = bytes.len();
        // Arrays become doubles, and weights of layers.
        memory::check(&format!("{}: the weights", path.display()), size.saturating_mul(8))?;
        let mut found = Variables { path: path.to_owned(), variables: BTreeMap::new(), names: BTreeMap::new() };
        guarded(path, || {
            let file = File::from_bytes(bytes).map_err(|e| format_error(path, unreadable("HDF5", e)))?;
            // An object takes more bytes than that; groups that hold each other would have no end.
            let mut budget = size / 16;
            found.walk(&file.root(), "", size, 0, &mut budget)
        })?;
        Ok(found)
    }

    fn walk(&mut self, group: &Group, at: &str, size: usize, depth: usize, budget: &mut usize) -> Result<()> {
        let path = self.path.clone();
        let problem = |e: hdf5_pure::Error| format_error(&path, unreadable(&format!("group /{at}"), e));
        if depth > DEEPEST {
            return Err(format_error(&path, format!("groups stand more than {DEEPEST} deep in each other at /{at}")));
        }
        let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
        for (name, dataset) in group.iter_datasets().map_err(problem)? {
            let name = below(&name);
            spend(budget, &path)?;
            let shape = checked_shape(&dataset, &name, size, &path)?;
            self.variables.insert(name, Variable { dataset, shape });
        }
        for (name, inner) in group.iter_groups().map_err(problem)? {
            spend(budget, &path)?;
            if at.is_empty() && (name == "optimizer" || name == "_optimizer") {
                continue;
            }
            if name == "vars"
                && let Ok(attributes) = inner.attrs()
                && let Some(own) = attributes.get("name").and_then(AttrValue::as_str)
            {
                self.names.insert(at.to_owned(), own.to_owned());
            }
            self.walk(&inner, &below(&name), size, depth + 1, budget)?;
        }
        Ok(())
    }

    /// The arrays that stand in a group of a layer, `vars/0`, `vars/1`, …, without their values.
    pub fn count(&self, group: &str) -> usize {
        (0..).take_while(|number| self.variables.contains_key(&variable(group, *number))).count()
    }

    /// The values of an array, by the group it stands in and its number there.
    pub fn array(&self, group: &str, number: usize) -> Result<ArrayD<f64>> {
        let name = variable(group, number);
        let Some(Variable { dataset, shape }) = self.variables.get(&name) else {
            return Err(format_error(&self.path, format!("the weights have no array {name}")));
        };
        let values = guarded(&self.path, || {
            let problem = |e: hdf5_pure::Error| format_error(&self.path, unreadable(&format!("array {name}"), e));
            match dataset.dtype().map_err(problem)? {
                DType::F32 => Ok(dataset.read_f32().map_err(problem)?.into_iter().map(f64::from).collect()),
                DType::F64 => dataset.read_f64().map_err(problem),
                other => Err(Error::unsupported(
                    format!("{}: array {name} of type {other}", self.path.display()),
                    "arrays of f32 and f64 are read; save the model with those",
                )),
            }
        })?;
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::NonFinite {
                tensor: name,
                got: values.get(place).copied().unwrap_or(f64::NAN),
                position: format!("element {place} in {}", self.path.display()),
                help: "train the model anew".to_owned(),
            });
        }
        let got = values.len();
        ArrayD::from_shape_vec(IxDyn(shape), values)
            .map_err(|_| format_error(&self.path, format!("array {name}: {got} values for the shape {shape:?}")))
    }

    /// The shapes of the arrays in a group of a layer.
    pub fn shapes(&self, group: &str) -> Vec<&[usize]> {
        (0..).map_while(|number| self.variables.get(&variable(group, number))).map(|v| v.shape.as_slice()).collect()
    }

    /// Groups with the names of the layers that they belong to, where the file says them.
    pub fn named_groups(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names.iter().map(|(group, name)| (group.as_str(), name.as_str()))
    }

    /// Refuses arrays that no layer has asked for; `used` are the groups that they have, `unused` those of layers that lead to no output.
    pub fn check_all_used(&self, used: &BTreeSet<String>, unused: &[String]) -> Result<()> {
        let left = self.variables.keys().find(|name| {
            // Seeds of random numbers: they change no output.
            let seeds = name.split('/').any(|part| part.contains("seed_generator"));
            let group = name.rsplit_once("/vars/").map_or("", |(group, _)| group);
            let lead_nowhere = || unused.iter().any(|unused| group.starts_with(unused.as_str()));
            !seeds && !used.contains(group) && !lead_nowhere()
        });
        match left {
            None => Ok(()),
            Some(name) => {
                let shape = self.variables.get(name).map(|v| v.shape.clone()).unwrap_or_default();
                let groups: Vec<&str> = used.iter().map(String::as_str).collect();
                let problem = format!(
                    "array {name} {shape:?} of the weights belongs to no layer of the model, whose arrays stand in {}",
                    groups.join(", ")
                );
                Err(format_error(&self.path, problem))
            }
        }
    }
}

/// The path of an array.
fn variable(group: &str, number: usize) -> String {
    if group.is_empty() { format!("vars/{number}") } else { format!("{group}/vars/{number}") }
}

fn spend(budget: &mut usize, path: &Path) -> Result<()> {
    let Some(left) = budget.checked_sub(1) else {
        return Err(format_error(path, "its HDF5 groups name more objects than it has room for"));
    };
    *budget = left;
    Ok(())
}

/// The shape of an array, whose values must stand in the file as they are.
fn checked_shape(dataset: &Dataset, name: &str, size: usize, path: &Path) -> Result<Vec<usize>> {
    let problem = |e: hdf5_pure::Error| format_error(path, unreadable(&format!("array {name}"), e));
    let shape = dataset.shape().map_err(problem)?;
    let shape: Option<Vec<usize>> = shape.into_iter().map(|n| usize::try_from(n).ok()).collect();
    let element = usize::try_from(dataset.element_size().map_err(problem)?).ok().filter(|n| *n > 0);
    let bytes = |shape: &Vec<usize>| shape.iter().chain(&element).try_fold(1usize, |all, n| all.checked_mul(*n));
    let fits = |shape: &Vec<usize>| bytes(shape).is_some_and(|bytes| bytes <= size);
    let Some(shape) = shape.filter(|shape| element.is_some() && fits(shape)) else {
        let problem = format!("array {name} is said to be larger than the file");
        return Err(format_error(path, problem));
    };
    match dataset.layout().map_err(problem)? {
        Layout::Compact { .. } | Layout::Contiguous { address: Some(_), .. } => Ok(shape),
        Layout::Contiguous { address: None, .. } => Err(format_error(path, format!("array {name} has no values"))),
        other => Err(Error::unsupported(
            format!("{}: array {name} in pieces ({other:?})", path.display()),
            "arrays that stand in the file as they are, as Keras writes them, are read; save the model with Keras",
        )),
    }
}

/// A file of weights being put together.
#[derive(Default)]
pub(super) struct Tree {
    arrays: Vec<(Vec<usize>, Vec<f32>)>,
    name: Option<String>,
    groups: BTreeMap<String, Tree>,
}

impl Tree {
    /// The group at a path, made where it is not there.
    pub fn at(&mut self, path: &str) -> &mut Tree {
        let mut tree = self;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            tree = tree.groups.entry(part.to_owned()).or_default();
        }
        tree
    }

    /// Says which layer it belongs to.
    pub fn set_name(&mut self, name: &str) {
        self.name = Some(name.to_owned());
    }

    /// Adds an array.
    pub fn push(&mut self, array: &ArrayD<f32>) {
        self.arrays.push((array.shape().to_vec(), array.iter().copied().collect()));
    }

    /// Puts all that it holds into its group.
    fn fill(&self, group: &mut GroupBuilder) {
        if self.has_variables() {
            let mut vars = group.create_group("vars");
            self.fill_variables(&mut vars);
            group.add_group(vars.finish());
        }
        for (name, inner) in &self.groups {
            let mut builder = group.create_group(name);
            inner.fill(&mut builder);
            group.add_group(builder.finish());
        }
    }

    /// Whether it is a layer, or a part of one with arrays.
    fn has_variables(&self) -> bool {
        self.name.is_some() || !self.arrays.is_empty()
    }

    fn fill_variables(&self, vars: &mut GroupBuilder) {
        for (number, (shape, values)) in self.arrays.iter().enumerate() {
            let shape: Vec<u64> = shape.iter().map(|n| *n as u64).collect();
            vars.create_dataset(&number.to_string()).with_f32_data(values).with_shape(&shape);
        }
        if let Some(name) = &self.name {
            vars.set_attr("name", AttrValue::String(name.clone()));
        }
    }

    /// The file.
    pub fn bytes(&self, path: &Path) -> Result<Vec<u8>> {
        let mut file = FileBuilder::new();
        if self.has_variables() {
            let mut vars = file.create_group("vars");
            self.fill_variables(&mut vars);
            file.add_group(vars.finish());
        }
        for (name, inner) in &self.groups {
            let mut builder = file.create_group(name);
            inner.fill(&mut builder);
            file.add_group(builder.finish());
        }
        file.finish().map_err(|e| format_error(path, e.to_string()))
    }
}
