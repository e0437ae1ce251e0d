//! The structure of a Keras configuration: layers, their uses, and what each use is given.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Map, Value};

use super::format_error;
use super::options::{object, short};
use crate::error::{Error, Result};

/// A model, or one inside of another.
pub(super) struct ModelConfig<'a> {
    pub name: &'a str,
    pub sequential: bool,
    pub items: Vec<Item<'a>>,
    pub nodes: Vec<Node<'a>>,
    /// Items that are its inputs.
    pub inputs: Vec<usize>,
    pub outputs: Vec<Output>,
}

/// An output: which tensor of which use, and its name for users.
pub(super) struct Output {
    pub port: String,
    pub node: usize,
    pub tensor: usize,
}

/// What a model is made of.
pub(super) enum Item<'a> {
    Input {
        name: &'a str,
        shape: Vec<Option<usize>>,
    },
    Layer {
        name: &'a str,
        class: &'a str,
        config: &'a Map<String, Value>,
        rank: Option<usize>,
    },
    /// An operation that is no layer: `x + y`.
    Operation {
        name: &'a str,
        class: &'a str,
        config: &'a Map<String, Value>,
    },
    Model {
        name: &'a str,
        class: &'a str,
        model: ModelConfig<'a>,
    },
}

impl<'a> Item<'a> {
    pub fn name(&self) -> &'a str {
        match self {
            Item::Input { name, .. }
            | Item::Layer { name, .. }
            | Item::Operation { name, .. }
            | Item::Model { name, .. } => name,
        }
    }
}

/// A use of an item.
pub(super) struct Node<'a> {
    pub item: usize,
    pub arguments: Vec<Arg<'a>>,
    pub keywords: BTreeMap<String, Arg<'a>>,
}

impl Node<'_> {
    /// All tensors that it is given, by node and number of output.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, usize)> {
        self.arguments.iter().chain(self.keywords.values()).flat_map(Arg::tensors)
    }
}

/// An argument of a use.
pub(super) enum Arg<'a> {
    Tensor((usize, usize)),
    List(Vec<Arg<'a>>),
    Plain(&'a Value),
}

impl<'a> Arg<'a> {
    /// The tensors in it.
    pub fn tensors(&self) -> Vec<(usize, usize)> {
        match self {
            Arg::Tensor(at) => vec![*at],
            Arg::List(list) => list.iter().flat_map(Arg::tensors).collect(),
            Arg::Plain(_) => Vec::new(),
        }
    }

    /// A value without tensors.
    pub fn plain(&self) -> Option<&'a Value> {
        match self {
            Arg::Plain(value) => Some(value),
            _ => None,
        }
    }

    pub fn describe(&self) -> String {
        match self {
            Arg::Tensor(_) => "a tensor".to_owned(),
            Arg::List(list) => format!("[{}]", list.iter().map(Arg::describe).collect::<Vec<_>>().join(", ")),
            Arg::Plain(value) => short(value),
        }
    }
}

/// The uses that outputs need, each behind those that it needs, and which outputs of models inside are needed.
pub(super) struct Order {
    pub nodes: Vec<usize>,
    pub wanted: HashMap<usize, BTreeSet<usize>>,
}

/// Where a tensor comes from, as the file says it: layer, use, output.
type History<'a> = (&'a str, usize, usize);

fn history(value: &Value) -> Option<History<'_>> {
    let [name, node, tensor] = value.as_array()?.as_slice() else { return None };
    let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
    Some((name.as_str()?, number(node)?, number(tensor)?))
}

impl<'a> ModelConfig<'a> {
    pub fn parse(path: &Path, class: &str, config: &'a Map<String, Value>) -> Result<Self> {
        let layers = config.get("layers").and_then(Value::as_array);
        let layers = layers.ok_or_else(|| format_error(path, format!("the {class} model has no list of layers")))?;
        let name = config.get("name").and_then(Value::as_str).unwrap_or("model");
        if class == "Sequential" {
            Self::sequential(path, name, config, layers)
        } else {
            Self::functional(path, name, config, layers)
        }
    }

    fn sequential(path: &Path, name: &'a str, config: &'a Map<String, Value>, layers: &'a [Value]) -> Result<Self> {
        let mut items = layers.iter().map(|value| item(path, value)).collect::<Result<Vec<_>>>()?;
        if !matches!(items.first(), Some(Item::Input { .. })) {
            let shape = config.get("build_input_shape").or_else(|| {
                let first = layers.first()?.get("config")?;
                first.get("batch_shape").or_else(|| first.get("batch_input_shape"))
            });
            let Some(shape) = shape.and_then(sample_shape) else {
                return Err(format_error(
                    path,
                    format!("model {name} has no input shape; build it before it is saved"),
                ));
            };
            items.insert(0, Item::Input { name: "input_layer", shape });
        }
        let mut nodes: Vec<Node<'a>> = Vec::new();
        for (number, item) in items.iter().enumerate() {
            if number > 0 && matches!(item, Item::Input { .. }) {
                return Err(format_error(path, format!("model {name} has an input above its first layer")));
            }
            let arguments = number.checked_sub(1).map(|below| Arg::Tensor((below, 0))).into_iter().collect();
            nodes.push(Node { item: number, arguments, keywords: BTreeMap::new() });
        }
        let last = items.len() - 1;
        let port = items.last().map_or("", Item::name).to_owned();
        let outputs = vec![Output { port, node: last, tensor: 0 }];
        Ok(ModelConfig { name, sequential: true, items, nodes, inputs: vec![0], outputs })
    }

    fn functional(path: &Path, name: &'a str, config: &'a Map<String, Value>, layers: &'a [Value]) -> Result<Self> {
        let items = layers.iter().map(|value| item(path, value)).collect::<Result<Vec<_>>>()?;
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        for (number, (value, item)) in layers.iter().zip(&items).enumerate() {
            let name = value.get("name").and_then(Value::as_str).unwrap_or(item.name());
            if by_name.insert(name, number).is_some() {
                return Err(format_error(path, format!("two layers are called {name}")));
            }
        }
        // The uses of each item, in their order; of an input there is one.
        let mut raw = Vec::new();
        let mut uses: Vec<Vec<usize>> = Vec::new();
        for (number, (value, item)) in layers.iter().zip(&items).enumerate() {
            let inbound = value.get("inbound_nodes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let mut of_item = Vec::new();
            if matches!(item, Item::Input { .. }) {
                of_item.push(raw.len());
                raw.push((number, None));
            }
            for node in inbound {
                if !node.is_object() {
                    return Err(Error::unsupported(
                        format!("{}: layer {} in the format of Keras 2", path.display(), item.name()),
                        "load the model in Keras 3 and save it as .keras",
                    ));
                }
                of_item.push(raw.len());
                raw.push((number, Some(node)));
            }
            uses.push(of_item);
        }
        let resolve = |(name, node, tensor): History<'_>, shift: bool| -> Result<(usize, usize)> {
            let found = by_name.get(name).and_then(|item| {
                // Outputs of functional models count the model's own definition as the first use.
                let of_model = matches!(items.get(*item), Some(Item::Model { class, .. }) if *class != "Sequential");
                let node = if shift && of_model { node.checked_sub(1)? } else { node };
                uses.get(*item)?.get(node).copied()
            });
            let absent = || format_error(path, format!("use {node} of layer {name} is named, but is not there"));
            Ok((found.ok_or_else(absent)?, tensor))
        };
        let mut nodes = Vec::new();
        for (item, value) in &raw {
            let (mut arguments, mut keywords) = (Vec::new(), BTreeMap::new());
            if let Some(value) = value {
                let list = value.get("args").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                for value in list {
                    arguments.push(argument(value, &resolve)?);
                }
                for (key, value) in value.get("kwargs").and_then(Value::as_object).into_iter().flatten() {
                    keywords.insert(key.clone(), argument(value, &resolve)?);
                }
            }
            nodes.push(Node { item: *item, arguments, keywords });
        }
        let ends = |key: &str| {
            let mut found = Vec::new();
            config
                .get(key)
                .map_or(Some(()), |value| flatten(value, "", &mut found))
                .map(|()| found)
                .ok_or_else(|| format_error(path, format!("model {name}: {key} is no list of layers' outputs")))
        };
        let mut inputs = Vec::new();
        for (_, at) in ends("input_layers")? {
            let (node, _) = resolve(at, true)?;
            let item = nodes.get(node).map_or(0, |node| node.item);
            if !matches!(items.get(item), Some(Item::Input { .. })) {
                return Err(format_error(path, format!("model {name}: input {} is no InputLayer", at.0)));
            }
            inputs.push(item);
        }
        let mut outputs = Vec::new();
        for (key, at) in ends("output_layers")? {
            let (node, tensor) = resolve(at, true)?;
            outputs.push(Output { port: if key.is_empty() { at.0.to_owned() } else { key }, node, tensor });
        }
        if inputs.is_empty() || outputs.is_empty() {
            return Err(format_error(path, format!("model {name} has no inputs or no outputs")));
        }
        Ok(ModelConfig { name, sequential: false, items, nodes, inputs, outputs })
    }

    /// In which order the wanted outputs are computed.
    pub fn order(&self, path: &Path, wanted: &BTreeSet<usize>) -> Result<Order> {
        let mut of_models: HashMap<usize, BTreeSet<usize>> = HashMap::new();
        let read: Vec<Vec<(usize, usize)>> = self.nodes.iter().map(|node| node.tensors().collect()).collect();
        let (mut nodes, mut state) = (Vec::new(), vec![0u8; self.nodes.len()]);
        let mut open: Vec<(usize, usize)> = Vec::new();
        let mut need = |node: usize, tensor: usize| {
            of_models.entry(node).or_default().insert(tensor);
        };
        for output in self.outputs.iter().enumerate().filter(|(index, _)| wanted.contains(index)).map(|(_, o)| o) {
            need(output.node, output.tensor);
            open.push((output.node, 0));
            while let Some((number, next)) = open.pop() {
                let (Some(node), Some(state)) = (self.nodes.get(number), state.get_mut(number)) else { continue };
                if *state == 2 || (*state == 1 && next == 0) {
                    if *state == 1 {
                        let name = self.items.get(node.item).map_or("", Item::name);
                        return Err(format_error(path, format!("layer {name} waits for its own output")));
                    }
                    continue;
                }
                *state = 1;
                match read.get(number).and_then(|read| read.get(next)) {
                    Some(&(below, tensor)) => {
                        need(below, tensor);
                        open.push((number, next + 1));
                        open.push((below, 0));
                    }
                    None => {
                        *state = 2;
                        nodes.push(number);
                    }
                }
            }
        }
        Ok(Order { nodes, wanted: of_models })
    }
}

/// An entry of a model's list of layers.
fn item<'a>(path: &Path, value: &'a Value) -> Result<Item<'a>> {
    let Some((class, config)) = object(value) else {
        return Err(format_error(path, format!("a layer without class_name and config: {}", short(value))));
    };
    let name = config.get("name").or_else(|| value.get("name")).and_then(Value::as_str);
    let name = name.ok_or_else(|| format_error(path, format!("a layer of class {class} has no name")))?;
    let module = value.get("module").and_then(Value::as_str).unwrap_or("keras.layers");
    match class {
        "InputLayer" => {
            for key in ["sparse", "ragged"] {
                if config.get(key).and_then(Value::as_bool) == Some(true) {
                    return Err(Error::unsupported(
                        format!("{}: input {name} with {key} true", path.display()),
                        "inputs are whole arrays",
                    ));
                }
            }
            let shape = config.get("batch_shape").or_else(|| config.get("batch_input_shape")).and_then(sample_shape);
            let shape = shape.ok_or_else(|| format_error(path, format!("input {name} has no batch_shape")))?;
            Ok(Item::Input { name, shape })
        }
        "Sequential" | "Functional" | "Model" => {
            Ok(Item::Model { name, class, model: ModelConfig::parse(path, class, config)? })
        }
        _ if module.contains(".ops.") || module.ends_with(".ops") => Ok(Item::Operation { name, class, config }),
        _ => {
            // Of several inputs the first counts.
            let shape = value.get("build_config").and_then(|build| build.get("input_shape"));
            let axes = shape.and_then(Value::as_array);
            let rank = axes.map(|axes| match axes.first() {
                Some(Value::Array(first)) => first.len(),
                _ => axes.len(),
            });
            Ok(Item::Layer { name, class, config, rank })
        }
    }
}

/// The sample shape of an entry's first input, where the file says all of it.
pub(super) fn built_shape(value: &Value) -> Option<Vec<usize>> {
    let shape = value.get("build_config")?.get("input_shape")?;
    let shape = if shape.get(0).is_some_and(Value::is_array) { shape.get(0)? } else { shape };
    let shape: Vec<usize> = sample_shape(shape)?.into_iter().collect::<Option<_>>()?;
    shape.iter().try_fold(1usize, |size, n| size.checked_mul(*n)).filter(|size| *size > 0)?;
    Some(shape)
}

/// A shape without the batch; open axes are null.
fn sample_shape(value: &Value) -> Option<Vec<Option<usize>>> {
    let axes = value.as_array()?.split_first()?.1;
    let axis = |value: &Value| match value {
        Value::Null => Some(None),
        _ => usize::try_from(value.as_u64()?).ok().map(Some),
    };
    axes.iter().map(axis).collect()
}

/// An argument with its tensors found.
fn argument<'a>(value: &'a Value, resolve: &impl Fn(History<'_>, bool) -> Result<(usize, usize)>) -> Result<Arg<'a>> {
    if let Some(("__keras_tensor__", config)) = object(value)
        && let Some(at) = config.get("keras_history").and_then(history)
    {
        return Ok(Arg::Tensor(resolve(at, false)?));
    }
    // A list with tensors in it; one without is a value, and so is a serialized tuple.
    let list = match object_of_tuple(value) {
        Some(list) => Some(list),
        None => value.as_array(),
    };
    if let Some(list) = list {
        let list = list.iter().map(|value| argument(value, resolve)).collect::<Result<Vec<_>>>()?;
        if list.iter().any(|argument| !argument.tensors().is_empty()) {
            return Ok(Arg::List(list));
        }
    }
    Ok(Arg::Plain(value))
}

/// The elements of `{"class_name": "__tuple__", "items": […]}`.
fn object_of_tuple(value: &Value) -> Option<&Vec<Value>> {
    let class = value.get("class_name")?.as_str()?;
    if class == "__tuple__" { value.get("items")?.as_array() } else { None }
}

/// All outputs named in a structure of lists and dictionaries, with the keys of dictionaries.
fn flatten<'a>(value: &'a Value, key: &str, found: &mut Vec<(String, History<'a>)>) -> Option<()> {
    if let Some(at) = history(value) {
        found.push((key.to_owned(), at));
        return Some(());
    }
    match value {
        Value::Array(list) => list.iter().try_for_each(|value| flatten(value, key, found)),
        Value::Object(_) => match object_of_tuple(value) {
            Some(list) => list.iter().try_for_each(|value| flatten(value, key, found)),
            None => value.as_object()?.iter().try_for_each(|(key, value)| flatten(value, key, found)),
        },
        _ => None,
    }
}
