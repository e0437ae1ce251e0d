//! A model as a graph of ONNX: [`Exporter`], the file it makes, and what nodes are made of. What each layer becomes stands in `write_layers`.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

use crate::error::{Error, Result};
use crate::exchange::onnx::proto::format_error;
use crate::files;
use crate::model::{Model, Source};
use crate::nn::LayerConfig;

/// The version of the standard operators that graphs are written in.
const OPSET: i64 = 18;
/// The version of the format.
const IR: i64 = 8;

/// An attribute of a node.
pub(super) enum Attribute<'a> {
    Int(i64),
    Float(f64),
    Text(&'a str),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
}

/// A tensor of the graph: its name, and its shape without the samples, which come first.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// How many steps each sample has, where a layer below has said so: the name of a tensor of whole numbers.
    pub lengths: Option<String>,
}

/// A graph on its way.
pub(super) struct Exporter {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// Weights of the model: shape and elements.
    weights: HashMap<String, (Vec<usize>, Vec<f64>)>,
    written: HashMap<String, String>,
    /// The layer being written, and the part of it.
    pub layer: String,
    /// Whether an input may have any number of steps.
    pub is_open: bool,
    names: BTreeSet<String>,
}

/// Writes a model as an ONNX file that ONNX Runtime runs: the samples first in every input and output, any number of them, and
/// with [any number of steps](crate::model::InputShape) where the model has. Whole numbers for embeddings go in as `int64`. Dropout is left out, as for inference. What has no form in ONNX is refused.
///
/// # Errors
///
/// [`Error::Unsupported`] for a layer, or an option of one, that has no form in ONNX, which is named, and for models beyond the format's 2 GB;
/// [`Error::Io`] where the file cannot be written.
pub fn write(model: &Model, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    files::write_atomic(path, &bytes(model, path)?)
}

/// The bytes of that file.
///
/// # Errors
///
/// [`Error::Unsupported`] for a layer, or an option of one, that has no form in ONNX, which is named, and for models beyond the format's 2 GB.
pub fn bytes(model: &Model, path: &Path) -> Result<Vec<u8>> {
    let [steps, others] = Model::open_steps();
    let written = write_for(model, path, steps)?;
    if model.has_any_length() {
        // What depends on the number of steps would be right for one of them alone.
        let longer = write_for(model, path, others)?;
        if longer.bytes != written.bytes {
            let mut layers = written.layers.iter().zip(&longer.layers);
            let layer = layers.find(|(one, other)| one != other).map_or("the model", |((name, _), _)| name);
            return Err(Error::unsupported(
                format!("{layer} with any number of steps in an ONNX file"),
                "it is written with the number in it; call Model::set_steps before",
            ));
        }
    }
    Ok(written.bytes)
}

/// A file.
struct Written {
    bytes: Vec<u8>,
    /// What every use of a layer has become, in text.
    layers: Vec<(String, String)>,
}

/// The file of a model whose inputs of any length have so many steps.
fn write_for(model: &Model, path: &Path, steps: usize) -> Result<Written> {
    let mut weights = HashMap::new();
    for (name, shape, _) in model.weights() {
        weights.insert(name.clone(), (shape.to_vec(), model.weight::<f64>(&name)?));
    }
    let size: usize = weights.values().map(|(_, values)| values.len().saturating_mul(4)).sum();
    if size > i32::MAX as usize {
        return Err(Error::unsupported(
            format!("an ONNX file of {size} bytes"),
            "the format holds at most 2 GB in one file",
        ));
    }
    let config = model.config()?;
    let (of_inputs, shapes) = model.shapes_at(steps)?;
    let mut exporter = Exporter {
        nodes: Vec::new(),
        initializers: Vec::new(),
        weights,
        written: HashMap::new(),
        layer: String::new(),
        is_open: model.has_any_length(),
        names: config.inputs.iter().map(|input| input.name.clone()).collect(),
    };
    let (mut inputs, mut layers) = (Vec::new(), Vec::new());
    let mut tensors: HashMap<Source, Tensor> = HashMap::new();
    for (index, (input, shape)) in config.inputs.iter().zip(of_inputs).enumerate() {
        let source = Source::Input(index);
        let mut readers = config.calls.iter().filter(|call| call.inputs.contains(&source)).peekable();
        let numbers = readers.peek().is_some()
            && readers
                .all(|call| matches!(config.layers.get(call.layer).map(|l| &l.layer), Some(LayerConfig::Embedding(_))));
        // In a node's list of inputs a name without characters is that of none.
        let name = if input.name.is_empty() { exporter.fresh("input") } else { input.name.clone() };
        inputs.push(port(&name, &input.shape, if numbers { DataType::INT64 } else { DataType::FLOAT }));
        tensors.insert(source, Tensor { name, shape, lengths: None });
    }
    for (index, call) in config.calls.iter().enumerate() {
        let Some(named) = config.layers.get(call.layer) else { continue };
        exporter.layer.clone_from(&named.name);
        let given: Option<Vec<Tensor>> = call.inputs.iter().map(|source| tensors.get(source).cloned()).collect();
        let given = given.ok_or_else(|| format_error(path, "layers that wait for each other"))?;
        let outputs = shapes.get(index).map_or(&[][..], Vec::as_slice);
        let (nodes, constants) = (exporter.nodes.len(), exporter.initializers.len());
        let written = exporter.layer(&named.layer, &given, outputs)?;
        if model.has_any_length() {
            // Shapes of all constants, and those that are shapes.
            let short = |data: &RefCell<Vec<u8>>| Some(data.borrow().clone()).filter(|data| data.len() <= 64);
            let new = exporter.initializers.iter().skip(constants);
            let new = new.map(|tensor| (&tensor.dims, tensor.raw_data.as_ref().and_then(short)));
            let text = format!("{:?}{:?}", exporter.nodes.get(nodes..), new.collect::<Vec<_>>());
            layers.push((named.name.clone(), text));
        }
        for (output, tensor) in written.into_iter().enumerate() {
            tensors.insert(Source::Call(index, output), tensor);
        }
    }
    let mut outputs = Vec::new();
    for (index, source) in config.outputs.iter().enumerate() {
        let tensor = tensors.get(source).ok_or_else(|| format_error(path, "an output that no layer gives"))?.clone();
        let name = exporter.fresh(&if index == 0 { "output".to_owned() } else { format!("output_{index}") });
        exporter.named("Identity", &[&tensor.name], &name);
        let fixed = || tensor.shape.iter().copied().map(Some).collect();
        // Where a layer's output has another shape in ONNX, it has no open axis.
        let axes = Some(model.axes_of(*source)).filter(|axes| axes.len() == tensor.shape.len()).unwrap_or_else(fixed);
        outputs.push(port(&name, &axes, DataType::FLOAT));
    }
    let graph = GraphProto {
        node: exporter.nodes,
        initializer: exporter.initializers,
        input: inputs,
        output: outputs,
        value_info: Vec::new(),
    };
    let file = ModelProto {
        ir_version: Some(IR),
        producer_name: Some("fused-rnn".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
        metadata_props: Vec::new(),
    };
    let bytes = file.write_buf().map_err(|e| format_error(path, e.to_string()))?;
    Ok(Written { bytes: with_graph_name(&bytes, "fused-rnn").unwrap_or(bytes), layers })
}

/// A model's bytes with a name for its graph, which ONNX's checker asks for and the library that writes them has no field for: the graph is
/// field 7 of the model, its name field 2 of the graph ([the format](https://github.com/onnx/onnx/blob/main/onnx/onnx.proto)).
fn with_graph_name(bytes: &[u8], name: &str) -> Option<Vec<u8>> {
    const GRAPH: u64 = 7 << 3 | 2;
    const NAME: u8 = 2 << 3 | 2;
    fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
        let len = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
        let (number, rest) = bytes.split_at_checked(len)?;
        let value = number.iter().rev().fold(0u64, |value, byte| value << 7 | u64::from(byte & 0x7f));
        Some((value, rest))
    }
    fn push(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len() + name.len() + 16), bytes);
    while !rest.is_empty() {
        let (tag, value) = varint(rest)?;
        push(&mut out, tag);
        match tag & 7 {
            0 => {
                let (number, after) = varint(value)?;
                push(&mut out, number);
                rest = after;
            }
            2 => {
                let (len, after) = varint(value)?;
                let (content, after) = after.split_at_checked(usize::try_from(len).ok()?)?;
                let more = if tag == GRAPH { name.len() as u64 + 2 } else { 0 };
                push(&mut out, len + more);
                out.extend_from_slice(content);
                if tag == GRAPH {
                    out.extend([NAME, u8::try_from(name.len()).ok()?]);
                    out.extend_from_slice(name.as_bytes());
                }
                rest = after;
            }
            _ => return None,
        }
    }
    Some(out)
}

/// An input or an output; an axis of any length has a name.
fn port(name: &str, axes: &[Option<usize>], kind: DataType) -> ValueInfoProto {
    let samples = Dimension { dim_value: None, dim_param: Some("batch".to_owned()) };
    let others = axes.iter().map(|axis| match axis {
        Some(n) => Dimension { dim_value: Some(*n as i64), dim_param: None },
        None => Dimension { dim_value: None, dim_param: Some(format!("steps of {name}")) },
    });
    let shape = TensorShapeProto { dim: std::iter::once(samples).chain(others).collect() };
    let tensor = TypeProtoTensor { elem_type: Some(kind), shape: Some(shape) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { tensor_type: Some(tensor), sequence: None }),
    }
}

impl Exporter {
    /// A name that nothing has yet.
    pub fn fresh(&mut self, stem: &str) -> String {
        let names = (0..).map(|n| if n == 0 { stem.to_owned() } else { format!("{stem}_{n}") });
        let name = names.into_iter().find(|name| !self.names.contains(name)).unwrap_or_else(|| stem.to_owned());
        self.names.insert(name.clone());
        name
    }

    /// What has no form in ONNX.
    pub fn unsupported(&self, what: &str, why: &str) -> Error {
        Error::unsupported(format!("{what} of layer {} in an ONNX file", self.layer), why)
    }

    /// A node with attributes; the names of so many outputs.
    pub fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        outputs: usize,
        attributes: &[(&str, Attribute<'_>)],
    ) -> Vec<String> {
        let stem = format!("{}/{op}", self.layer);
        let name = self.fresh(&stem);
        let outputs: Vec<String> = (0..outputs).map(|_| self.fresh(&stem)).collect();
        let attribute = |(name, value): &(&str, Attribute<'_>)| {
            let mut proto = AttributeProto { name: Some((*name).to_owned()), ..AttributeProto::default() };
            proto.r#type = Some(match value {
                Attribute::Int(value) => {
                    proto.i = Some(*value);
                    AttributeType::INT
                }
                Attribute::Float(value) => {
                    proto.f = Some(*value as f32);
                    AttributeType::FLOAT
                }
                Attribute::Text(value) => {
                    proto.s = Some((*value).to_owned());
                    AttributeType::STRING
                }
                Attribute::Ints(values) => {
                    proto.ints.clone_from(values);
                    AttributeType::INTS
                }
                Attribute::Floats(values) => {
                    proto.floats = values.iter().map(|value| *value as f32).collect();
                    AttributeType::FLOATS
                }
                Attribute::Texts(values) => {
                    proto.strings.clone_from(values);
                    AttributeType::STRINGS
                }
            });
            proto
        };
        self.nodes.push(NodeProto {
            domain: None,
            name: Some(name),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: outputs.clone(),
            op_type: Some(op.to_owned()),
            attribute: attributes.iter().map(attribute).collect(),
        });
        outputs
    }

    /// A node with one output.
    pub fn one(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute<'_>)]) -> String {
        self.node(op, inputs, 1, attributes).pop().unwrap_or_default()
    }

    /// A node whose output has this name.
    fn named(&mut self, op: &str, inputs: &[&str], output: &str) {
        self.nodes.push(NodeProto {
            domain: None,
            name: Some(output.to_owned()),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![output.to_owned()],
            op_type: Some(op.to_owned()),
            attribute: Vec::new(),
        });
    }

    /// A constant of floating-point numbers.
    pub fn floats(&mut self, stem: &str, shape: &[usize], values: &[f64]) -> String {
        let raw = values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
        self.initializer(stem, shape, DataType::FLOAT, raw)
    }

    /// A constant of whole numbers, a list.
    pub fn ints(&mut self, values: &[i64]) -> String {
        let key = format!("{values:?}");
        if let Some(known) = self.written.get(&key) {
            return known.clone();
        }
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let name = self.initializer("constant", &[values.len()], DataType::INT64, raw);
        self.written.insert(key, name.clone());
        name
    }

    fn initializer(&mut self, stem: &str, shape: &[usize], kind: DataType, raw: Vec<u8>) -> String {
        let name = self.fresh(stem);
        self.initializers.push(TensorProto {
            dims: shape.iter().map(|n| *n as i64).collect(),
            data_type: Some(kind),
            raw_data: Some(RefCell::new(raw)),
            name: Some(name.clone()),
            ..TensorProto::default()
        });
        name
    }

    /// Shape and elements of a weight of the layer being written; `None` where it has none of this name.
    pub fn weight(&self, name: &str) -> Option<(Vec<usize>, Vec<f64>)> {
        self.weights.get(&format!("{}.{name}", self.layer)).cloned()
    }

    /// The same of one that must be there.
    pub fn required(&self, name: &str) -> Result<(Vec<usize>, Vec<f64>)> {
        self.weight(name).ok_or_else(|| Error::Presence {
            tensor: format!("{}.{name}", self.layer),
            problem: "the layer has no such weights".to_owned(),
        })
    }

    /// A constant made of a weight, written once for all uses of its layer.
    pub fn constant(&mut self, name: &str, shape: &[usize], values: &[f64]) -> String {
        let key = format!("{}.{name}", self.layer);
        if let Some(known) = self.written.get(&key) {
            return known.clone();
        }
        let written = self.floats(&key, shape, values);
        self.written.insert(key, written.clone());
        written
    }

    /// A tensor under another sample shape.
    pub fn reshaped(&mut self, name: &str, shape: &[usize]) -> String {
        let target: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|n| *n as i64)).collect();
        self.reshaped_to(name, &target)
    }

    /// The same, the samples among the axes, as ONNX has it: 0 for an axis that stays, at most one -1 for as long as it must be.
    pub fn reshaped_to(&mut self, name: &str, target: &[i64]) -> String {
        let target = self.ints(target);
        self.one("Reshape", &[name, &target], &[])
    }

    /// The axes, the samples' among them, in another order.
    pub fn transposed(&mut self, name: &str, order: &[i64]) -> String {
        self.one("Transpose", &[name], &[("perm", Attribute::Ints(order.to_vec()))])
    }

    /// A part of an axis.
    pub fn sliced(&mut self, name: &str, axis: i64, start: i64, end: i64, step: i64) -> String {
        let [start, end, axis, step] = [start, end, axis, step].map(|n| self.ints(&[n]));
        self.one("Slice", &[name, &start, &end, &axis, &step], &[])
    }

    /// A constant repeated for every sample of a tensor: `constant` begins with an axis of 1.
    pub fn for_every_sample(&mut self, constant: &str, like: &str, shape: &[usize]) -> String {
        let all = self.one("Shape", &[like], &[]);
        let samples = self.sliced(&all, 0, 0, 1, 1);
        let rest: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
        let rest = self.ints(&rest);
        let target = self.one("Concat", &[&samples, &rest], &[("axis", Attribute::Int(0))]);
        self.one("Expand", &[constant, &target], &[])
    }
}
