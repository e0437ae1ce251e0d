//! Layer-normalised cells.
#![expect(
    clippy::indexing_slicing,
    reason = "gates of arrays as long as the most gates; steps by the number that they are kept under"
)]

use std::array::from_fn;
use std::ops::Range;

use crate::backend::ops::{MatMul, Orientation, Workspace};
use crate::backend::{Device, TensorMut, TensorRef, WeightGrad};
use crate::cell::{Activation, CellKind};
use crate::error::{Error, Result};
use crate::nn::Scratch;
use crate::nn::builder::{Builder, Init};
use crate::nn::recurrent::cell::{self, Cell, CellBackward, CellForward};
use crate::nn::shape::{Columns, copy_columns};
use crate::rnn::{Bias, GruReset, RnnDescriptor};

/// Added to variances, as Keras's LayerNormalization does.
const EPSILON: f64 = 1e-3;

/// The three cells with layer normalisation ([Ba et al. 2016](https://arxiv.org/abs/1607.06450), equations 20 to 22 and 29 to 31; all gates
/// are normalised together, as [Haste](https://github.com/lmnt-com/haste) has it). With `LN` over a whole vector:
///
/// ```text
/// p = LN(W x; gamma_x)          q = LN(R h; gamma_h) + b
/// RNN    h' = f(p + q)
/// LSTM   i, f, g, o = p + q     c' = f c + i g     h' = o f(LN(c'; gamma_c, beta_c))
/// GRU    r, z from p + q        n = f(p_n + r q_n) h' = n + z (h - n)     p has a bias of its own
/// ```
///
/// State: h, and of an LSTM c behind it. Nothing is saved in the layer's room: what a step needs again stays here, by its number.
pub(super) struct Normalized {
    cell: CellKind,
    kind: Formula,
    units: usize,
    features: usize,
    gate: Activation,
    state: Activation,
    bias: Bias,
    unit_forget_bias: bool,
    steps: Vec<Step>,
    spare: Vec<Scratch>,
    workspace: Scratch,
}

/// The cells that have a normalised form here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Formula {
    Rnn,
    Lstm,
    Gru,
}

/// Tensors of one step, `[batch, …]`.
struct Step {
    /// `W x` and `R h`, with mean and inverse deviation of their rows.
    px: Scratch,
    ph: Scratch,
    statistics_x: Scratch,
    statistics_h: Scratch,
    statistics_c: Scratch,
    /// h and c before the step, as tensors of their own; c after it.
    h: Scratch,
    c: Scratch,
    new_c: Scratch,
    /// What went into each gate's activation, and what came out; last of an LSTM the normalised c.
    before: Vec<Scratch>,
    after: Vec<Scratch>,
    /// The GRU's product with the state for its candidate.
    q: Scratch,
}

impl Step {
    fn new() -> Self {
        Step {
            px: Scratch::new(),
            ph: Scratch::new(),
            statistics_x: Scratch::new(),
            statistics_h: Scratch::new(),
            statistics_c: Scratch::new(),
            h: Scratch::new(),
            c: Scratch::new(),
            new_c: Scratch::new(),
            before: (0..5).map(|_| Scratch::new()).collect(),
            after: (0..5).map(|_| Scratch::new()).collect(),
            q: Scratch::new(),
        }
    }
}

/// Where the weights stand.
struct Places {
    weight_ih: Range<usize>,
    weight_hh: Range<usize>,
    bias_ih: Range<usize>,
    bias_hh: Range<usize>,
    gamma_x: Range<usize>,
    gamma_h: Range<usize>,
    gamma_c: Range<usize>,
    beta_c: Range<usize>,
}

impl Normalized {
    pub fn build(
        builder: &mut Builder,
        descriptor: &RnnDescriptor,
        unit_forget_bias: bool,
    ) -> Result<(Self, Range<usize>)> {
        if descriptor.reset == GruReset::Before {
            return Err(Error::unsupported(
                format!("layer_norm of {} with reset_after false", builder.name()),
                "the normalised GRU resets the product with the state; set reset_after",
            ));
        }
        let formula = match descriptor.cell {
            CellKind::Rnn if descriptor.heads == 1 => Formula::Rnn,
            CellKind::Lstm if descriptor.heads == 1 => Formula::Lstm,
            CellKind::Gru if descriptor.heads == 1 => Formula::Gru,
            _ => {
                return Err(Error::unsupported(
                    format!("layer_norm of {}", builder.name()),
                    "only the SimpleRNN, the LSTM and the GRU with one head have a normalised form",
                ));
            }
        };
        let cell = Normalized {
            cell: descriptor.cell,
            kind: formula,
            units: descriptor.hidden_size,
            features: descriptor.input_size,
            gate: descriptor.activations.gate,
            state: descriptor.activations.state,
            bias: descriptor.bias,
            unit_forget_bias,
            steps: Vec::new(),
            spare: (0..12).map(|_| Scratch::new()).collect(),
            workspace: Scratch::new(),
        };
        let range = cell::parameters(builder, &cell, descriptor.input_size)?;
        Ok((cell, range))
    }
}

impl Normalized {
    fn gates(&self) -> usize {
        self.cell.gates()
    }

    fn has_c(&self) -> bool {
        self.cell.has_cell_state()
    }

    fn places(&self) -> Places {
        let (rows, units) = (self.gates() * self.units, self.units);
        let mut end = 0;
        let mut next = |len: usize| {
            end += len;
            end - len..end
        };
        let count = |there: bool| if there { rows } else { 0 };
        let c = if self.has_c() { units } else { 0 };
        Places {
            weight_ih: next(rows * self.features),
            weight_hh: next(rows * units),
            bias_ih: next(count(self.bias == Bias::Double)),
            bias_hh: next(count(self.bias != Bias::None)),
            gamma_x: next(rows),
            gamma_h: next(rows),
            gamma_c: next(c),
            beta_c: next(c),
        }
    }

    /// Products with the weights: `[batch, width] [rows, width]ᵀ`, and its two derivatives.
    fn products(&self, batch: usize, width: usize) -> [MatMul; 3] {
        let rows = self.gates() * self.units;
        [
            MatMul::single(Orientation::Nt, batch, rows, width),
            MatMul::single(Orientation::Tn, rows, width, batch),
            MatMul::single(Orientation::Nn, batch, width, rows),
        ]
    }

    fn prepare(&mut self, device: &Device, batch: usize, step: usize) -> Result<()> {
        let (rows, units) = (self.gates() * self.units, self.units);
        while self.steps.len() <= step {
            self.steps.push(Step::new());
        }
        for spare in &mut self.spare {
            spare.grow(device, "scratch of a step", batch * rows.max(2))?;
        }
        let s = &mut self.steps[step];
        for (scratch, len) in [
            (&mut s.px, rows),
            (&mut s.ph, rows),
            (&mut s.statistics_x, 2),
            (&mut s.statistics_h, 2),
            (&mut s.statistics_c, 2),
            (&mut s.h, units),
            (&mut s.c, units),
            (&mut s.new_c, units),
            (&mut s.q, units),
        ] {
            scratch.grow(device, "scratch of a step", batch * len)?;
        }
        for scratch in s.before.iter_mut().chain(&mut s.after) {
            scratch.grow(device, "gates of a step", batch * units)?;
        }
        Ok(())
    }

    /// The function of gate number `gate`, in the operator's order.
    fn function(&self, gate: usize) -> Activation {
        match (self.kind, gate) {
            (Formula::Rnn, _) | (Formula::Lstm, 2 | 4) | (Formula::Gru, 2) => self.state,
            _ => self.gate,
        }
    }
}

/// A product with its workspace.
fn matmul(
    device: &Device,
    product: MatMul,
    a: TensorRef<'_>,
    b: TensorRef<'_>,
    c: TensorMut<'_>,
    grad: WeightGrad,
    workspace: &mut Scratch,
) -> Result<()> {
    let workspace = workspace.for_call(device, Workspace::MatMul(product))?;
    device.matmul(product, 1.0, a, b, c, grad, workspace)
}

impl Cell for Normalized {
    fn output_size(&self) -> usize {
        self.units
    }

    fn state_size(&self) -> usize {
        if self.has_c() { 2 * self.units } else { self.units }
    }

    fn parameters(&self, input_size: usize) -> Vec<(String, Vec<usize>, Init)> {
        let (rows, units) = (self.gates() * self.units, self.units);
        let name = |name: &str| name.to_owned();
        let glorot = Init::GlorotUniform { fan_in: input_size, fan_out: rows };
        let mut all = vec![
            (name("weight_ih_l0"), vec![rows, input_size], glorot),
            (name("weight_hh_l0"), vec![rows, units], Init::Orthogonal),
        ];
        let bias = if self.unit_forget_bias { Init::OnesIn(units..2 * units) } else { Init::Constant(0.0) };
        match self.bias {
            Bias::None => {}
            Bias::Single => all.push((name("bias_ih_l0"), vec![rows], bias)),
            Bias::Double => {
                all.push((name("bias_ih_l0"), vec![rows], bias));
                all.push((name("bias_hh_l0"), vec![rows], Init::Constant(0.0)));
            }
        }
        all.push((name("gamma_ih"), vec![rows], Init::Constant(1.0)));
        all.push((name("gamma_hh"), vec![rows], Init::Constant(1.0)));
        if self.has_c() {
            all.push((name("gamma_c"), vec![units], Init::Constant(1.0)));
            all.push((name("beta_c"), vec![units], Init::Constant(0.0)));
        }
        all
    }

    fn forward(&mut self, device: &Device, mut step: CellForward<'_>) -> Result<()> {
        let batch = step.batch;
        self.prepare(device, batch, step.step)?;
        let (rows, units, places) = (self.gates() * self.units, self.units, self.places());
        let (len, whole) = (batch * units, batch * rows);
        let (own, has_c) = (Columns::all(units), self.has_c());
        let functions: [Activation; 5] = from_fn(|gate| self.function(gate));
        let [products_x, products_h] = [self.products(batch, self.features), self.products(batch, units)];
        let (kind, gates, state_size) = (self.kind, self.gates(), self.state_size());
        let state = |part: usize| Columns { width: state_size, first: part * units };
        let weight = |range: &Range<usize>| step.parameters.part(range.clone());
        let bias = |range: &Range<usize>| if range.is_empty() { Ok(None) } else { weight(range).map(Some) };
        let Normalized { steps, spare, workspace, .. } = self;
        let s = &mut steps[step.step];
        copy_columns(device, units, step.state, state(0), s.h.get_mut(len)?, own)?;
        if has_c {
            copy_columns(device, units, step.state, state(1), s.c.get_mut(len)?, own)?;
        }
        let h = s.h.get(len)?;
        let (weight_ih, weight_hh) = (weight(&places.weight_ih)?, weight(&places.weight_hh)?);
        matmul(device, products_x[0], step.x, weight_ih, s.px.get_mut(whole)?, WeightGrad::Set, workspace)?;
        matmul(device, products_h[0], h, weight_hh, s.ph.get_mut(whole)?, WeightGrad::Set, workspace)?;
        let [p, q, sum, n, ..] = &mut spare[..] else { return Ok(()) };
        for (product, gamma, beta, normal, statistics) in [
            (&s.px, &places.gamma_x, &places.bias_ih, &mut *p, &mut s.statistics_x),
            (&s.ph, &places.gamma_h, &places.bias_hh, &mut *q, &mut s.statistics_h),
        ] {
            let (gamma, beta) = (Some(weight(gamma)?), bias(beta)?);
            let (product, normal, statistics) =
                (product.get(whole)?, normal.get_mut(whole)?, statistics.get_mut(2 * batch)?);
            device.layer_norm(rows, EPSILON, product, gamma, beta, normal, statistics)?;
        }
        let (p, q) = (p.get(whole)?, q.get(whole)?);
        device.copy(p, sum.get_mut(whole)?)?;
        device.scale_add(1.0, q, 1.0, sum.get_mut(whole)?)?;
        let block = |gate: usize| Columns { width: rows, first: gate * units };
        for gate in 0..gates {
            if (kind, gate) == (Formula::Gru, 2) {
                // p_n + r q_n, r being there by now.
                copy_columns(device, units, q, block(2), s.q.get_mut(len)?, own)?;
                device.multiply(s.after[0].get(len)?, s.q.get(len)?, s.before[2].get_mut(len)?)?;
                copy_columns(device, units, p, block(2), n.get_mut(len)?, own)?;
                device.scale_add(1.0, n.get(len)?, 1.0, s.before[2].get_mut(len)?)?;
            } else {
                copy_columns(device, units, sum.get(whole)?, block(gate), s.before[gate].get_mut(len)?, own)?;
            }
            let mut after = s.after[gate].get_mut(len)?;
            device.copy(s.before[gate].get(len)?, after.reborrow())?;
            device.add_bias_activate(functions[gate], None, after, None)?;
        }
        let mut new_h = n.get_mut(len)?;
        match kind {
            Formula::Rnn => device.copy(s.after[0].get(len)?, new_h.reborrow())?,
            Formula::Gru => {
                // n + z (h - n)
                let candidate = s.after[2].get(len)?;
                let mut difference = s.before[3].get_mut(len)?;
                device.copy(h, difference.reborrow())?;
                device.scale_add(-1.0, candidate, 1.0, difference.reborrow())?;
                device.multiply(s.after[1].get(len)?, difference.view(), new_h.reborrow())?;
                device.scale_add(1.0, candidate, 1.0, new_h.reborrow())?;
            }
            Formula::Lstm => {
                let (mut new_c, mut product) = (s.new_c.get_mut(len)?, sum.get_mut(len)?);
                device.multiply(s.after[1].get(len)?, s.c.get(len)?, new_c.reborrow())?;
                device.multiply(s.after[0].get(len)?, s.after[2].get(len)?, product.reborrow())?;
                device.scale_add(1.0, product.view(), 1.0, new_c)?;
                let new_c = s.new_c.get(len)?;
                let (gamma, beta) = (Some(weight(&places.gamma_c)?), Some(weight(&places.beta_c)?));
                let (mut normal, statistics) = (s.before[4].get_mut(len)?, s.statistics_c.get_mut(2 * batch)?);
                device.layer_norm(units, EPSILON, new_c, gamma, beta, normal.reborrow(), statistics)?;
                let mut after = s.after[4].get_mut(len)?;
                device.copy(normal.view(), after.reborrow())?;
                device.add_bias_activate(functions[4], None, after, None)?;
                device.multiply(s.after[3].get(len)?, s.after[4].get(len)?, new_h.reborrow())?;
                copy_columns(device, units, new_c, own, step.new_state.reborrow(), state(1))?;
            }
        }
        copy_columns(device, units, new_h.view(), own, step.new_state, state(0))
    }

    fn backward(&mut self, device: &Device, mut step: CellBackward<'_>) -> Result<()> {
        let batch = step.batch;
        self.prepare(device, batch, step.step)?;
        let (rows, units, places) = (self.gates() * self.units, self.units, self.places());
        let (len, whole) = (batch * units, batch * rows);
        let (kind, state_size) = (self.kind, self.state_size());
        let functions: [Activation; 5] = from_fn(|gate| self.function(gate));
        let [products_x, products_h] = [self.products(batch, self.features), self.products(batch, units)];
        let state = |part: usize| Columns { width: state_size, first: part * units };
        let own = Columns::all(units);
        let block = |gate: usize| Columns { width: rows, first: gate * units };
        let Normalized { steps, spare, workspace, .. } = self;
        let s = &steps[step.step];
        let [dh, dc, da, part, dp, dq, dpx, dph, dh0, dc0, ..] = &mut spare[..] else { return Ok(()) };
        copy_columns(device, units, step.dnew_state, state(0), dh.get_mut(len)?, own)?;
        let dh = dh.get(len)?;
        device.fill(dh0.get_mut(len)?, 0.0)?;
        // The derivative of an activation, from what went in or came out.
        let slope = |gate: usize, dy: TensorRef<'_>, dx: TensorMut<'_>| {
            let from = if functions[gate].derivative_needs_input() { &s.before[gate] } else { &s.after[gate] };
            device.activation_gradient(functions[gate], dy, from.get(len)?, dx)
        };
        let after = |gate: usize| s.after[gate].get(len);
        // Gradients of p + q, gate by gate, into dp; dq is the same but for the GRU's candidate.
        let mut of_gate = |gate: usize, dy: TensorRef<'_>, da: &mut Scratch| {
            slope(gate, dy, da.get_mut(len)?)?;
            copy_columns(device, units, da.get(len)?, own, dp.get_mut(whole)?, block(gate))
        };
        let mut product = part.get_mut(len)?;
        match kind {
            Formula::Rnn => of_gate(0, dh, da)?,
            Formula::Gru => {
                // h' = n + z (h - n), a_n = p_n + r q_n; h - n stands in before[3].
                device.multiply(dh, s.before[3].get(len)?, product.reborrow())?;
                of_gate(1, product.view(), da)?;
                device.multiply(dh, after(1)?, dh0.get_mut(len)?)?;
                // dn = dh - dh z
                device.copy(dh, product.reborrow())?;
                device.scale_add(-1.0, dh0.get(len)?, 1.0, product.reborrow())?;
                of_gate(2, product.view(), da)?;
                // What da_n gives r, and q_n.
                let dan = da.get(len)?;
                device.multiply(dan, s.q.get(len)?, product.reborrow())?;
                device.multiply(dan, after(0)?, dc.get_mut(len)?)?;
                of_gate(0, product.view(), da)?;
            }
            Formula::Lstm => {
                device.multiply(dh, after(4)?, product.reborrow())?;
                of_gate(3, product.view(), da)?;
                // Through the output's activation and the normalisation into c.
                device.multiply(dh, after(3)?, product.reborrow())?;
                slope(4, product.view(), da.get_mut(len)?)?;
                let range = places.gamma_c.start..places.beta_c.end;
                let (dgamma, dbeta) = step.dparameters.reborrow().part(range)?.split_at(units)?;
                let call = Workspace::Normalization { rows: batch, columns: units };
                device.layer_norm_gradient(
                    units,
                    s.new_c.get(len)?,
                    Some(step.parameters.part(places.gamma_c.clone())?),
                    s.statistics_c.get(2 * batch)?,
                    da.get(len)?,
                    Some(dc.get_mut(len)?),
                    Some(dgamma),
                    Some(dbeta),
                    WeightGrad::Add,
                    workspace.for_call(device, call)?,
                )?;
                copy_columns(device, units, step.dnew_state, state(1), product.reborrow(), own)?;
                device.scale_add(1.0, product.view(), 1.0, dc.get_mut(len)?)?;
                let dc = dc.get(len)?;
                for (gate, factor) in [(0, after(2)?), (2, after(0)?), (1, s.c.get(len)?)] {
                    device.multiply(dc, factor, product.reborrow())?;
                    of_gate(gate, product.view(), da)?;
                }
                device.multiply(dc, after(1)?, dc0.get_mut(len)?)?;
                copy_columns(device, units, dc0.get(len)?, own, step.dstate.reborrow(), state(1))?;
            }
        }
        let dp = dp.get(whole)?;
        device.copy(dp, dq.get_mut(whole)?)?;
        if kind == Formula::Gru {
            copy_columns(device, units, dc.get(len)?, own, dq.get_mut(whole)?, block(2))?;
        }
        let dq = dq.get(whole)?;
        for (x, gamma, statistics, dy, bias, dx) in [
            (&s.px, &places.gamma_x, &s.statistics_x, dp, &places.bias_ih, &mut *dpx),
            (&s.ph, &places.gamma_h, &s.statistics_h, dq, &places.bias_hh, &mut *dph),
        ] {
            let call = Workspace::Normalization { rows: batch, columns: rows };
            device.layer_norm_gradient(
                rows,
                x.get(whole)?,
                Some(step.parameters.part(gamma.clone())?),
                statistics.get(2 * batch)?,
                dy,
                Some(dx.get_mut(whole)?),
                Some(step.dparameters.reborrow().part(gamma.clone())?),
                None,
                WeightGrad::Add,
                workspace.for_call(device, call)?,
            )?;
            if !bias.is_empty() {
                let (sizes, dbias) = ([1, batch, rows], step.dparameters.reborrow().part(bias.clone())?);
                let workspace = workspace.for_call(device, Workspace::SumAxis(sizes))?;
                device.sum_axis(sizes, 1.0, dy, dbias, WeightGrad::Add, workspace)?;
            }
        }
        let (h, dpx, dph) = (s.h.get(len)?, dpx.get(whole)?, dph.get(whole)?);
        for (d, value, products, range) in
            [(dpx, step.x, products_x, &places.weight_ih), (dph, h, products_h, &places.weight_hh)]
        {
            let dweight = step.dparameters.reborrow().part(range.clone())?;
            matmul(device, products[1], d, value, dweight, WeightGrad::Add, workspace)?;
        }
        let weight_ih = step.parameters.part(places.weight_ih.clone())?;
        matmul(device, products_x[2], dpx, weight_ih, step.dx, WeightGrad::Set, workspace)?;
        let weight_hh = step.parameters.part(places.weight_hh.clone())?;
        matmul(device, products_h[2], dph, weight_hh, dh0.get_mut(len)?, WeightGrad::Add, workspace)?;
        copy_columns(device, units, dh0.get(len)?, own, step.dstate, state(0))
    }
}
