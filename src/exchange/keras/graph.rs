//! From a Keras configuration to a [`Graph`]: sequential and functional models, also inside of each other, which become one graph.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::layers::{Known, translate};
use super::names::Counters;
use super::nodes::{Arg, Item, ModelConfig, Node, Output};
use super::options::{Options, short};
use super::program::{Arrays, Input, Masks, Piece, Program};
use super::{Lengths, format_error, in_file};
use crate::backend::Device;
use crate::error::{Error, Result};
use crate::exchange::{Port, open};
use crate::model::graph::Source;
use crate::model::{Graph, GraphTensor, LayerId};
use crate::nn::{MaskLike, Reshape};

/// A model read from a configuration, without weights yet.
pub(super) struct Architecture {
    pub graph: Graph,
    pub inputs: Vec<Port>,
    pub outputs: Vec<(Port, GraphTensor)>,
    /// Of each layer with weights, by its name here: where its arrays stand.
    pub arrays: BTreeMap<String, Arrays>,
    /// Groups of layers that lead to no output.
    pub unused: Vec<String>,
    /// What of the training of layers is not kept; and how the model was compiled.
    pub training: (Vec<String>, Option<Value>),
}

/// Reads the configuration of a model, whose axes of any length stay so unless `lengths` are given.
pub(super) fn read(device: Device, config: &[u8], path: &Path, lengths: Lengths<'_>) -> Result<Architecture> {
    let Lengths::Any = lengths else { return read_at(device, config, path, lengths) };
    let mut axes = Vec::new();
    let [steps, others] = open::probes();
    let one = read_counting(device.clone(), config, path, Lengths::Steps(steps), &mut axes)?;
    if !axes.iter().flatten().any(Option::is_none) {
        return Ok(one);
    }
    let probe = |read: &Architecture| {
        let tensors: Vec<&GraphTensor> = read.outputs.iter().map(|(_, tensor)| tensor).collect();
        read.graph.config(&tensors).and_then(open::Probe::new).map_err(|e| in_file(path, e))
    };
    let at = |steps: usize| read_at(Device::cpu(), config, path, Lengths::Steps(steps));
    let other = at(others)?;
    // What is refused for few steps may need more of them.
    let mut few = Vec::new();
    for steps in open::FEW_STEPS {
        if let Ok(read) = at(steps) {
            few.push((steps, probe(&read)?));
        }
    }
    let combined = open::combine([&probe(&one)?, &probe(&other)?], &few, &axes);
    let config = combined.map_err(|depends| depends.error(path.display(), "--steps, or keras::read_with_steps"))?;
    let (graph, tensors) = Graph::of_config(device, &config).map_err(|e| in_file(path, e))?;
    let port = |(a, b): (&Port, &Port)| {
        let axes: Vec<Option<usize>> = a.shape.iter().zip(&b.shape).map(|(a, b)| (*a).filter(|_| a == b)).collect();
        Port::new(&a.name, 0, &axes)
    };
    let inputs = one.inputs.iter().zip(&other.inputs).map(port).collect();
    let ports = one.outputs.iter().zip(&other.outputs).map(|((a, _), (b, _))| port((a, b)));
    Ok(Architecture { inputs, outputs: ports.zip(tensors).collect(), graph, ..one })
}

/// The same where axes of any length have these.
fn read_at(device: Device, config: &[u8], path: &Path, lengths: Lengths<'_>) -> Result<Architecture> {
    read_counting(device, config, path, lengths, &mut Vec::new())
}

/// The same, with the axes that the inputs have in the file.
fn read_counting(
    device: Device,
    config: &[u8],
    path: &Path,
    lengths: Lengths<'_>,
    axes: &mut Vec<Vec<Option<usize>>>,
) -> Result<Architecture> {
    let value: Value =
        serde_json::from_slice(config).map_err(|e| format_error(path, format!("its configuration: {e}")))?;
    let Some((class, map)) = super::options::object(&value) else {
        return Err(format_error(path, "its configuration has no class_name and config"));
    };
    if !matches!(class, "Sequential" | "Functional" | "Model") {
        return Err(Error::unsupported(
            format!("{}: a model of class {class}", path.display()),
            "sequential and functional models are read, since others are programs",
        ));
    }
    let model = ModelConfig::parse(path, class, map)?;
    let mut reader = Reader {
        path,
        graph: Graph::new(device, 0),
        arrays: BTreeMap::new(),
        masked: HashSet::new(),
        operations: HashSet::new(),
        numbers: HashSet::new(),
        // Models inside of each other may be used many times over: no more than the file has room for.
        budget: 64 + config.len() / 4,
    };
    let mut inputs = Vec::new();
    let mut tensors = Vec::new();
    for (number, input) in model.inputs.iter().enumerate() {
        let of_array = match lengths {
            Lengths::Of(shapes) if shapes.len() == model.inputs.len() => shapes.get(number).map(Vec::as_slice),
            _ => None,
        };
        let steps = if let Lengths::Steps(steps) = lengths { Some(steps) } else { None };
        let (name, shape) = reader.input_shape(&model, *input, steps, of_array)?;
        if let Some(Item::Input { shape, .. }) = model.items.get(*input) {
            axes.push(shape.clone());
        }
        tensors.push(reader.graph.input(name, &shape).map_err(|e| in_file(path, e))?);
        inputs.push(Port::new(name, 0, &shape));
    }
    let mut declared = Declared::of(&model, "", "");
    let wanted: BTreeSet<usize> = (0..model.outputs.len()).collect();
    let made = reader.call_model(&model, &mut declared, &tensors, &wanted)?;
    let mut outputs = Vec::new();
    for (output, tensor) in model.outputs.iter().zip(made) {
        let tensor = tensor.ok_or_else(|| format_error(path, format!("output {} is not computed", output.port)))?;
        let shape = if reader.numbers.contains(&tensor.source()) { &[] } else { tensor.shape() };
        outputs.push((Port::new(&output.port, 0, &shape.to_vec()), tensor));
    }
    let mut unused = Vec::new();
    declared.unused(&mut unused);
    let Reader { graph, arrays, .. } = reader;
    let training = (super::training::left_out(&value), value.get("compile_config").cloned());
    Ok(Architecture { graph, inputs, outputs, arrays, unused, training })
}

/// Layers of a model as far as they are there; made by their first use.
struct Declared {
    items: Vec<DeclaredItem>,
}

enum DeclaredItem {
    Input,
    /// Its name here and the group of its arrays.
    Layer {
        name: String,
        group: String,
        made: Option<Made>,
    },
    Operation {
        name: String,
    },
    Model(Declared),
}

/// A layer as this crate has it.
struct Made {
    /// Its layers, and what each is given.
    layers: Vec<(LayerId, Option<Vec<Input>>)>,
    outputs: Option<Vec<Input>>,
    masks: Masks,
}

impl Declared {
    fn of(model: &ModelConfig<'_>, scope: &str, group: &str) -> Self {
        let mut counters = Counters::default();
        let mut items = Vec::new();
        for item in &model.items {
            let name = if scope.is_empty() { item.name().to_owned() } else { format!("{scope}/{}", item.name()) };
            let below = |counters: &mut Counters, class: &str| {
                let own = counters.next(class);
                if group.is_empty() { format!("layers/{own}") } else { format!("{group}/layers/{own}") }
            };
            items.push(match item {
                Item::Input { .. } => {
                    // A sequential model does not count its input among its layers.
                    if !model.sequential {
                        counters.next("InputLayer");
                    }
                    DeclaredItem::Input
                }
                Item::Layer { class, .. } => {
                    DeclaredItem::Layer { name, group: below(&mut counters, class), made: None }
                }
                Item::Operation { .. } => DeclaredItem::Operation { name },
                Item::Model { class, model, .. } => {
                    let group = below(&mut counters, class);
                    DeclaredItem::Model(Declared::of(model, &name, &group))
                }
            });
        }
        Declared { items }
    }

    /// The groups of layers that no use has made.
    fn unused(&self, groups: &mut Vec<String>) {
        for item in &self.items {
            match item {
                DeclaredItem::Layer { group, made: None, .. } => groups.push(group.clone()),
                DeclaredItem::Model(inner) => inner.unused(groups),
                _ => {}
            }
        }
    }
}

/// What a use of a layer or an operation gives.
#[derive(Clone)]
enum Given {
    Tensor(GraphTensor),
    /// A mask that Keras computes beside what it masks: the tensors that it looks at, with the values that mean absent.
    Mask(Vec<Leaf>),
}

/// A tensor that a mask looks at, with the bits of the value that means absent.
type Leaf = (Source, u64);

struct Reader<'a> {
    path: &'a Path,
    graph: Graph,
    arrays: BTreeMap<String, Arrays>,
    /// What layers make masks of: their inputs, and the values that mean absent.
    masked: HashSet<Leaf>,
    /// Names of operations that are layers here.
    operations: HashSet<String>,
    /// Tensors that are one number for each sample.
    numbers: HashSet<Source>,
    budget: usize,
}

/// Operations that Keras computes masks with.
const OF_MASKS: &[&str] = &[
    "NotEqual",
    "Any",
    "All",
    "LogicalOr",
    "LogicalAnd",
    "ExpandDims",
    "ZerosLike",
    "OnesLike",
    "Concatenate",
    "ConvertToTensor",
    "Cast",
    "BroadcastTo",
    "Squeeze",
    "Repeat",
];

impl Reader<'_> {
    /// Name and shape of an input, without the batch. Axes of any length are `steps` long, or as long as those of an array.
    fn input_shape<'m>(
        &self,
        model: &'m ModelConfig<'_>,
        input: usize,
        steps: Option<usize>,
        of_array: Option<&[usize]>,
    ) -> Result<(&'m str, Vec<usize>)> {
        let Some(Item::Input { name, shape, .. }) = model.items.get(input) else {
            return Err(format_error(self.path, "an input is no InputLayer"));
        };
        let of_array = of_array.filter(|array| array.len() == shape.len() + 1);
        let length = |(axis, n): (usize, &Option<usize>)| {
            n.or(steps).or_else(|| of_array?.get(axis + 1).copied()).ok_or_else(|| {
                Error::unsupported(
                    format!("{}: input {name} with axes of any length", self.path.display()),
                    "the shapes given are of arrays with other axes",
                )
            })
        };
        Ok((name, shape.iter().enumerate().map(length).collect::<Result<_>>()?))
    }

    /// Uses a model: those of its outputs that are `wanted`.
    fn call_model(
        &mut self,
        model: &ModelConfig<'_>,
        declared: &mut Declared,
        inputs: &[GraphTensor],
        wanted: &BTreeSet<usize>,
    ) -> Result<Vec<Option<GraphTensor>>> {
        if inputs.len() != model.inputs.len() {
            let problem =
                format!("model {} has {} inputs, but is given {}", model.name, model.inputs.len(), inputs.len());
            return Err(format_error(self.path, problem));
        }
        // What the wanted outputs need, and of models inside which outputs.
        let order = model.order(self.path, wanted)?;
        let mut given: HashMap<(usize, usize), Given> = HashMap::new();
        let of_inputs: HashMap<usize, &GraphTensor> = model.inputs.iter().copied().zip(inputs).collect();
        for (number, node) in model.nodes.iter().enumerate() {
            if let Some(tensor) = of_inputs.get(&node.item) {
                given.insert((number, 0), Given::Tensor((*tensor).clone()));
            }
        }
        for number in order.nodes {
            let Some(node) = model.nodes.get(number) else { continue };
            let (Some(item), Some(known)) = (model.items.get(node.item), declared.items.get_mut(node.item)) else {
                continue;
            };
            self.budget = self.budget.checked_sub(1).ok_or_else(|| {
                format_error(self.path, "its models inside of each other are used more often than can be meant")
            })?;
            let results: Vec<Option<Given>> = match (item, known) {
                (Item::Input { name, .. }, _) => {
                    // Given above where it is an input of the model.
                    if !given.contains_key(&(number, 0)) {
                        return Err(format_error(self.path, format!("{name} is none of the model's inputs")));
                    }
                    continue;
                }
                (Item::Layer { class, config, rank, .. }, DeclaredItem::Layer { name, group, made }) => {
                    let call = Call::of(self.path, name, node, &given)?;
                    if made.is_none() {
                        let options = Options::new(self.path, name, class, config);
                        let shapes = call.tensors.iter().map(|tensor| tensor.shape().to_vec()).collect();
                        let program = translate(class, options, &call.options, &Known::of(shapes, *rank))?;
                        let trainable = config.get("trainable").and_then(Value::as_bool).unwrap_or(true);
                        *made = Some(self.declare(name, group, program, trainable)?);
                    } else {
                        // What a call says of attention is the layer's own here.
                        self.check_same_call(model, node)?;
                    }
                    let Some(made) = made else { continue };
                    self.call_layer(name, class, config, made, &call)?
                        .into_iter()
                        .map(|tensor| Some(Given::Tensor(tensor)))
                        .collect()
                }
                (Item::Operation { class, config, .. }, DeclaredItem::Operation { name }) => {
                    let wanted = order.wanted.get(&number).cloned().unwrap_or_default();
                    self.call_operation(name, class, config, node, &given, &wanted)?
                }
                (Item::Model { model: inner, .. }, DeclaredItem::Model(of_inner)) => {
                    let call = Call::of(self.path, item.name(), node, &given)?;
                    self.check_masks(item.name(), &call)?;
                    let wanted = order.wanted.get(&number).cloned().unwrap_or_default();
                    let outputs = self.call_model(inner, of_inner, &call.tensors, &wanted)?;
                    outputs.into_iter().map(|tensor| tensor.map(Given::Tensor)).collect()
                }
                _ => Vec::new(),
            };
            for (output, result) in results.into_iter().enumerate() {
                if let Some(result) = result {
                    given.insert((number, output), result);
                }
            }
        }
        let output = |(index, output): (usize, &Output)| match given.get(&(output.node, output.tensor)) {
            _ if !wanted.contains(&index) => Ok(None),
            Some(Given::Tensor(tensor)) => Ok(Some(tensor.clone())),
            Some(Given::Mask(_)) => Err(Error::unsupported(
                format!("{}: output {} of truth values", self.path.display(), output.port),
                "outputs are numbers",
            )),
            None => Err(format_error(self.path, format!("output {} names nothing", output.port))),
        };
        model.outputs.iter().enumerate().map(output).collect()
    }

    /// Refuses a second use of a layer with other options of attention.
    fn check_same_call(&self, model: &ModelConfig<'_>, node: &Node<'_>) -> Result<()> {
        let options = |node: &Node<'_>| {
            let kept = node.keywords.iter().filter(|(key, _)| OF_ATTENTION.contains(&key.as_str()));
            kept.map(|(key, value)| (key.clone(), value.plain().cloned())).collect::<BTreeMap<_, _>>()
        };
        let first = model.nodes.iter().find(|other| other.item == node.item);
        match (first, model.items.get(node.item)) {
            (Some(first), Some(item)) if options(first) != options(node) => Err(Error::unsupported(
                format!("{}: layer {} used with different options", self.path.display(), item.name()),
                "a layer is causal or gives its scores in all of its uses or in none",
            )),
            _ => Ok(()),
        }
    }

    /// Adds the layers that a layer of Keras is made of.
    fn declare(&mut self, name: &str, group: &str, program: Program, trainable: bool) -> Result<Made> {
        let mut layers = Vec::new();
        for (number, Piece { layer, arrays, inputs }) in program.pieces.into_iter().enumerate() {
            let name = if number > 0 { format!("{name}/{number}") } else { name.to_owned() };
            let id = self.graph.named_layer(&name, layer).map_err(|e| in_file(self.path, e))?;
            self.graph.set_trainable(id, trainable);
            layers.push((id, inputs));
            if !arrays.is_empty() {
                self.arrays.insert(name, arrays.below(group));
            }
        }
        Ok(Made { layers, outputs: program.outputs, masks: program.masks })
    }

    /// What the layers give for these tensors.
    fn run(
        &mut self,
        layers: &[(LayerId, Option<Vec<Input>>)],
        outputs: Option<&[Input]>,
        tensors: &[GraphTensor],
    ) -> Result<Vec<GraphTensor>> {
        let path = self.path;
        let mut results: Vec<Vec<GraphTensor>> = Vec::new();
        let taken = |results: &[Vec<GraphTensor>], inputs: &[Input]| -> Result<Vec<GraphTensor>> {
            let find = |input: &Input| match *input {
                Input::Call(number) => tensors.get(number),
                Input::Piece(piece, output) => results.get(piece).and_then(|outputs| outputs.get(output)),
            };
            let all: Option<Vec<GraphTensor>> = inputs.iter().map(|input| find(input).cloned()).collect();
            all.ok_or_else(|| format_error(path, "a layer is given fewer tensors than it takes"))
        };
        for (layer, inputs) in layers {
            let given = match inputs {
                Some(inputs) => taken(&results, inputs)?,
                None => results.last().map_or_else(|| tensors.to_vec(), Clone::clone),
            };
            let given: Vec<&GraphTensor> = given.iter().collect();
            results.push(self.graph.call_all(*layer, &given).map_err(|e| in_file(path, e))?);
        }
        match outputs {
            Some(outputs) => taken(&results, outputs),
            None => Ok(results.pop().unwrap_or_else(|| tensors.to_vec())),
        }
    }

    fn call_layer(
        &mut self,
        name: &str,
        class: &str,
        config: &Map<String, Value>,
        made: &Made,
        call: &Call<'_>,
    ) -> Result<Vec<GraphTensor>> {
        self.check_masks(name, call)?;
        let mut tensors = call.tensors.clone();
        let masked = tensors.first().is_some_and(GraphTensor::is_masked);
        let ignored = match made.masks {
            Masks::Alike => false,
            Masks::Ignored => true,
            // With several tensors as arguments Keras hands no mask to a layer, unless it is told to.
            Masks::IgnoredWithStates => call.states && !call.explicit_mask,
            Masks::Refused(what) if masked && (call.explicit_mask || !call.states) => {
                return Err(Error::unsupported(
                    format!("{}: layer {name} ({class}) with a mask and {what}", self.path.display()),
                    "what Keras puts out for absent steps then is not what this crate does; leave one of them away",
                ));
            }
            Masks::Refused(_) => call.states && !call.explicit_mask,
        };
        if ignored && let Some(first) = tensors.first_mut() {
            *first = self.unmasked(first.clone())?;
        }
        // Layers that make masks, for masks that are handed on beside their outputs.
        if let Some(input) = call.tensors.first() {
            match class {
                "Embedding" if config.get("mask_zero").and_then(Value::as_bool) == Some(true) => {
                    self.masked.insert((input.source(), 0f64.to_bits()));
                }
                "Masking" => {
                    let value = config.get("mask_value").and_then(Value::as_f64).unwrap_or(0.0);
                    self.masked.insert((input.source(), value.to_bits()));
                }
                _ => {}
            }
        }
        let mut outputs = self.run(&made.layers, made.outputs.as_deref(), &tensors)?;
        // What Keras's layer has not looked at goes on beside its sequences all the same.
        let unread = masked && tensors.first().is_some_and(|tensor| !tensor.is_masked());
        if let (true, Masks::IgnoredWithStates | Masks::Refused(_), Some(input)) =
            (unread, made.masks, call.tensors.first())
        {
            for output in outputs.iter_mut().take(returned_sequences(class, config)) {
                let like = MaskLike::new();
                *output = self.graph.add(like, &[output, input]).map_err(|e| in_file(self.path, e))?;
            }
        }
        Ok(outputs)
    }

    /// The same tensor without its mask.
    fn unmasked(&mut self, tensor: GraphTensor) -> Result<GraphTensor> {
        if !tensor.is_masked() {
            return Ok(tensor);
        }
        let shape: Option<Vec<i64>> = tensor.shape().iter().map(|n| i64::try_from(*n).ok()).collect();
        let shape = shape.ok_or_else(|| format_error(self.path, "a shape overflows"))?;
        self.graph.add(Reshape::new(&shape), &[&tensor]).map_err(|e| in_file(self.path, e))
    }

    /// Refuses masks that are not those that layers make.
    fn check_masks(&self, name: &str, call: &Call<'_>) -> Result<()> {
        if call.masks.iter().all(|leaf| self.masked.contains(leaf)) { Ok(()) } else { Err(own_mask(self.path, name)) }
    }

    /// An operation between layers: `x + y`, or what Keras computes masks with.
    fn call_operation(
        &mut self,
        name: &str,
        class: &str,
        config: &Map<String, Value>,
        node: &Node<'_>,
        given: &HashMap<(usize, usize), Given>,
        wanted: &BTreeSet<usize>,
    ) -> Result<Vec<Option<Given>>> {
        let arguments: Vec<Option<&Given>> = node.tensors().map(|tensor| given.get(&tensor)).collect();
        let of_masks = OF_MASKS.contains(&class);
        if class == "NotEqual"
            && let [Arg::Tensor(at), Arg::Plain(value)] = &node.arguments[..]
            && let (Some(Given::Tensor(tensor)), Some(value)) = (given.get(at), value.as_f64())
        {
            return Ok(vec![Some(Given::Mask(vec![(tensor.source(), value.to_bits())]))]);
        }
        let (mut leaves, mut seen) = (Vec::new(), HashSet::new());
        let mut is_mask = matches!(class, "ZerosLike" | "OnesLike");
        for argument in arguments.iter().flatten() {
            if let Given::Mask(more) = argument {
                is_mask = true;
                leaves.extend(more.iter().filter(|leaf| seen.insert(**leaf)));
            }
        }
        if is_mask && of_masks {
            return Ok(vec![Some(Given::Mask(leaves))]);
        }
        let refused = |why: &str| {
            Err(Error::unsupported(format!("{}: operation {name} ({class})", self.path.display()), why.to_owned()))
        };
        if is_mask {
            return refused("it computes with a mask");
        }
        let tensors: Vec<GraphTensor> = arguments
            .iter()
            .filter_map(|argument| match argument {
                Some(Given::Tensor(tensor)) => Some(tensor.clone()),
                _ => None,
            })
            .collect();
        let shape = |tensor: &'_ GraphTensor| match self.numbers.contains(&tensor.source()) {
            true => Vec::new(),
            false => tensor.shape().to_vec(),
        };
        let shapes: Vec<Vec<usize>> = tensors.iter().map(shape).collect();
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let Some(program) = super::operations::program(class, config, node, &shapes) else {
            let arguments: Vec<String> = node.arguments.iter().map(Arg::describe).collect();
            let options: Vec<String> = config
                .iter()
                .filter(|(key, value)| *key != "name" && !value.is_null())
                .map(|(key, value)| format!("{key} {}", short(value)))
                .collect();
            return refused(&format!("no layer here does it with {}", [arguments, options].concat().join(", ")));
        };
        let (program, kept) = program.only(wanted);
        // Keras's operations know nothing of masks.
        let tensors = tensors.into_iter().map(|tensor| self.unmasked(tensor)).collect::<Result<Vec<_>>>()?;
        let mut layers = Vec::new();
        for (number, Piece { layer, inputs, arrays }) in program.pieces.into_iter().enumerate() {
            // Used in several models' uses, it is there several times.
            let own = if number == 0 { name.to_owned() } else { format!("{name}/{number}") };
            let layer = match self.operations.insert(own.clone()) {
                true => self.graph.named_layer(&own, layer),
                false => self.graph.layer(layer),
            };
            let layer = layer.map_err(|e| in_file(self.path, e))?;
            if !arrays.is_empty() {
                self.arrays.insert(self.graph.layer_name(layer).to_owned(), arrays);
            }
            layers.push((layer, inputs));
        }
        let outputs = self.run(&layers, program.outputs.as_deref(), &tensors)?;
        if program.numbers {
            self.numbers.extend(outputs.iter().map(GraphTensor::source));
        }
        let mut results: Vec<Option<Given>> = Vec::new();
        for (number, tensor) in outputs.into_iter().enumerate() {
            let place = kept.get(number).copied().unwrap_or(number);
            results.resize_with(results.len().max(place + 1), || None);
            if let Some(result) = results.get_mut(place) {
                *result = Some(Given::Tensor(tensor));
            }
        }
        Ok(results)
    }
}

/// How many outputs of a recurrent layer are sequences, with a mask where its input has one.
fn returned_sequences(class: &str, config: &Map<String, Value>) -> usize {
    let inner = config.get("layer").and_then(super::options::object).map(|(_, config)| config);
    let of_layer = if class == "Bidirectional" { inner.unwrap_or(config) } else { config };
    match of_layer.get("return_sequences").and_then(Value::as_bool) {
        Some(true) if class == "Bidirectional" && config.get("merge_mode").is_some_and(Value::is_null) => 2,
        Some(true) => 1,
        _ => 0,
    }
}

/// Options of attention that Keras takes where a layer is called.
const OF_ATTENTION: &[&str] = &["use_causal_mask", "return_attention_scores"];

/// What a layer is called with.
struct Call<'a> {
    tensors: Vec<GraphTensor>,
    /// Whether there are initial states among the tensors.
    states: bool,
    /// Whether a mask is handed over beside them.
    explicit_mask: bool,
    masks: Vec<Leaf>,
    /// What is said besides.
    options: Map<String, Value>,
    name: &'a str,
}

impl<'a> Call<'a> {
    fn of(path: &Path, name: &'a str, node: &Node<'_>, given: &HashMap<(usize, usize), Given>) -> Result<Self> {
        let mut call = Call {
            tensors: Vec::new(),
            states: false,
            explicit_mask: false,
            masks: Vec::new(),
            options: Map::new(),
            name,
        };
        // Keyword arguments that stand for positional ones, in their order.
        const INPUTS: [&str; 7] = ["inputs", "sequences", "sequence", "query", "value", "key", "initial_state"];
        for argument in &node.arguments {
            call.take(path, argument, given)?;
        }
        let recurrent = call.tensors.len() > 1;
        for key in INPUTS {
            let Some(argument) = node.keywords.get(key) else { continue };
            let before = call.tensors.len();
            call.take(path, argument, given)?;
            call.states |= key == "initial_state" && call.tensors.len() > before;
        }
        call.states |= recurrent;
        for (key, argument) in &node.keywords {
            match key.as_str() {
                key if INPUTS.contains(&key) => {}
                "mask" => {
                    for tensor in argument.tensors() {
                        call.explicit_mask = true;
                        match given.get(&tensor) {
                            Some(Given::Mask(leaves)) => call.masks.extend_from_slice(leaves),
                            _ => return Err(own_mask(path, name)),
                        }
                    }
                }
                key => match argument.plain() {
                    Some(Value::Null | Value::Bool(false)) => {}
                    Some(value) if OF_ATTENTION.contains(&key) => {
                        call.options.insert(key.to_owned(), value.clone());
                    }
                    Some(value) => {
                        return Err(Error::unsupported(
                            format!("{}: layer {name} called with {key} {}", path.display(), short(value)),
                            "this argument is not known here",
                        ));
                    }
                    None => {
                        return Err(Error::unsupported(
                            format!("{}: layer {name} called with a tensor as {key}", path.display()),
                            "this argument is not known here",
                        ));
                    }
                },
            }
        }
        Ok(call)
    }

    /// Adds the tensors of an argument.
    fn take(&mut self, path: &Path, argument: &Arg<'_>, given: &HashMap<(usize, usize), Given>) -> Result<()> {
        match argument {
            Arg::Tensor(at) => match given.get(at) {
                Some(Given::Tensor(tensor)) => self.tensors.push(tensor.clone()),
                Some(Given::Mask(_)) => {
                    return Err(Error::unsupported(
                        format!("{}: layer {} on truth values", path.display(), self.name),
                        "layers take numbers",
                    ));
                }
                None => {
                    return Err(format_error(path, format!("layer {}: an input names nothing", self.name)));
                }
            },
            Arg::List(list) => list.iter().try_for_each(|inner| self.take(path, inner, given))?,
            Arg::Plain(Value::Null) => {}
            Arg::Plain(value) => {
                return Err(Error::unsupported(
                    format!("{}: layer {} called with {}", path.display(), self.name, short(value)),
                    "layers are called with tensors",
                ));
            }
        }
        Ok(())
    }
}

/// A mask that no layer of the model makes.
fn own_mask(path: &Path, layer: &str) -> Error {
    Error::unsupported(
        format!("{}: layer {layer} with a mask of its own", path.display()),
        "masks come from Masking and Embedding; put one of them below",
    )
}
