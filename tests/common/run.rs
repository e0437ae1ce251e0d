//! A pass through the trait itself, with every buffer and its initial content in the test's hands.

use fused_rnn::Result;
use fused_rnn::backend::pass::{Inputs, OutputGradients};
use fused_rnn::backend::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, HostBackend, Reserve, WeightGrad,
};
use fused_rnn::rnn::{RnnDescriptor, RnnShape, WeightLayout};

use super::Number;
use super::truth::{Named, split_weights};

/// What stands in the buffers before, how large they are, and which optional results are asked for.
#[derive(Clone, Debug)]
pub struct Setup<E> {
    /// In every output and gradient before the call that sets it.
    pub outputs: E,
    /// In the workspace before every call.
    pub workspace: E,
    /// In the reserve before forward.
    pub reserve: E,
    /// Elements of workspace and reserve beyond what is needed.
    pub extra: usize,
    /// Whether `hn`, `cn` are asked for.
    pub finals: bool,
    /// Whether `dx` is asked for.
    pub dx: bool,
    /// Whether `dh0`, `dc0` are asked for.
    pub initials: bool,
    /// Gradients of the weights that stand there already, to be added to.
    pub add_to: Option<Vec<E>>,
}

impl<E: Number> Default for Setup<E> {
    fn default() -> Self {
        Setup {
            outputs: E::nan(),
            workspace: E::nan(),
            reserve: E::nan(),
            extra: 0,
            finals: true,
            dx: true,
            initials: true,
            add_to: None,
        }
    }
}

/// Forward in inference.
pub fn infer<E: Number, B: HostBackend<E>>(
    backend: &B,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    inputs: &Inputs<E>,
    setup: &Setup<E>,
) -> Result<Named<E>> {
    let plan = backend.plan(descriptor, shape, ForwardMode::Inference)?;
    let space = backend.temp_space(&plan);
    assert_eq!(space.reserve, 0, "inference needs no reserve");
    let mut buffers = Buffers::new(descriptor, shape, setup)?;
    let mut workspace = vec![setup.workspace; space.workspace + setup.extra];
    backend.forward(&plan, buffers.forward::<B>(inputs, &mut workspace))?;
    Ok(buffers.outputs())
}

/// Training forward and both backward passes.
pub fn train<E: Number, B: HostBackend<E>>(
    backend: &B,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    inputs: &Inputs<E>,
    gradients: &OutputGradients<E>,
    setup: &Setup<E>,
) -> Result<Named<E>> {
    let plan = backend.plan(descriptor, shape, ForwardMode::Training)?;
    let space = backend.temp_space(&plan);
    let mut buffers = Buffers::new(descriptor, shape, setup)?;
    let mut workspace = vec![setup.workspace; space.workspace + setup.extra];
    let reserve = Reserve::new(vec![setup.reserve; space.reserve + setup.extra]);
    let reserve = backend.forward_training(&plan, buffers.forward::<B>(inputs, &mut workspace), reserve)?;
    workspace.fill(setup.workspace);
    let mut reserve =
        backend.backward_data(&plan, buffers.backward_data::<B>(inputs, gradients, &mut workspace), reserve)?;
    workspace.fill(setup.workspace);
    let grad = if setup.add_to.is_some() { WeightGrad::Add } else { WeightGrad::Set };
    backend.backward_weights(&plan, buffers.backward_weights::<B>(inputs, &mut workspace), &mut reserve, grad)?;
    let mut all = buffers.outputs();
    all.extend(buffers.dx.map(|v| ("dx".to_owned(), v)));
    all.extend(buffers.dh0.map(|v| ("dh0".to_owned(), v)));
    all.extend(buffers.dc0.map(|v| ("dc0".to_owned(), v)));
    all.extend(split_weights(descriptor, &buffers.dweights));
    Ok(all)
}

/// Everything that a pass writes.
pub struct Buffers<E> {
    pub y: Vec<E>,
    pub hn: Option<Vec<E>>,
    pub cn: Option<Vec<E>>,
    pub dx: Option<Vec<E>>,
    pub dh0: Option<Vec<E>>,
    pub dc0: Option<Vec<E>>,
    pub dweights: Vec<E>,
}

impl<E: Number> Buffers<E> {
    pub fn new(descriptor: &RnnDescriptor, shape: RnnShape, setup: &Setup<E>) -> Result<Self> {
        let tensors = shape.tensors(descriptor)?;
        let filled = |sizes: &[usize]| vec![setup.outputs; sizes.iter().product()];
        let cell_state = |wanted: bool| (wanted && descriptor.cell.has_cell_state()).then(|| filled(&tensors.c));
        Ok(Buffers {
            y: filled(&tensors.y),
            hn: setup.finals.then(|| filled(&tensors.h)),
            cn: cell_state(setup.finals),
            dx: setup.dx.then(|| filled(&tensors.x)),
            dh0: setup.initials.then(|| filled(&tensors.h)),
            dc0: cell_state(setup.initials),
            dweights: match &setup.add_to {
                Some(start) => start.clone(),
                None => filled(&[WeightLayout::new(descriptor)?.len()]),
            },
        })
    }

    pub fn forward<'a, B: HostBackend<E>>(
        &'a mut self,
        inputs: &'a Inputs<E>,
        workspace: &'a mut [E],
    ) -> ForwardArgs<'a, B> {
        ForwardArgs::<B>::new(&inputs.weights, &inputs.x, &mut self.y, workspace)
            .h0(inputs.h0.as_deref())
            .c0(inputs.c0.as_deref())
            .lengths(inputs.lengths.as_deref())
            .resets(inputs.resets.as_deref())
            .hn(self.hn.as_deref_mut())
            .cn(self.cn.as_deref_mut())
            .dropout_seed(inputs.dropout_seed)
    }

    pub fn backward_data<'a, B: HostBackend<E>>(
        &'a mut self,
        inputs: &'a Inputs<E>,
        gradients: &'a OutputGradients<E>,
        workspace: &'a mut [E],
    ) -> BackwardDataArgs<'a, B> {
        BackwardDataArgs::<B>::new(&inputs.weights, &inputs.x, &self.y, workspace)
            .h0(inputs.h0.as_deref())
            .c0(inputs.c0.as_deref())
            .lengths(inputs.lengths.as_deref())
            .resets(inputs.resets.as_deref())
            .dy(gradients.dy.as_deref())
            .dhn(gradients.dhn.as_deref())
            .dcn(gradients.dcn.as_deref())
            .dx(self.dx.as_deref_mut())
            .dh0(self.dh0.as_deref_mut())
            .dc0(self.dc0.as_deref_mut())
    }

    pub fn backward_weights<'a, B: HostBackend<E>>(
        &'a mut self,
        inputs: &'a Inputs<E>,
        workspace: &'a mut [E],
    ) -> BackwardWeightsArgs<'a, B> {
        BackwardWeightsArgs::<B>::new(&inputs.x, &self.y, &mut self.dweights, workspace)
            .h0(inputs.h0.as_deref())
            .c0(inputs.c0.as_deref())
            .lengths(inputs.lengths.as_deref())
            .resets(inputs.resets.as_deref())
    }

    fn outputs(&self) -> Named<E> {
        let mut all = vec![("y".to_owned(), self.y.clone())];
        all.extend(self.hn.clone().map(|v| ("hn".to_owned(), v)));
        all.extend(self.cn.clone().map(|v| ("cn".to_owned(), v)));
        all
    }
}

/// Whether two results have the same tensors with the same bits.
pub fn same_bits<E: Number>(what: &str, a: &Named<E>, b: &Named<E>) -> Result<(), String> {
    let names = |named: &Named<E>| named.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    if names(a) != names(b) {
        return Err(format!("{what}: tensors {:?} and {:?}", names(a), names(b)));
    }
    a.iter().zip(b).try_for_each(|((name, a), (_, b))| same_bits_of(what, name, a, b))
}

/// Whether two tensors have the same bits.
pub fn same_bits_of<E: Number>(what: &str, name: &str, a: &[E], b: &[E]) -> Result<(), String> {
    // Any NaN equals any other; the sign of zero counts.
    let same = |a: E, b: E| (a.is_nan() && b.is_nan()) || a.wide().to_bits() == b.wide().to_bits();
    match (0..a.len().max(b.len())).find(|i| a.len() != b.len() || !same(a[*i], b[*i])) {
        None => Ok(()),
        Some(_) if a.len() != b.len() => Err(format!("{what}: {name} has {} and {} elements", a.len(), b.len())),
        Some(i) => Err(format!("{what}: {name}[{i}] is {:?} and {:?}", a[i], b[i])),
    }
}

/// A tensor by name.
pub fn get<'a, E>(all: &'a Named<E>, name: &str) -> &'a [E] {
    &all.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1
}
