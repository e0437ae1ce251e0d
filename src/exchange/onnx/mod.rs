//! [ONNX](https://onnx.ai): graphs of PyTorch's two exporters, of Keras and of others become models of this crate, and go back.
//!
//! Every value of a graph is computed once, either as a constant (weights, and the arithmetic of shapes, in which the number of samples stays
//! unknown) or as a tensor of the model. Recurrent nodes, products, embeddings, convolutions and normalisations become layers whose
//! weights training changes; so do recurrences that an exporter has unrolled, whose steps share their weights. What cannot be done is
//! an error that names the node.
//!
//! | file | what |
//! |---|---|
//! | `proto` | the format: bounds, tensors, attributes |
//! | `constant`, `fold` | values that are known before the model runs |
//! | `tensor` | values that the model computes, with the samples in any axis |
//! | `import` | the graph, its values, weights and names |
//! | `evaluate` | which function has an operator; constants and casts |
//! | `shapes`, `parts`, `elements` | operators that move elements, take parts, compute with elements |
//! | `layers`, `attention`, `windows`, `einsum`, `recurrent` | products and normalisations; attention; convolutions and pools; Einstein's sums; recurrences |
//! | `export`, `write_layers` | the way back: [`write()`] |
#![expect(
    clippy::indexing_slicing,
    reason = "axes come from `Node::axis`, which refuses those that a tensor has not; numbers of elements from shapes whose product is counted first"
)]

mod attention;
mod constant;
mod einsum;
mod elements;
mod evaluate;
mod export;
mod fold;
mod import;
mod layers;
mod parts;
mod proto;
mod recurrent;
mod shapes;
mod tensor;
mod windows;
mod write_layers;

pub use export::{bytes, write};

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rten_onnx::onnx::{DataType, TensorProto, ValueInfoProto};

use crate::backend::Device;
use crate::error::{Error, Result};
use crate::exchange::onnx::constant::{Constant, Elements, Kind};
use crate::exchange::onnx::import::{Importer, NamedWeights, Value};
use crate::exchange::onnx::proto::{Node, OnnxFile, format_error};
use crate::exchange::onnx::tensor::{Axis, BATCH, Data};
use crate::exchange::{Imported, Port, open};
use crate::model::{GraphConfig, Model};

/// Ways to give the samples' axis that are tried, at most, where a file does not say it.
const MOST_TRIES: usize = 256;

/// What a file does not say, or not as it is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Which axis of an input has the samples. Otherwise it is the one named `batch`, or the only one without a fixed length; where all
    /// lengths are fixed, the first one with which the graph can be computed for each sample by itself.
    pub batch_axes: Vec<(String, usize)>,
    /// Lengths of axes that the file gives a name instead. Without, they may be of any length, where the graph's layers are the same for all.
    pub dims: Vec<(String, usize)>,
    /// Inputs that always have this value, which then are none of the model's: a sampling rate that chooses between networks, say.
    pub constants: Vec<(String, f64)>,
    /// Shapes of arrays that stand for the inputs, the samples among their axes: they say the lengths of axes that have none in the file and
    /// in `dims`, where the model cannot be for any length. One for each input of the file, in its order; empty where there are no such arrays.
    pub shapes: Vec<Vec<usize>>,
}

impl ImportOptions {
    /// Sets which axis of an input has the samples.
    #[must_use]
    pub fn batch_axis(mut self, input: &str, axis: usize) -> Self {
        self.batch_axes.push((input.to_owned(), axis));
        self
    }

    /// Sets the length of axes of this name.
    #[must_use]
    pub fn dim(mut self, name: &str, length: usize) -> Self {
        self.dims.push((name.to_owned(), length));
        self
    }

    /// Sets the value of an input.
    #[must_use]
    pub fn constant(mut self, input: &str, value: f64) -> Self {
        self.constants.push((input.to_owned(), value));
        self
    }

    /// Sets the shapes of arrays that stand for the inputs, in the file's order.
    #[must_use]
    pub fn shapes(mut self, shapes: &[Vec<usize>]) -> Self {
        self.shapes = shapes.to_vec();
        self
    }
}

/// Reads a model. Tensors that stand outside of the file are looked for beside it.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Format`] where it is no ONNX file, or a node or a tensor in it is wrong, which is named; [`Error::Unsupported`]
/// for a node that this crate has nothing for, or that would mix samples; [`Error::InvalidOption`] for an option that names nothing in the
/// file; [`Error::NonFinite`] for weights that are NaN or infinite.
pub fn read(device: Device, path: impl AsRef<Path>, options: &ImportOptions) -> Result<Imported> {
    let path = path.as_ref();
    import(device, &OnnxFile::read(path)?, options).map(|(imported, _)| imported)
}

/// Shape and elements of a tensor.
pub(super) type Shaped = (Vec<usize>, Vec<f64>);

/// A model, and the layers all of whose weights take the place of the file's.
type Read = (Imported, HashSet<String>);

/// A model with other weights than the file's.
pub(super) struct WithTensors {
    pub imported: Imported,
    /// Layers all of whose weights were given.
    pub layers: HashSet<String>,
    /// Tensors that are constants of the file.
    pub tensors: HashSet<String>,
}

/// Reads a model with these tensors in the place of constants that have their names and shapes.
pub(super) fn read_with_tensors(
    device: Device,
    path: &Path,
    options: &ImportOptions,
    tensors: HashMap<String, Shaped>,
) -> Result<WithTensors> {
    let mut file = OnnxFile::read(path)?;
    let mut own = HashMap::new();
    for tensor in &file.graph.initializer {
        if let Some(name) = tensor.name.as_deref().filter(|name| tensors.contains_key(*name)) {
            let constant = file.tensor(tensor)?;
            let same = tensors.get(name).is_some_and(|(shape, _)| *shape == constant.shape);
            let (true, Kind::Float, Some(values)) = (same, constant.kind(), constant.floats()) else { continue };
            let changed = tensors.get(name).is_some_and(|(_, new)| *new != values);
            // Exporters write equal constants once.
            if changed && constant.len() > 1 && constant.uniform().is_some() && import::reads_of(&file.graph, name) > 1
            {
                let problem = format!(
                    "its constant {name} has one number everywhere and is read by several nodes: it may stand for several tensors that were \
                     equal. Export the model again from the module with the weights that are wanted"
                );
                return Err(format_error(path, problem));
            }
            own.insert(name.to_owned(), values);
        }
    }
    let more = file
        .graph
        .initializer
        .iter()
        .map(|tensor| repeated(&file, tensor, &own, &tensors))
        .collect::<Result<Vec<_>>>()?;
    file.given = tensors;
    file.given.extend(more.into_iter().flatten());
    let (imported, layers) = import(device, &file, options)?;
    let tensors = own.into_keys().collect();
    Ok(WithTensors { imported, layers, tensors })
}

/// What takes the place of a constant that has the values of one of these tensors in every row: a bias that a state of zeros met, which
/// exporters compute.
fn repeated(
    file: &OnnxFile,
    tensor: &TensorProto,
    own: &HashMap<String, Vec<f64>>,
    tensors: &HashMap<String, Shaped>,
) -> Result<Option<(String, Shaped)>> {
    let Some(name) = tensor.name.as_deref().filter(|name| !own.contains_key(*name)) else { return Ok(None) };
    let Some(columns) = tensor.dims.last().and_then(|n| usize::try_from(*n).ok()).filter(|n| *n > 1) else {
        return Ok(None);
    };
    let sources: Vec<(&String, &Vec<f64>)> = own.iter().filter(|(_, values)| values.len() == columns).collect();
    if sources.is_empty() {
        return Ok(None);
    }
    let constant = file.tensor(tensor)?;
    let (Kind::Float, None, Some(values)) = (constant.kind(), constant.uniform(), constant.floats()) else {
        return Ok(None);
    };
    let row = |own: &[f64], row: &[f64]| own.iter().zip(row).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs());
    let fits = |own: &Vec<f64>| values.chunks(columns).all(|values| row(own, values));
    let mut found = sources.into_iter().filter(|(_, own)| fits(own)).filter_map(|(name, _)| tensors.get(name));
    let Some((_, first)) = found.next() else { return Ok(None) };
    // Equal once, they must be equal now.
    if found.any(|(_, other)| other != first) {
        return Ok(None);
    }
    let wide = first.iter().copied().cycle().take(values.len()).collect();
    Ok(Some((name.to_owned(), (constant.shape, wide))))
}

/// The same of a file's bytes; `path` is for messages, and says where tensors outside of it stand.
///
/// # Errors
///
/// As [`read`].
pub fn parse(device: Device, bytes: &[u8], path: &Path, options: &ImportOptions) -> Result<Imported> {
    import(device, &OnnxFile::parse(bytes, path)?, options).map(|(imported, _)| imported)
}

impl Model {
    /// The model of an ONNX file, with the samples first in its inputs and outputs; [`exchange::onnx::read`](read) says where the file has
    /// them, and takes options.
    ///
    /// # Errors
    ///
    /// As [`read`].
    pub fn from_onnx(device: Device, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        read(device, path, &ImportOptions::default()).map(|imported| imported.model)
    }
}

impl crate::model::Graph {
    /// The model of an ONNX file: [`Model::from_onnx`].
    ///
    /// # Errors
    ///
    /// As [`read`].
    pub fn from_onnx(device: Device, path: impl AsRef<Path>) -> Result<Model> {
        let path = path.as_ref();
        Model::from_onnx(device, path)
    }
}

/// A length as a file has it.
#[derive(Clone, PartialEq)]
enum Dim {
    Fixed(usize),
    Named(String),
}

/// An input as a file has it.
#[derive(Clone)]
struct Input<'f> {
    name: &'f str,
    dims: Vec<Dim>,
    kind: Kind,
    /// Which of its axes could have the samples, the likeliest first.
    candidates: Vec<usize>,
}

fn dims(info: &ValueInfoProto, options: &ImportOptions) -> Option<Vec<Dim>> {
    let shape = info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
    let name = info.name.as_deref().unwrap_or_default();
    let dim = |(axis, dim): (usize, &rten_onnx::onnx::Dimension)| {
        let fixed = dim.dim_value.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        match (fixed, dim.dim_param.as_deref().filter(|name| !name.is_empty())) {
            (Some(n), _) => Dim::Fixed(n),
            (None, named) => {
                let named = named.map_or_else(|| format!("{name}.{axis}"), str::to_owned);
                let given = options.dims.iter().find(|(other, _)| *other == named);
                given.map_or(Dim::Named(named), |(_, n)| Dim::Fixed(*n))
            }
        }
    };
    Some(shape.dim.iter().enumerate().map(dim).collect())
}

/// Inputs with a value that is always the same.
type Given<'f> = Vec<(&'f str, Constant)>;

/// The inputs that the model has: those without a value in the file or in the options.
fn inputs<'f>(file: &'f OnnxFile, options: &ImportOptions) -> Result<(Vec<Input<'f>>, Given<'f>)> {
    let (mut inputs, mut constants) = (Vec::new(), Vec::new());
    for info in &file.graph.input {
        let Some(name) = info.name.as_deref() else { continue };
        if file.graph.initializer.iter().any(|tensor| tensor.name.as_deref() == Some(name)) {
            continue;
        }
        let tensor = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
        let kind = match tensor.and_then(|tensor| tensor.elem_type) {
            Some(DataType::FLOAT | DataType::DOUBLE | DataType::FLOAT16 | DataType::BFLOAT16) => Kind::Float,
            Some(DataType::BOOL) => Kind::Bool,
            Some(DataType(2..=7 | 12 | 13)) => Kind::Int,
            _ => return Err(format_error(&file.path, format!("input {name} is no tensor of numbers"))),
        };
        let dims = dims(info, options)
            .ok_or_else(|| format_error(&file.path, format!("input {name} says nothing of its shape")))?;
        match options.constants.iter().find(|(other, _)| other == name) {
            Some((_, value)) => {
                let fixed = |dim: &Dim| if let Dim::Fixed(n) = dim { Some(*n) } else { None };
                let shape: Option<Vec<usize>> = dims.iter().map(fixed).collect();
                let shape = shape.filter(|shape| constant::size(shape).is_some_and(|n| n <= 1 << 20));
                let shape = shape.ok_or_else(|| {
                    Error::option("constants", format!("inputs of a fixed small shape, which {name} has not"), value)
                })?;
                let len = shape.iter().product();
                let elements = match kind {
                    Kind::Float => Elements::Floats(vec![*value; len]),
                    Kind::Int => Elements::Ints(vec![constant::Count::fixed(*value as i64); len]),
                    Kind::Bool => Elements::Bools(vec![*value != 0.0; len]),
                };
                constants.push((name, Constant::new(shape, elements, value.to_bits())));
            }
            None => inputs.push(Input { name, dims, kind, candidates: Vec::new() }),
        }
    }
    for (name, _) in options.constants.iter() {
        if !constants.iter().any(|(other, _)| other == name) {
            let names: Vec<_> = inputs.iter().map(|input| input.name).collect();
            return Err(Error::option("constants", format!("inputs of the file ({})", names.join(", ")), name));
        }
    }
    for (name, axis) in &options.batch_axes {
        if !inputs.iter().any(|input| input.name == name && *axis < input.dims.len()) {
            let expected = format!("an axis of an input of {}", file.path.display());
            return Err(Error::option("batch_axes", expected, format!("axis {axis} of {name}")));
        }
    }
    Ok((inputs, constants))
}

/// Whether a name is that of the samples' axis.
fn means_samples(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.contains("batch") || matches!(lower.as_str(), "n" | "b" | "bs" | "samples")
}

/// Which axes could have the samples, and the ways to choose one for each input with the number of samples that each would mean. `shapes` of
/// arrays say lengths of axes without one.
fn assignments(
    inputs: &mut [Input<'_>],
    options: &ImportOptions,
    shapes: &[Vec<usize>],
) -> Vec<(Vec<usize>, Option<usize>)> {
    let names: Vec<String> = inputs
        .iter()
        .flat_map(|input| &input.dims)
        .filter_map(|dim| if let Dim::Named(name) = dim { Some(name.clone()) } else { None })
        .collect();
    let batch = names.iter().find(|name| means_samples(name)).or_else(|| names.first()).cloned();
    let given = |name: &str| options.batch_axes.iter().find(|(other, _)| other == name).map(|(_, axis)| *axis);
    // Arrays say the lengths of axes that are not the samples'.
    let with_shapes = inputs.len() == shapes.len();
    for (input, shape) in inputs.iter_mut().zip(shapes).filter(|_| with_shapes) {
        if input.dims.len() != shape.len() {
            continue;
        }
        let own = given(input.name);
        for (axis, (dim, length)) in input.dims.iter_mut().zip(shape).enumerate() {
            let of_samples = match own {
                Some(own) => axis == own,
                None => matches!((&*dim, &batch), (Dim::Named(name), Some(batch)) if name == batch),
            };
            if matches!(dim, Dim::Named(_)) && !of_samples && *length > 0 {
                *dim = Dim::Fixed(*length);
            }
        }
    }
    for input in inputs.iter_mut() {
        let named: Vec<usize> =
            (0..input.dims.len()).filter(|axis| matches!(input.dims[*axis], Dim::Named(_))).collect();
        let of_name =
            |axis: &usize| matches!((&input.dims[*axis], &batch), (Dim::Named(name), Some(batch)) if name == batch);
        input.candidates = match (given(input.name), named.iter().copied().find(of_name), named.first()) {
            (Some(axis), ..) => vec![axis],
            (None, Some(axis), _) | (None, None, Some(&axis)) => vec![axis],
            (None, None, None) => (0..input.dims.len()).collect(),
        };
    }
    let fixed = |input: &Input<'_>, axis: usize| match input.dims.get(axis) {
        Some(Dim::Fixed(n)) => Some(*n),
        _ => None,
    };
    if batch.is_some() {
        // An input all of whose lengths are fixed beside others that are not: its first axis.
        let axes = inputs.iter().map(|input| input.candidates.first().copied().unwrap_or(0)).collect();
        return vec![(axes, None)];
    }
    // All lengths are fixed: the same number of samples in each input, nearest to the axis that the first has them in.
    let mut ways = Vec::new();
    let ranked: Vec<&Input<'_>> = inputs.iter().filter(|input| !input.dims.is_empty()).collect();
    let Some(first) = ranked.first() else { return vec![(vec![0; inputs.len()], None)] };
    for axis in &first.candidates {
        let Some(samples) = fixed(first, *axis) else { continue };
        let mut chosen: Vec<Vec<usize>> = vec![Vec::new()];
        for input in inputs.iter() {
            let mut fitting: Vec<usize> = match std::ptr::eq(input, *first) {
                true => vec![*axis],
                false => {
                    input.candidates.iter().copied().filter(|other| fixed(input, *other) == Some(samples)).collect()
                }
            };
            if input.dims.is_empty() {
                fitting = vec![0];
            }
            fitting.sort_by_key(|other| other.abs_diff(*axis));
            chosen = chosen
                .iter()
                .flat_map(|axes| fitting.iter().map(move |axis| [&axes[..], &[*axis]].concat()))
                .take(MOST_TRIES)
                .collect();
        }
        ways.extend(chosen.into_iter().map(|axes| (axes, Some(samples))));
        ways.truncate(MOST_TRIES);
    }
    ways
}

fn import(device: Device, file: &OnnxFile, options: &ImportOptions) -> Result<Read> {
    let (inputs, constants) = inputs(file, options)?;
    let mut any = inputs.clone();
    let ways = assignments(&mut any, options, &[]);
    let names = without_length(&any, &ways);
    if !names.is_empty() {
        let tried = first_way(&ways, |axes, literal| any_length(&device, file, &any, &constants, axes, literal));
        match tried {
            Err(_) if !options.shapes.is_empty() => {}
            Err(error) => return Err(with_lengths(error, &names)),
            Ok(Some(read)) => return Ok(read),
            Ok(None) => {}
        }
    }
    let mut fixed = inputs;
    let ways = assignments(&mut fixed, options, &options.shapes);
    first_way(&ways, |axes, literal| {
        let traced = trace(&device, file, &fixed, &constants, axes, literal, None)?;
        let model = import::build(file, device.clone(), &traced.config, &traced.weights);
        let model = model.map_err(|error| Box::new((traced.done, error)))?;
        Ok((traced.imported(model), traced.given))
    })?
    .ok_or_else(|| no_samples(file))
}

/// What the first way gives that does not fail; `None` where there are none. Of several errors that of the way that went furthest says most.
fn first_way<R>(
    ways: &[(Vec<usize>, Option<usize>)],
    mut attempt: impl FnMut(&[usize], Option<usize>) -> Result<R, Failed>,
) -> Result<Option<R>> {
    let mut furthest: Option<(usize, Error)> = None;
    for (axes, literal) in ways {
        match attempt(axes, *literal) {
            Ok(read) => return Ok(Some(read)),
            Err(failed) => {
                let (done, error) = *failed;
                if furthest.as_ref().is_none_or(|(most, _)| done > *most) {
                    furthest = Some((done, error));
                }
            }
        }
    }
    furthest.map_or(Ok(None), |(_, error)| Err(error))
}

fn no_samples(file: &OnnxFile) -> Error {
    format_error(
        &file.path,
        "its inputs have no axis of one length that could be the samples; say which it is: --batch-axis INPUT=AXIS, or ImportOptions::batch_axes",
    )
}

/// Names of axes that have no length, and are those of the samples in no way.
fn without_length(inputs: &[Input<'_>], ways: &[(Vec<usize>, Option<usize>)]) -> Vec<String> {
    let mut names = Vec::new();
    for (number, input) in inputs.iter().enumerate() {
        for (axis, dim) in input.dims.iter().enumerate() {
            let of_samples = ways.iter().any(|(axes, _)| axes.get(number) == Some(&axis));
            if let Dim::Named(name) = dim
                && !of_samples
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
    }
    names
}

/// An error of a graph whose axes have no lengths, with the way to give them some.
fn with_lengths(error: Error, names: &[String]) -> Error {
    let dims: Vec<String> = names.iter().map(|name| format!("--dim {name}=LENGTH")).collect();
    let hint =
        format!("; with a length for axes that have none it may be read: {}, or ImportOptions::dim", dims.join(" "));
    match error {
        Error::Unsupported { what, why } if !why.contains("--dim") => Error::unsupported(what, format!("{why}{hint}")),
        Error::Format { path, format, problem } => Error::Format { path, format, problem: problem + &hint },
        other => other,
    }
}

/// How many nodes were computed before an error.
type Failed = Box<(usize, Error)>;

/// A graph that has been followed.
struct Traced {
    config: GraphConfig,
    weights: NamedWeights,
    /// Layers all of whose weights take the place of the file's.
    given: HashSet<String>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    unused: Vec<String>,
    done: usize,
}

impl Traced {
    fn imported(&self, model: Model) -> Imported {
        let Traced { inputs, outputs, unused, .. } = self;
        let (inputs, outputs, unused) = (inputs.clone(), outputs.clone(), unused.clone());
        Imported { model, inputs, outputs, unused, left_out: Vec::new() }
    }

    fn probe(&self) -> Result<open::Probe, Failed> {
        open::Probe::new(self.config.clone()).map_err(|error| Box::new((self.done, error)))
    }
}

/// The model for any number of steps.
fn any_length<'f>(
    device: &Device,
    file: &'f OnnxFile,
    inputs: &[Input<'f>],
    constants: &[(&'f str, Constant)],
    axes: &[usize],
    literal: Option<usize>,
) -> Result<Read, Failed> {
    let at = |steps: usize| trace(device, file, inputs, constants, axes, literal, Some(steps));
    let [steps, others] = open::probes();
    let (one, other) = (at(steps)?, at(others)?);
    // What is refused for few steps may need more of them.
    let few: Vec<(usize, Traced)> =
        open::FEW_STEPS.into_iter().filter_map(|steps| at(steps).ok().map(|traced| (steps, traced))).collect();
    let depends = |depends: open::Depends| {
        let error = depends.error(file.path.display(), "--dim NAME=LENGTH, or ImportOptions::dim");
        Box::new((one.done, error))
    };
    for traced in std::iter::once(&other).chain(few.iter().map(|(_, traced)| traced)) {
        let mut weights = one.weights.iter().zip(&traced.weights);
        if let Some(((name, _), _)) = weights.find(|(a, b)| a != b) {
            return Err(depends(open::Depends(format!("the weights {name}"))));
        }
        let mut ports = one.outputs.iter().zip(&traced.outputs);
        if let Some((port, _)) = ports.find(|(a, b)| (a.within, a.batch_axis) != (b.within, b.batch_axis)) {
            return Err(depends(open::Depends(format!(
                "output {}, where samples and steps are in one axis,",
                port.name
            ))));
        }
    }
    // An axis of any length is another one for each.
    let port = |(a, b): (&Port, &Port)| {
        let shape = a.shape.iter().zip(&b.shape).map(|(a, b)| (*a).filter(|_| a == b)).collect();
        Port { shape, ..a.clone() }
    };
    let ports = |a: &[Port], b: &[Port]| a.iter().zip(b).map(port).collect::<Vec<_>>();
    let (in_ports, out_ports) = (ports(&one.inputs, &other.inputs), ports(&one.outputs, &other.outputs));
    let own: Vec<Vec<Option<usize>>> =
        in_ports.iter().map(|port| if port.shape.is_empty() { vec![Some(1)] } else { port.shape.clone() }).collect();
    let few = few.iter().map(|(steps, traced)| Ok((*steps, traced.probe()?))).collect::<Result<Vec<_>, Failed>>()?;
    let config = open::combine([&one.probe()?, &other.probe()?], &few, &own).map_err(depends)?;
    let model = import::build(file, device.clone(), &config, &one.weights);
    let model = model.map_err(|error| Box::new((one.done, error)))?;
    let imported = Imported { inputs: in_ports, outputs: out_ports, ..one.imported(model) };
    Ok((imported, one.given))
}

/// Follows the graph with the samples in these axes of the inputs, and `steps` in those that have no length.
fn trace<'f>(
    device: &Device,
    file: &'f OnnxFile,
    inputs: &[Input<'f>],
    constants: &[(&'f str, Constant)],
    axes: &[usize],
    literal: Option<usize>,
    steps: Option<usize>,
) -> Result<Traced, Failed> {
    let mut importer = Importer::new(file, device.clone(), literal);
    if steps.is_some() {
        // Nothing of the size of a sequence is there yet.
        importer.most_computed = usize::MAX >> 16;
    }
    let mut ports = Vec::new();
    for (name, constant) in constants {
        importer.define(name, Value::Constant(constant.clone()));
    }
    for (input, at) in inputs.iter().zip(axes) {
        if input.dims.is_empty() {
            let why = format!(
                "its input {0} is a single number; give it a value: --set {0}=VALUE, or ImportOptions::constants",
                input.name
            );
            importer.unset.insert(input.name, why);
            continue;
        }
        let mut data_axes = Vec::new();
        let mut open = None;
        for (axis, dim) in input.dims.iter().enumerate() {
            data_axes.push(match dim {
                _ if axis == *at => BATCH,
                Dim::Fixed(n) => Axis::Fixed(*n),
                Dim::Named(name) => {
                    open = open.or(Some(name).filter(|_| steps.is_none()));
                    Axis::Fixed(steps.unwrap_or(1))
                }
            });
        }
        if let Some(name) = open {
            let why = format!(
                "axis {name} of its input {} has no length; give one: --dim {name}=LENGTH, or ImportOptions::dims",
                input.name
            );
            importer.unset.insert(input.name, why);
            continue;
        }
        let shape: Vec<usize> =
            data_axes.iter().filter_map(|axis| if let Axis::Fixed(n) = axis { Some(*n) } else { None }).collect();
        let own = if shape.is_empty() { vec![1] } else { shape.clone() };
        let tensor = importer.graph.input(input.name, &own).map_err(|error| Box::new((0, error)))?;
        importer.carrier.get_or_insert(tensor.clone());
        importer.define(input.name, Value::Data(Data { tensor, axes: data_axes, kind: input.kind }));
        ports.push(Port::new(input.name, *at, &shape));
    }
    let outputs = finish_outputs(&mut importer).map_err(|error| Box::new((importer.done, error)))?;
    let done = importer.done;
    let finished = importer.finish(&outputs.iter().map(|(tensor, _)| tensor.clone()).collect::<Vec<_>>());
    let (config, kept, weights, given) = finished.map_err(|error| Box::new((done, error)))?;
    let unused = ports.iter().enumerate().filter(|(index, _)| !kept.contains(index)).map(|(_, port)| port.name.clone());
    let unset = inputs
        .iter()
        .filter(|input| !ports.iter().any(|port| port.name == input.name))
        .map(|input| input.name.to_owned());
    Ok(Traced {
        config,
        weights,
        given,
        done,
        unused: unused.chain(unset).collect(),
        inputs: kept.iter().filter_map(|index| ports.get(*index).cloned()).collect(),
        outputs: outputs.into_iter().map(|(_, port)| port).collect(),
    })
}

/// Computes the graph: its outputs, and where they have the samples.
fn finish_outputs<'f>(importer: &mut Importer<'f>) -> Result<Vec<(crate::model::GraphTensor, Port)>> {
    let file = importer.file;
    let end = Node { proto: &file.end, file };
    let mut outputs = Vec::new();
    for (index, (name, value)) in importer.run(&file.graph)?.into_iter().enumerate() {
        if value.constant().is_some() {
            return Err(Error::unsupported(
                format!("output {name} of {}", file.path.display()),
                "it is the same whatever the inputs are, which no model of this crate is",
            ));
        }
        let data = importer.data(end, value)?;
        let declared = file.graph.output.get(index).and_then(|info| dims(info, &ImportOptions::default()));
        if let Some(declared) = declared {
            let fits = |(axis, dim): (&Axis, &Dim)| match (axis, dim) {
                (Axis::Fixed(n), Dim::Fixed(m)) => n == m,
                (Axis::Batch { before, after }, Dim::Fixed(m)) => {
                    importer.literal.is_none_or(|n| before * n * after == *m)
                }
                (_, Dim::Named(_)) => true,
            };
            if declared.len() != data.axes.len() || !data.axes.iter().zip(&declared).all(fits) {
                return Err(format_error(
                    &file.path,
                    format!("output {name} is {}, which is not the shape that the file says it has", data.described()),
                ));
            }
        }
        let at = data.batch_axis();
        let within = match data.axes.get(at) {
            Some(Axis::Batch { before, after }) => [*before, *after],
            _ => [1, 1],
        };
        let shape: Vec<usize> =
            data.axes.iter().filter_map(|axis| if let Axis::Fixed(n) = axis { Some(*n) } else { None }).collect();
        let tensor = importer.sample(end, &data)?;
        outputs.push((tensor, Port { within, ..Port::new(name, at, &shape) }));
    }
    if outputs.is_empty() {
        return Err(format_error(&file.path, "it has no outputs"));
    }
    Ok(outputs)
}
