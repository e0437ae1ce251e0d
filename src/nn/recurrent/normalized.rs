//! Layer-normalised cells.

use std::ops::Range;

use crate::backend::dense::{Columns, DenseCall, Orientation, Product};
use crate::backend::{DenseBackend, WeightGrad};
use crate::cell::{Activation, CellKind};
use crate::error::{Error, Result};
use crate::nn::Scratch;
use crate::nn::builder::{Builder, Init};
use crate::nn::recurrent::cell::{self, Cell, CellBackward, CellForward};
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
pub(super) struct Normalized<B: DenseBackend> {
    kind: CellKind,
    units: usize,
    features: usize,
    gate: Activation,
    state: Activation,
    bias: Bias,
    unit_forget_bias: bool,
    steps: Vec<Step<B>>,
    spare: Vec<Scratch<B>>,
    workspace: Scratch<B>,
}

/// Tensors of one step, `[batch, …]`.
struct Step<B: DenseBackend> {
    /// `W x` and `R h`, with mean and inverse deviation of their rows.
    px: Scratch<B>,
    ph: Scratch<B>,
    statistics_x: Scratch<B>,
    statistics_h: Scratch<B>,
    statistics_c: Scratch<B>,
    /// h and c before the step, as tensors of their own; c after it.
    h: Scratch<B>,
    c: Scratch<B>,
    new_c: Scratch<B>,
    /// What went into each gate's activation, and what came out; last of an LSTM the normalised c.
    before: Vec<Scratch<B>>,
    after: Vec<Scratch<B>>,
    /// The GRU's product with the state for its candidate.
    q: Scratch<B>,
}

impl<B: DenseBackend> Step<B> {
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

impl<B: DenseBackend + 'static> Normalized<B> {
    pub fn build(
        builder: &mut Builder<B>,
        descriptor: &RnnDescriptor,
        unit_forget_bias: bool,
    ) -> Result<(Self, Range<usize>)> {
        if descriptor.reset == GruReset::Before {
            return Err(Error::unsupported(
                format!("layer_norm of {} with reset_after false", builder.name()),
                "the normalised GRU resets the product with the state; set reset_after",
            ));
        }
        let cell = Normalized {
            kind: descriptor.cell,
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

impl<B: DenseBackend> Normalized<B> {
    fn gates(&self) -> usize {
        self.kind.gates()
    }

    fn has_c(&self) -> bool {
        self.kind.has_cell_state()
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
    fn products(&self, batch: usize, width: usize) -> [Product; 3] {
        let rows = self.gates() * self.units;
        [
            Product { orientation: Orientation::Nt, m: batch, n: rows, k: width },
            Product { orientation: Orientation::Tn, m: rows, n: width, k: batch },
            Product { orientation: Orientation::Nn, m: batch, n: width, k: rows },
        ]
    }

    fn prepare(&mut self, backend: &B, batch: usize, step: usize) -> Result<()> {
        let (rows, units) = (self.gates() * self.units, self.units);
        while self.steps.len() <= step {
            self.steps.push(Step::new());
        }
        let mut most = backend.dense_workspace(DenseCall::Normalization { rows: batch, columns: rows });
        for width in [self.features, units] {
            for product in self.products(batch, width) {
                most = most.max(backend.dense_workspace(DenseCall::Gemm(product)));
            }
        }
        self.workspace.grow(backend, "workspace", most)?;
        for spare in &mut self.spare {
            spare.grow(backend, "scratch of a step", batch * rows.max(2))?;
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
            scratch.grow(backend, "scratch of a step", batch * len)?;
        }
        for scratch in s.before.iter_mut().chain(&mut s.after) {
            scratch.grow(backend, "gates of a step", batch * units)?;
        }
        Ok(())
    }

    /// The function of gate number `gate`, in the operator's order.
    fn function(&self, gate: usize) -> Activation {
        match (self.kind, gate) {
            (CellKind::Rnn, _) | (CellKind::Lstm, 2 | 4) | (CellKind::Gru, 2) => self.state,
            _ => self.gate,
        }
    }
}

/// A part of the weights, or none where it is empty.
macro_rules! weights {
    ($backend:expr, $view:ident, $tensor:expr, $range:expr) => {
        if $range.is_empty() { None } else { Some($backend.$view($tensor, $range.clone())?) }
    };
}

impl<B: DenseBackend> Cell<B> for Normalized<B> {
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

    fn forward(&mut self, backend: &B, step: CellForward<'_, B>) -> Result<()> {
        let batch = step.batch;
        self.prepare(backend, batch, step.step)?;
        let (rows, units, places) = (self.gates() * self.units, self.units, self.places());
        let (len, whole) = (batch * units, batch * rows);
        let (own, has_c) = (Columns { width: units, first: 0 }, self.has_c());
        let functions: Vec<Activation> = (0..5).map(|gate| self.function(gate)).collect();
        let [products_x, products_h] = [self.products(batch, self.features), self.products(batch, units)];
        let (kind, gates, state_size) = (self.kind, self.gates(), self.state_size());
        let state = |part: usize| Columns { width: state_size, first: part * units };
        let Normalized { steps, spare, workspace, .. } = self;
        let s = &mut steps[step.step];
        backend.copy_columns(units, step.state, state(0), &mut *s.h.get_mut(backend, len)?, own)?;
        if has_c {
            backend.copy_columns(units, step.state, state(1), &mut *s.c.get_mut(backend, len)?, own)?;
        }
        let h = s.h.get(backend, len)?;
        let weight = |range: &Range<usize>| backend.view(step.parameters, range.clone());
        backend.gemm(
            products_x[0],
            step.x,
            &*weight(&places.weight_ih)?,
            &mut *s.px.get_mut(backend, whole)?,
            WeightGrad::Set,
            workspace.all()?,
        )?;
        backend.gemm(
            products_h[0],
            &h,
            &*weight(&places.weight_hh)?,
            &mut *s.ph.get_mut(backend, whole)?,
            WeightGrad::Set,
            workspace.all()?,
        )?;
        let [p, q, sum, n, ..] = &mut spare[..] else { return Ok(()) };
        let bias_x = weights!(backend, view, step.parameters, places.bias_ih);
        let bias_h = weights!(backend, view, step.parameters, places.bias_hh);
        backend.layer_norm(
            rows,
            EPSILON,
            &*s.px.get(backend, whole)?,
            Some(&*weight(&places.gamma_x)?),
            bias_x.as_deref(),
            &mut *p.get_mut(backend, whole)?,
            &mut *s.statistics_x.get_mut(backend, 2 * batch)?,
        )?;
        backend.layer_norm(
            rows,
            EPSILON,
            &*s.ph.get(backend, whole)?,
            Some(&*weight(&places.gamma_h)?),
            bias_h.as_deref(),
            &mut *q.get_mut(backend, whole)?,
            &mut *s.statistics_h.get_mut(backend, 2 * batch)?,
        )?;
        let (p, q) = (p.get(backend, whole)?, q.get(backend, whole)?);
        backend.add(&p, &q, &mut *sum.get_mut(backend, whole)?)?;
        let block = |gate: usize| Columns { width: rows, first: gate * units };
        for gate in 0..gates {
            if (kind, gate) == (CellKind::Gru, 2) {
                // p_n + r q_n, r being there by now.
                backend.copy_columns(units, &q, block(2), &mut *s.q.get_mut(backend, len)?, own)?;
                let mut product = s.before[2].get_mut(backend, len)?;
                backend.multiply(&*s.after[0].get(backend, len)?, &*s.q.get(backend, len)?, &mut product)?;
                let mut own_p = n.get_mut(backend, len)?;
                backend.copy_columns(units, &p, block(2), &mut own_p, own)?;
                backend.scale_add(1.0, &own_p, 1.0, &mut product)?;
            } else {
                let sum = sum.get(backend, whole)?;
                backend.copy_columns(units, &sum, block(gate), &mut *s.before[gate].get_mut(backend, len)?, own)?;
            }
            let mut after = s.after[gate].get_mut(backend, len)?;
            backend.copy(&*s.before[gate].get(backend, len)?, &mut after)?;
            backend.add_bias_activate(functions[gate], None, &mut after, None)?;
        }
        let mut new_h = n.get_mut(backend, len)?;
        match kind {
            CellKind::Rnn => backend.copy(&*s.after[0].get(backend, len)?, &mut new_h)?,
            CellKind::Gru => {
                // n + z (h - n)
                let candidate = s.after[2].get(backend, len)?;
                let mut difference = s.before[3].get_mut(backend, len)?;
                backend.copy(&h, &mut difference)?;
                backend.scale_add(-1.0, &candidate, 1.0, &mut difference)?;
                drop(difference);
                backend.multiply(&*s.after[1].get(backend, len)?, &*s.before[3].get(backend, len)?, &mut new_h)?;
                backend.scale_add(1.0, &candidate, 1.0, &mut new_h)?;
            }
            CellKind::Lstm => {
                let c = s.c.get(backend, len)?;
                let mut new_c = s.new_c.get_mut(backend, len)?;
                backend.multiply(&*s.after[1].get(backend, len)?, &c, &mut new_c)?;
                let mut product = sum.get_mut(backend, len)?;
                let (i, g) = (s.after[0].get(backend, len)?, s.after[2].get(backend, len)?);
                backend.multiply(&i, &g, &mut product)?;
                backend.scale_add(1.0, &product, 1.0, &mut new_c)?;
                drop((product, new_c, i, g));
                let new_c = s.new_c.get(backend, len)?;
                backend.layer_norm(
                    units,
                    EPSILON,
                    &new_c,
                    Some(&*weight(&places.gamma_c)?),
                    Some(&*weight(&places.beta_c)?),
                    &mut *s.before[4].get_mut(backend, len)?,
                    &mut *s.statistics_c.get_mut(backend, 2 * batch)?,
                )?;
                let mut after = s.after[4].get_mut(backend, len)?;
                backend.copy(&*s.before[4].get(backend, len)?, &mut after)?;
                backend.add_bias_activate(functions[4], None, &mut after, None)?;
                drop(after);
                backend.multiply(&*s.after[3].get(backend, len)?, &*s.after[4].get(backend, len)?, &mut new_h)?;
                backend.copy_columns(units, &new_c, own, step.new_state, state(1))?;
            }
        }
        backend.copy_columns(units, &new_h, own, step.new_state, state(0))
    }

    fn backward(&mut self, backend: &B, step: CellBackward<'_, B>) -> Result<()> {
        let batch = step.batch;
        self.prepare(backend, batch, step.step)?;
        let (rows, units, places) = (self.gates() * self.units, self.units, self.places());
        let (len, whole) = (batch * units, batch * rows);
        let (kind, state_size) = (self.kind, self.state_size());
        let functions: Vec<Activation> = (0..5).map(|gate| self.function(gate)).collect();
        let [products_x, products_h] = [self.products(batch, self.features), self.products(batch, units)];
        let state = |part: usize| Columns { width: state_size, first: part * units };
        let own = Columns { width: units, first: 0 };
        let block = |gate: usize| Columns { width: rows, first: gate * units };
        let Normalized { steps, spare, workspace, .. } = self;
        let s = &steps[step.step];
        let [dh, dc, da, part, dp, dq, dpx, dph, dh0, dc0, ..] = &mut spare[..] else { return Ok(()) };
        backend.copy_columns(units, step.dnew_state, state(0), &mut *dh.get_mut(backend, len)?, own)?;
        let dh = dh.get(backend, len)?;
        backend.fill(&mut *dh0.get_mut(backend, len)?, 0.0)?;
        // The derivative of an activation, from what went in or came out.
        let slope = |gate: usize, dy: &B::Buffer, dx: &mut B::Buffer| {
            let from = if functions[gate].derivative_needs_input() { &s.before[gate] } else { &s.after[gate] };
            backend.activation_gradient(functions[gate], dy, &*from.get(backend, len)?, dx)
        };
        let after = |gate: usize| s.after[gate].get(backend, len);
        // Gradients of p + q, gate by gate, into dp; dq is the same but for the GRU's candidate.
        macro_rules! gate {
            ($gate:expr, $dy:expr) => {{
                let mut da = da.get_mut(backend, len)?;
                slope($gate, $dy, &mut da)?;
                backend.copy_columns(units, &da, own, &mut *dp.get_mut(backend, whole)?, block($gate))?;
            }};
        }
        match kind {
            CellKind::Rnn => gate!(0, &dh),
            CellKind::Gru => {
                // h' = n + z (h - n), a_n = p_n + r q_n; h - n stands in before[3].
                let mut product = part.get_mut(backend, len)?;
                backend.multiply(&dh, &*s.before[3].get(backend, len)?, &mut product)?;
                gate!(1, &product);
                backend.multiply(&dh, &*after(1)?, &mut *dh0.get_mut(backend, len)?)?;
                // dn = dh - dh z
                backend.copy(&dh, &mut product)?;
                backend.scale_add(-1.0, &*dh0.get(backend, len)?, 1.0, &mut product)?;
                gate!(2, &product);
                let dan = da.get(backend, len)?;
                // What da_n gives r, and q_n.
                backend.multiply(&dan, &*s.q.get(backend, len)?, &mut product)?;
                let mut dqn = dc.get_mut(backend, len)?;
                backend.multiply(&dan, &*after(0)?, &mut dqn)?;
                drop(dan);
                gate!(0, &product);
            }
            CellKind::Lstm => {
                let mut product = part.get_mut(backend, len)?;
                backend.multiply(&dh, &*after(4)?, &mut product)?;
                gate!(3, &product);
                // Through the output's activation and the normalisation into c.
                backend.multiply(&dh, &*after(3)?, &mut product)?;
                let mut dnormal = da.get_mut(backend, len)?;
                slope(4, &product, &mut dnormal)?;
                let mut dgamma = backend.view_mut(step.dparameters, places.gamma_c.start..places.beta_c.end)?;
                let (mut dgamma_c, mut dbeta_c) = backend.split_mut(&mut dgamma, units)?;
                backend.layer_norm_gradient(
                    units,
                    &*s.new_c.get(backend, len)?,
                    Some(&*backend.view(step.parameters, places.gamma_c.clone())?),
                    &*s.statistics_c.get(backend, 2 * batch)?,
                    &dnormal,
                    Some(&mut *dc.get_mut(backend, len)?),
                    Some(&mut *dgamma_c),
                    Some(&mut *dbeta_c),
                    WeightGrad::Add,
                    workspace.all()?,
                )?;
                drop((dgamma_c, dbeta_c));
                drop(dgamma);
                drop(dnormal);
                backend.copy_columns(units, step.dnew_state, state(1), &mut product, own)?;
                backend.scale_add(1.0, &product, 1.0, &mut *dc.get_mut(backend, len)?)?;
                let dc = dc.get(backend, len)?;
                backend.multiply(&dc, &*after(2)?, &mut product)?;
                gate!(0, &product);
                backend.multiply(&dc, &*after(0)?, &mut product)?;
                gate!(2, &product);
                backend.multiply(&dc, &*s.c.get(backend, len)?, &mut product)?;
                gate!(1, &product);
                let mut before = dc0.get_mut(backend, len)?;
                backend.multiply(&dc, &*after(1)?, &mut before)?;
                backend.copy_columns(units, &before, own, step.dstate, state(1))?;
            }
        }
        let dp = dp.get(backend, whole)?;
        backend.copy(&dp, &mut *dq.get_mut(backend, whole)?)?;
        if kind == CellKind::Gru {
            let dqn = dc.get(backend, len)?;
            backend.copy_columns(units, &dqn, own, &mut *dq.get_mut(backend, whole)?, block(2))?;
        }
        let dq = dq.get(backend, whole)?;
        for (x, gamma, statistics, dy, bias, dx) in [
            (&s.px, &places.gamma_x, &s.statistics_x, &dp, &places.bias_ih, &mut *dpx),
            (&s.ph, &places.gamma_h, &s.statistics_h, &dq, &places.bias_hh, &mut *dph),
        ] {
            backend.layer_norm_gradient(
                rows,
                &*x.get(backend, whole)?,
                Some(&*backend.view(step.parameters, gamma.clone())?),
                &*statistics.get(backend, 2 * batch)?,
                dy,
                Some(&mut *dx.get_mut(backend, whole)?),
                Some(&mut *backend.view_mut(step.dparameters, gamma.clone())?),
                None,
                WeightGrad::Add,
                workspace.all()?,
            )?;
            if !bias.is_empty() {
                let mut dbias = backend.view_mut(step.dparameters, bias.clone())?;
                backend.column_sums(dy, &mut dbias, WeightGrad::Add, workspace.all()?)?;
            }
        }
        let h = s.h.get(backend, len)?;
        let (dpx, dph) = (dpx.get(backend, whole)?, dph.get(backend, whole)?);
        for (d, value, products, weight) in
            [(&dpx, step.x, products_x, &places.weight_ih), (&dph, &*h, products_h, &places.weight_hh)]
        {
            let mut dweight = backend.view_mut(step.dparameters, weight.clone())?;
            backend.gemm(products[1], d, value, &mut dweight, WeightGrad::Add, workspace.all()?)?;
        }
        let weight = backend.view(step.parameters, places.weight_ih.clone())?;
        backend.gemm(products_x[2], &dpx, &weight, step.dx, WeightGrad::Set, workspace.all()?)?;
        let weight = backend.view(step.parameters, places.weight_hh.clone())?;
        let mut dh0 = dh0.get_mut(backend, len)?;
        backend.gemm(products_h[2], &dph, &weight, &mut dh0, WeightGrad::Add, workspace.all()?)?;
        backend.copy_columns(units, &dh0, own, step.dstate, state(0))
    }
}
