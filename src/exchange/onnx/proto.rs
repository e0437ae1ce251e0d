//! The format: bounds that are checked before it is parsed, tensors, attributes.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Component, Path, PathBuf};

use rten_onnx::onnx::{AttributeProto, DataLocation, DataType, GraphProto, ModelProto, NodeProto, TensorProto};

use crate::error::{Error, Result};
use crate::exchange::onnx::Shaped;
use crate::exchange::onnx::constant::{Constant, Count, Elements, size};
use crate::files;
use crate::memory;

/// Graphs within graphs, at most: parsing them takes the stack.
const MOST_NESTED: usize = 24;

/// An error of a file's format.
pub(super) fn format_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), format: "ONNX", problem: problem.into() }
}

/// A file as it was parsed, with what stands beside it.
pub(super) struct OnnxFile {
    pub path: PathBuf,
    pub graph: GraphProto,
    /// Version of the standard operators.
    pub opset: i64,
    /// What stands for the graph itself in errors of its outputs.
    pub end: NodeProto,
    /// Tensors that take the place of the file's constants of the same names and shapes.
    pub given: HashMap<String, Shaped>,
    /// Bytes of the file, and of those beside it that its tensors stand in; memory is bounded by them.
    bytes: RefCell<usize>,
    /// Files beside it that were read of.
    external: RefCell<HashSet<String>>,
}

impl OnnxFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        // What is something else says so by its first bytes: it is not read whole.
        let bytes = files::read_after(path, |beginning, len| {
            check_beginning(beginning, len).map_err(|problem| format_error(path, problem))
        })?;
        Self::parse(&bytes, path)
    }

    /// Reads a file's bytes; tensors outside of it are looked for beside `path`.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        // Constants become doubles, and weights of layers.
        memory::check(&format!("{}: the model", path.display()), bytes.len().saturating_mul(8))?;
        check_beginning(bytes, bytes.len() as u64)
            .and_then(|()| check_bounds(bytes))
            .map_err(|problem| format_error(path, problem))?;
        let model = ModelProto::parse_buf(bytes).map_err(|e| format_error(path, e.to_string()))?;
        let graph = model.graph.ok_or_else(|| format_error(path, "it has no graph"))?;
        check_names(&graph).map_err(|problem| format_error(path, problem))?;
        let standard = |domain: Option<&str>| matches!(domain, None | Some("" | "ai.onnx"));
        let opset = model.opset_import.iter().find(|set| standard(set.domain.as_deref()));
        let opset = opset.and_then(|set| set.version).ok_or_else(|| {
            format_error(path, "it does not say which version of the standard operators it uses (opset_import)")
        })?;
        Ok(OnnxFile {
            path: path.to_owned(),
            graph,
            opset,
            end: NodeProto { op_type: Some("output of the graph".to_owned()), ..NodeProto::default() },
            given: HashMap::new(),
            bytes: RefCell::new(bytes.len()),
            external: RefCell::new(HashSet::new()),
        })
    }

    /// Bytes of all files so far.
    pub fn bytes(&self) -> usize {
        *self.bytes.borrow()
    }

    /// The bytes of a tensor that stands in a file of its own, in the same folder or below. As many as it needs, and no others, are read.
    fn external(&self, tensor: &TensorProto, name: &str, needed: usize) -> Result<Vec<u8>> {
        let wrong = |problem: String| format_error(&self.path, format!("tensor {name}: {problem}"));
        let entry = |key: &str| {
            let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
            entry.and_then(|entry| entry.value.as_deref())
        };
        let number = |key: &str| {
            entry(key)
                .map(|value| value.parse::<u64>().map_err(|_| wrong(format!("its {key} is {value:?}"))))
                .transpose()
        };
        let location = entry("location").ok_or_else(|| wrong("it does not say in which file it stands".to_owned()))?;
        let relative = Path::new(location);
        let within = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !within || location.is_empty() {
            return Err(wrong(format!("its file {location:?} is not one beside the model or in a folder there")));
        }
        let (start, length) = (number("offset")?.unwrap_or(0), number("length")?);
        let folder = self.path.parent().unwrap_or(Path::new(""));
        files::read_part(&folder.join(relative), |all| {
            let outside = || wrong(format!("its bytes lie outside of {location}, which has {all}"));
            let length = length.or_else(|| all.checked_sub(start)).ok_or_else(outside)?;
            if start.checked_add(length).is_none_or(|end| end > all) {
                return Err(outside());
            }
            if length != needed as u64 {
                let shape = &tensor.dims;
                return Err(wrong(format!(
                    "its shape {shape:?} needs {needed} bytes, but {location} has {length} for it"
                )));
            }
            if self.external.borrow_mut().insert(location.to_owned()) {
                let mut bytes = self.bytes.borrow_mut();
                *bytes = bytes.saturating_add(usize::try_from(all).unwrap_or(usize::MAX));
            }
            // Constants become doubles, and weights of layers.
            memory::check(&format!("{}: tensor {name}", self.path.display()), needed.saturating_mul(8))?;
            Ok((start, needed))
        })
    }

    /// What takes the place of a constant.
    pub fn given_for(&self, name: &str, shape: &[usize]) -> Option<&[f64]> {
        let (own, values) = self.given.get(name)?;
        (own == shape && size(shape) == Some(values.len())).then_some(values)
    }

    /// The values of a tensor.
    pub fn tensor(&self, tensor: &TensorProto) -> Result<Constant> {
        let name = tensor.name.as_deref().unwrap_or("without a name");
        let wrong = |problem: String| format_error(&self.path, format!("tensor {name}: {problem}"));
        let shape = tensor
            .dims
            .iter()
            .map(|n| usize::try_from(*n).map_err(|_| wrong(format!("an axis of {n}"))))
            .collect::<Result<Vec<_>>>()?;
        let len = size(&shape).ok_or_else(|| wrong(format!("its shape {shape:?} overflows")))?;
        let data_type = tensor.data_type.unwrap_or(DataType::UNDEFINED);
        let unread = || {
            let kind = data_type.name().map_or_else(|| data_type.0.to_string(), str::to_owned);
            wrong(format!("elements of type {kind}, which this reader has not"))
        };
        let elements = match &tensor.raw_data {
            _ if tensor.data_location == Some(DataLocation::EXTERNAL) => {
                let needed = len.checked_mul(bytes_of(data_type).ok_or_else(unread)?);
                let needed = needed.ok_or_else(|| wrong(format!("the bytes of its shape {shape:?} overflow")))?;
                raw_elements(data_type, &self.external(tensor, name, needed)?)
            }
            Some(raw) => raw_elements(data_type, &raw.borrow()),
            None => typed_elements(data_type, tensor),
        };
        let elements = elements.ok_or_else(unread)?;
        if elements.len() != len {
            return Err(wrong(format!("its shape {shape:?} needs {len} elements, but it has {}", elements.len())));
        }
        let elements = match self.given_for(name, &shape) {
            Some(values) => match &elements {
                // Masks have infinities; weights have none.
                Elements::Floats(own)
                    if own.iter().any(|v| v.is_infinite()) || values.iter().all(|v| v.is_finite()) =>
                {
                    Elements::Floats(values.to_vec())
                }
                Elements::Floats(_) => return Err(wrong("the weights for it are infinite".to_owned())),
                _ => elements,
            },
            None => elements,
        };
        let mut hasher = DefaultHasher::new();
        match &tensor.name {
            Some(name) if !name.is_empty() => name.hash(&mut hasher),
            _ => std::ptr::from_ref(tensor).hash(&mut hasher),
        }
        Ok(Constant::new(shape, elements, hasher.finish()))
    }
}

impl DataTypes for DataType {}

/// Names that the format's crate has not.
trait DataTypes {
    const UNDEFINED: DataType = DataType(0);
}

fn chunks<const N: usize>(raw: &[u8]) -> Option<impl Iterator<Item = [u8; N]>> {
    raw.len().is_multiple_of(N).then(|| raw.chunks_exact(N).filter_map(|bytes| bytes.try_into().ok()))
}

/// Bytes of an element of [`raw_elements`].
fn bytes_of(data_type: DataType) -> Option<usize> {
    Some(match data_type {
        DataType::DOUBLE | DataType::INT64 | DataType::UINT64 => 8,
        DataType::FLOAT | DataType::INT32 | DataType::UINT32 => 4,
        DataType::FLOAT16 | DataType::BFLOAT16 | DataType::INT16 | DataType::UINT16 => 2,
        DataType::INT8 | DataType::UINT8 | DataType::BOOL => 1,
        _ => return None,
    })
}

/// Elements of little-endian bytes; `None` for types that are not read, or bytes that are no whole number of elements.
fn raw_elements(data_type: DataType, raw: &[u8]) -> Option<Elements> {
    let ints = |values: &mut dyn Iterator<Item = i64>| Elements::Ints(values.map(Count::fixed).collect());
    Some(match data_type {
        DataType::FLOAT => Elements::Floats(chunks(raw)?.map(|b| f64::from(f32::from_le_bytes(b))).collect()),
        DataType::DOUBLE => Elements::Floats(chunks(raw)?.map(f64::from_le_bytes).collect()),
        DataType::FLOAT16 => Elements::Floats(chunks(raw)?.map(|b| half::f16::from_le_bytes(b).to_f64()).collect()),
        DataType::BFLOAT16 => Elements::Floats(chunks(raw)?.map(|b| half::bf16::from_le_bytes(b).to_f64()).collect()),
        DataType::INT64 => ints(&mut chunks(raw)?.map(i64::from_le_bytes)),
        DataType::UINT64 => ints(&mut chunks(raw)?.map(|b| i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX))),
        DataType::INT32 => ints(&mut chunks(raw)?.map(|b| i64::from(i32::from_le_bytes(b)))),
        DataType::UINT32 => ints(&mut chunks(raw)?.map(|b| i64::from(u32::from_le_bytes(b)))),
        DataType::INT16 => ints(&mut chunks(raw)?.map(|b| i64::from(i16::from_le_bytes(b)))),
        DataType::UINT16 => ints(&mut chunks(raw)?.map(|b| i64::from(u16::from_le_bytes(b)))),
        DataType::INT8 => ints(&mut chunks(raw)?.map(|b| i64::from(i8::from_le_bytes(b)))),
        DataType::UINT8 => ints(&mut raw.iter().map(|b| i64::from(*b))),
        DataType::BOOL => Elements::Bools(raw.iter().map(|b| *b != 0).collect()),
        _ => return None,
    })
}

/// Elements of the fields for each type.
fn typed_elements(data_type: DataType, tensor: &TensorProto) -> Option<Elements> {
    let small = &tensor.int32_data;
    Some(match data_type {
        DataType::FLOAT => Elements::Floats(tensor.float_data.iter().map(|v| f64::from(*v)).collect()),
        DataType::DOUBLE => Elements::Floats(tensor.double_data.clone()),
        DataType::FLOAT16 => Elements::Floats(small.iter().map(|v| half::f16::from_bits(*v as u16).to_f64()).collect()),
        DataType::BFLOAT16 => {
            Elements::Floats(small.iter().map(|v| half::bf16::from_bits(*v as u16).to_f64()).collect())
        }
        DataType::INT64 => Elements::Ints(tensor.int64_data.iter().map(|v| Count::fixed(*v)).collect()),
        DataType::INT32 | DataType::INT16 | DataType::UINT16 | DataType::INT8 | DataType::UINT8 => {
            Elements::Ints(small.iter().map(|v| Count::fixed(i64::from(*v))).collect())
        }
        DataType::BOOL => Elements::Bools(small.iter().map(|v| *v != 0).collect()),
        _ => return None,
    })
}

/// What holds of a message's fields: whether one is a message too, and which.
#[derive(Clone, Copy, PartialEq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    ValueInfo,
    Type,
    Sequence,
    Tensor,
    /// `TypeProto.Tensor` and the shape within it.
    TensorType,
    Shape,
    /// A message whose fields are no messages.
    Leaf,
    /// No message.
    Other,
}

impl Message {
    fn field(self, number: u64) -> Self {
        match (self, number) {
            (Message::Model, 7) | (Message::Attribute, 6) => Message::Graph,
            (Message::Graph, 1) => Message::Node,
            (Message::Graph, 11..=13) => Message::ValueInfo,
            (Message::Node, 5) => Message::Attribute,
            (Message::ValueInfo, 2) | (Message::Sequence, 1) => Message::Type,
            (Message::Type, 4) => Message::Sequence,
            (Message::Graph | Message::Attribute, 5) => Message::Tensor,
            (Message::Type, 1) => Message::TensorType,
            (Message::TensorType, 2) => Message::Shape,
            (Message::Shape, 1) | (Message::Tensor, 13) | (Message::Model, 8 | 14) => Message::Leaf,
            _ => Message::Other,
        }
    }
}

/// Refuses what does not begin with a field of a model, within the `len` bytes of the file.
fn check_beginning(beginning: &[u8], len: u64) -> Result<(), String> {
    let mut rest = beginning;
    if rest.is_empty() {
        return Ok(());
    }
    let tag = varint(&mut rest)?;
    match (tag >> 3, tag & 7) {
        (1 | 5, 0) => Ok(()), // ir_version, model_version
        (2..=4 | 6..=8 | 14 | 20 | 25 | 26, 2) if varint(&mut rest)? <= len => Ok(()),
        (2..=4 | 6..=8 | 14 | 20 | 25 | 26, 2) => Err(ends()),
        _ => Err("it does not begin with a field of a model; is it an ONNX file?".to_owned()),
    }
}

/// How a repeated field's numbers stand in bytes one after another.
#[derive(Clone, Copy)]
enum Packed {
    Varints,
    /// Of so many bytes each.
    Fixed(usize),
}

impl Packed {
    /// Of the fields that are numbers.
    fn of(message: Message, number: u64) -> Option<Self> {
        match (message, number) {
            (Message::Tensor, 1 | 5 | 7) | (Message::Attribute, 8) => Some(Packed::Varints),
            (Message::Tensor, 4) | (Message::Attribute, 7) => Some(Packed::Fixed(size_of::<f32>())),
            (Message::Tensor, 10) => Some(Packed::Fixed(size_of::<f64>())),
            _ => None,
        }
    }

    /// Refuses what is not all numbers: of one with more than ten bytes the parser never finds the end, and one that is cut off it leaves out.
    fn check(self, mut content: &[u8]) -> Result<(), String> {
        match self {
            Packed::Varints => {
                while !content.is_empty() {
                    varint(&mut content)?;
                }
                Ok(())
            }
            Packed::Fixed(size) if content.len().is_multiple_of(size) => Ok(()),
            Packed::Fixed(_) => Err(ends()),
        }
    }
}

/// Refuses lengths beyond the bytes there are, numbers that have no end, and graphs or types too deep within each other: the parser
/// allocates the one, reads the other without end, and descends into the last.
fn check_bounds(bytes: &[u8]) -> Result<(), String> {
    // What remains to be looked at: messages with their depth. Nothing is looked at twice.
    let mut open = vec![(Message::Model, bytes, 0usize)];
    while let Some((message, mut rest, depth)) = open.pop() {
        if depth > MOST_NESTED * 3 {
            return Err(format!("graphs or types stand within each other more than {MOST_NESTED} deep"));
        }
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            let number = tag >> 3;
            match tag & 7 {
                0 => {
                    varint(&mut rest)?;
                }
                1 => rest = rest.get(8..).ok_or_else(ends)?,
                5 => rest = rest.get(4..).ok_or_else(ends)?,
                2 => {
                    let length = usize::try_from(varint(&mut rest)?).map_err(|_| ends())?;
                    let (content, after) = rest.split_at_checked(length).ok_or_else(ends)?;
                    if let Some(packed) = Packed::of(message, number) {
                        packed.check(content)?;
                    }
                    let inner = message.field(number);
                    if inner != Message::Other {
                        open.push((inner, content, depth + 1));
                    }
                    rest = after;
                }
                kind => return Err(format!("a field of kind {kind}, which the format has not; is it an ONNX file?")),
            }
        }
    }
    Ok(())
}

/// Refuses a name that two tensors of a graph have: which one is meant, nobody can say. An input may have the name of a constant, its value
/// unless another is given. One without a name could be no node's.
fn check_names(graph: &GraphProto) -> Result<(), String> {
    if let Some(at) = graph.input.iter().position(|input| input.name.as_deref().is_none_or(str::is_empty)) {
        return Err(format!("input number {at} has no name"));
    }
    let mut open = vec![graph];
    while let Some(graph) = open.pop() {
        let twice = |what: &str, name: &str| Err(format!("two {what} are called {name}"));
        let (mut known, mut inputs) = (HashSet::new(), HashSet::new());
        for name in graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref()) {
            if !name.is_empty() && !known.insert(name) {
                return twice("tensors", name);
            }
        }
        for name in graph.input.iter().filter_map(|input| input.name.as_deref()) {
            if !inputs.insert(name) {
                return twice("inputs", name);
            }
        }
        known.extend(inputs);
        for node in &graph.node {
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                if !known.insert(name) {
                    return twice("tensors", name);
                }
            }
            open.extend(node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()));
        }
    }
    Ok(())
}

fn ends() -> String {
    "it ends within a field".to_owned()
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in 0..10 {
        let Some((byte, after)) = rest.split_first() else { return Err(ends()) };
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(7 * shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number of more than ten bytes".to_owned())
}

/// A node with its file, for errors and attributes.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub proto: &'a NodeProto,
    pub file: &'a OnnxFile,
}

impl<'a> Node<'a> {
    /// The operator.
    pub fn op(self) -> &'a str {
        self.proto.op_type.as_deref().unwrap_or_default()
    }

    /// Its name in the file; none is empty.
    pub fn name(self) -> &'a str {
        self.proto.name.as_deref().unwrap_or_default()
    }

    /// Name of an input; `None` for one that is left out.
    pub fn input(self, index: usize) -> Option<&'a str> {
        self.proto.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// How errors call it.
    pub fn title(self) -> String {
        let name = self.proto.name.as_deref().filter(|name| !name.is_empty());
        let output = self.proto.output.first().map_or("none", String::as_str);
        match name {
            Some(name) => format!("node {name} ({}, output {output})", self.op()),
            None => format!("node {} (output {output})", self.op()),
        }
    }

    /// Something that the node has and this crate has not.
    pub fn unsupported(self, why: impl Into<String>) -> Error {
        Error::unsupported(format!("{} of {}", self.title(), self.file.path.display()), why)
    }

    /// Something wrong with the node.
    pub fn wrong(self, problem: impl std::fmt::Display) -> Error {
        format_error(&self.file.path, format!("{}: {problem}", self.title()))
    }

    pub fn attribute(self, name: &str) -> Option<&'a AttributeProto> {
        self.proto.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    pub fn int(self, name: &str) -> Option<i64> {
        self.attribute(name)?.i
    }

    pub fn float(self, name: &str) -> Option<f64> {
        self.attribute(name)?.f.map(f64::from)
    }

    pub fn text(self, name: &str) -> Option<&'a str> {
        self.attribute(name)?.s.as_deref()
    }

    pub fn ints(self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// A flag.
    pub fn flag(self, name: &str) -> bool {
        self.int(name).unwrap_or(0) != 0
    }

    /// An axis of `rank`, counted from the end where it is negative.
    pub fn axis(self, axis: i64, rank: usize) -> Result<usize> {
        let counted = if axis < 0 { axis.checked_add_unsigned(rank as u64) } else { Some(axis) };
        let counted = counted.and_then(|axis| usize::try_from(axis).ok()).filter(|axis| *axis < rank);
        counted.ok_or_else(|| self.wrong(format!("axis {axis} of a tensor of {rank} axes")))
    }

    /// A number that tells what a constant made by this node is made of.
    pub fn lineage(self, inputs: &[u64], output: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.op(), inputs, output).hash(&mut hasher);
        for attribute in &self.proto.attribute {
            (&attribute.name, attribute.i, &attribute.ints, &attribute.s).hash(&mut hasher);
            (attribute.f.map(f32::to_bits), attribute.t.is_some()).hash(&mut hasher);
        }
        if inputs.is_empty() {
            self.proto.output.hash(&mut hasher);
        }
        hasher.finish()
    }
}
