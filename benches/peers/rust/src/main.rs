//! The peers candle and burn: `fused-rnn-peers candle|burn`, with the protocol of `benches/peers/helper.py`. Inference in f32, full
//! lengths, forward layers: what both have.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn_core::module::Param;
use burn_core::tensor::{Device as BurnDevice, Tensor as BurnTensor, TensorData};
use burn_nn::gru::{Gru, GruConfig};
use burn_nn::{GateController, Linear, Lstm, LstmConfig};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_nn::rnn::{GRU, GRUConfig, LSTM, LSTMConfig, RNN};
use serde::Deserialize;
use serde_json::{Value, json};

type Any<T> = Result<T, Box<dyn Error>>;
/// Calls that are timed: each gives what it computed.
type Call = Box<dyn Fn() -> Any<Output>>;

/// Results of a call, `[B, T, H]` and `[L, B, H]`, not yet read.
enum Output {
    Candle { y: Tensor, hn: Vec<Tensor>, cn: Vec<Tensor> },
    Burn { y: BurnTensor<3>, hn: Vec<BurnTensor<2>>, cn: Vec<BurnTensor<2>> },
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    offset: usize,
}

/// What a request asks for.
#[derive(Deserialize)]
struct Point {
    folder: PathBuf,
    pass: String,
    cell: String,
    seq_len: usize,
    batch: usize,
    input_size: usize,
    hidden_size: usize,
    layers: usize,
    directions: usize,
    dtype: String,
    threads: usize,
    lengths: Option<Value>,
    weights: Vec<Entry>,
}

impl Point {
    fn unsupported(&self) -> Option<&'static str> {
        let reasons = [
            (self.pass != "infer", "this helper runs inference"),
            (self.dtype != "f32", "this helper computes in f32"),
            (self.directions != 1, "this helper has forward layers"),
            (self.lengths.is_some(), "candle and burn take no lengths"),
            (!matches!(self.cell.as_str(), "lstm" | "gru"), "candle and burn are compared in lstm and gru"),
        ];
        reasons.into_iter().find(|(holds, _)| *holds).map(|(_, why)| why)
    }

    /// Weights by name.
    fn tensors(&self) -> Any<HashMap<&str, (&[usize], Vec<f32>)>> {
        let flat = read(&self.folder.join("weights"))?;
        let tensor = |entry: &'_ Entry| {
            let size: usize = entry.shape.iter().product();
            flat[entry.offset..entry.offset + size].to_vec()
        };
        Ok(self.weights.iter().map(|entry| (entry.name.as_str(), (entry.shape.as_slice(), tensor(entry)))).collect())
    }

    /// `[T, B, I]` as `[B, T, I]`, which both take.
    fn inputs(&self) -> Any<Vec<f32>> {
        Ok(swapped(&read(&self.folder.join("x"))?, self.seq_len, self.batch, self.input_size))
    }

    /// Inputs of a layer.
    fn width(&self, layer: usize) -> usize {
        if layer == 0 { self.input_size } else { self.hidden_size }
    }

    fn write(&self, output: Output) -> Any<Vec<&'static str>> {
        let (y, hn, cn) = match output {
            Output::Candle { y, hn, cn } => {
                let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
                let all = |list: &[Tensor]| list.iter().map(flat).collect::<Result<Vec<_>, _>>();
                (flat(&y)?, all(&hn)?.concat(), all(&cn)?.concat())
            }
            Output::Burn { y, hn, cn } => {
                let flat = |tensor: BurnTensor<2>| tensor.into_data().try_to_vec::<f32>();
                let all = |list: Vec<BurnTensor<2>>| list.into_iter().map(flat).collect::<Result<Vec<_>, _>>();
                (y.into_data().try_to_vec::<f32>()?, all(hn)?.concat(), all(cn)?.concat())
            }
        };
        let y = swapped(&y, self.batch, self.seq_len, self.hidden_size);
        let mut names = Vec::new();
        for (name, values) in [("y", y), ("hn", hn), ("cn", cn)] {
            if !values.is_empty() {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                std::fs::write(self.folder.join(format!("{name}.out")), bytes)?;
                names.push(name);
            }
        }
        Ok(names)
    }
}

fn read(path: &Path) -> Any<Vec<f32>> {
    let bytes = std::fs::read(path)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// `[first, second, width]` as `[second, first, width]`.
fn swapped(values: &[f32], first: usize, second: usize, width: usize) -> Vec<f32> {
    let row = |i: usize, j: usize| &values[(i * second + j) * width..][..width];
    (0..second).flat_map(|j| (0..first).flat_map(move |i| row(i, j))).copied().collect()
}

/// A layer of candle.
enum CandleLayer {
    Lstm(LSTM),
    Gru(GRU),
}

fn candle(point: &Point) -> Any<Call> {
    let device = Device::Cpu;
    let tensors = point.tensors()?;
    let mut layers = Vec::new();
    for layer in 0..point.layers {
        let mut own = HashMap::new();
        for stem in ["weight_ih", "weight_hh", "bias_ih", "bias_hh"] {
            let (shape, values) = &tensors[format!("{stem}_l{layer}").as_str()];
            // Every layer is the first of its own.
            own.insert(format!("{stem}_l0"), Tensor::from_vec(values.clone(), *shape, &device)?);
        }
        let builder = VarBuilder::from_tensors(own, DType::F32, &device);
        let (inputs, hidden) = (point.width(layer), point.hidden_size);
        layers.push(match point.cell.as_str() {
            "lstm" => CandleLayer::Lstm(candle_nn::rnn::lstm(inputs, hidden, LSTMConfig::default(), builder)?),
            _ => CandleLayer::Gru(candle_nn::rnn::gru(inputs, hidden, GRUConfig::default(), builder)?),
        });
    }
    let (batch, seq_len, hidden) = (point.batch, point.seq_len, point.hidden_size);
    let x = Tensor::from_vec(point.inputs()?, (batch, seq_len, point.input_size), &device)?;
    Ok(Box::new(move || {
        let (mut y, mut hn, mut cn) = (x.clone(), Vec::new(), Vec::new());
        for layer in &layers {
            match layer {
                CandleLayer::Lstm(layer) => {
                    let states = layer.seq(&y)?;
                    y = layer.states_to_tensor(&states)?;
                    hn.extend(states.last().map(|state| state.h().clone()));
                    cn.extend(states.last().map(|state| state.c().clone()));
                }
                CandleLayer::Gru(layer) => {
                    let states = layer.seq(&y)?;
                    y = layer.states_to_tensor(&states)?.reshape((batch, seq_len, hidden))?;
                    hn.extend(states.last().map(|state| state.h().clone()));
                }
            }
        }
        Ok(Output::Candle { y, hn, cn })
    }))
}

/// A layer of burn.
enum BurnLayer {
    Lstm(Lstm),
    Gru(Gru),
}

fn burn(point: &Point) -> Any<Call> {
    let device = BurnDevice::default();
    let tensors = point.tensors()?;
    let hidden = point.hidden_size;
    // Rows of a gate of PyTorch's weights, as burn has them: `[inputs, units]`, a linear layer each.
    let linear = |to: &mut Linear, source: &str, layer: usize, gate: usize| {
        let (shape, values) = &tensors[format!("weight_{source}_l{layer}").as_str()];
        let width = shape[1];
        let rows = values[gate * hidden * width..][..hidden * width].to_vec();
        let rows = BurnTensor::<2>::from_data(TensorData::new(rows, [hidden, width]), &device);
        // Copied, so that it lies as a new layer's does.
        let weight = rows.transpose().into_data();
        to.weight = Param::from_tensor(BurnTensor::from_data(weight, &device));
        let bias = tensors[format!("bias_{source}_l{layer}").as_str()].1[gate * hidden..][..hidden].to_vec();
        to.bias = Some(Param::from_tensor(BurnTensor::from_data(TensorData::new(bias, [hidden]), &device)));
    };
    let fill = |gates: &mut GateController, layer: usize, gate: usize| {
        linear(&mut gates.input_transform, "ih", layer, gate);
        linear(&mut gates.hidden_transform, "hh", layer, gate);
    };
    let mut layers = Vec::new();
    for layer in 0..point.layers {
        layers.push(match point.cell.as_str() {
            "lstm" => {
                let mut made = LstmConfig::new(point.width(layer), hidden, true).init(&device);
                fill(&mut made.input_gate, layer, 0);
                fill(made.forget_gate.as_mut().ok_or("burn's LSTM has no forget gate")?, layer, 1);
                fill(&mut made.cell_gate, layer, 2);
                fill(&mut made.output_gate, layer, 3);
                BurnLayer::Lstm(made)
            }
            _ => {
                let mut made = GruConfig::new(point.width(layer), hidden, true).init(&device);
                fill(&mut made.reset_gate, layer, 0);
                fill(&mut made.update_gate, layer, 1);
                fill(&mut made.new_gate, layer, 2);
                BurnLayer::Gru(made)
            }
        });
    }
    let (batch, seq_len) = (point.batch, point.seq_len);
    let shape = [batch, seq_len, point.input_size];
    let x = BurnTensor::<3>::from_data(TensorData::new(point.inputs()?, shape), &device);
    Ok(Box::new(move || {
        let (mut y, mut hn, mut cn) = (x.clone(), Vec::new(), Vec::new());
        for layer in &layers {
            match layer {
                BurnLayer::Lstm(layer) => {
                    let (outputs, state) = layer.forward(y, None);
                    y = outputs;
                    hn.push(state.hidden);
                    cn.push(state.cell);
                }
                BurnLayer::Gru(layer) => {
                    y = layer.forward(y, None);
                    // Its last state is its last output.
                    hn.push(y.clone().slice([0..batch, seq_len - 1..seq_len, 0..hidden]).reshape([batch, hidden]));
                }
            }
        }
        Ok(Output::Burn { y, hn, cn })
    }))
}

/// Microseconds of each call, after warming up.
fn timed(call: &Call, seconds: f64, least: usize) -> Any<Vec<f64>> {
    let warm = Instant::now();
    while {
        call()?;
        warm.elapsed().as_secs_f64() < seconds / 5.0
    } {}
    let (mut samples, begin, limit) = (Vec::new(), Instant::now(), Duration::from_secs_f64(seconds));
    while samples.len() < least || begin.elapsed() < limit {
        let start = Instant::now();
        call()?;
        samples.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(samples)
}

/// A package's version, of those that this program is built with.
fn version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let name = format!("name = \"{package}\"\nversion = \"");
    lock.split_once(&name).and_then(|(_, rest)| rest.split('"').next()).unwrap_or("?")
}

/// A peer, its calls once a point was prepared, and the threads that it has begun with.
struct Peer {
    prepare: fn(&Point) -> Any<Call>,
    call: Option<Call>,
    threads: Option<usize>,
}

impl Peer {
    fn answer(&mut self, line: &str) -> Any<Value> {
        let request: Value = serde_json::from_str(line)?;
        if request["do"] == "time" {
            let call = self.call.as_ref().ok_or("no point was prepared")?;
            let least = request["least"].as_u64().unwrap_or(1) as usize;
            return Ok(json!({ "us": timed(call, request["seconds"].as_f64().unwrap_or(0.1), least)? }));
        }
        let point: Point = serde_json::from_value(request)?;
        self.call = None;
        if let Some(why) = point.unsupported() {
            return Ok(json!({ "unsupported": why }));
        }
        let threads = *self.threads.get_or_insert_with(|| {
            // SAFETY: before the first point this program has this one thread.
            unsafe { std::env::set_var("RAYON_NUM_THREADS", point.threads.to_string()) };
            point.threads
        });
        if threads != point.threads {
            return Ok(json!({ "unsupported": format!("rayon keeps the {threads} threads that it began with") }));
        }
        let call = (self.prepare)(&point)?;
        let names = point.write(call()?)?;
        self.call = Some(call);
        Ok(json!({ "outputs": names }))
    }
}

fn main() -> Any<()> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let (prepare, package): (fn(&Point) -> Any<Call>, _) = match name.as_str() {
        "candle" => (candle, "candle-nn"),
        "burn" => (burn, "burn-nn"),
        _ => return Err("name a peer: candle or burn".into()),
    };
    let mut answers = std::io::stdout();
    writeln!(answers, "{}", json!({ "peer": name, "version": version(package) }))?;
    answers.flush()?;
    let mut peer = Peer { prepare, call: None, threads: None };
    for line in std::io::stdin().lock().lines() {
        let answer = peer.answer(&line?).unwrap_or_else(|error| json!({ "error": error.to_string() }));
        writeln!(answers, "{answer}")?;
        answers.flush()?;
    }
    Ok(())
}
