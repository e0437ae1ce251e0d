//! The fast CPU backend.
//!
//! # How it computes
//!
//! Each layer and direction is one product of the input of all steps with `weight_ih`, then a time loop with one
//! small product a step (`h_prev` with `weight_hh`) and the gates as vectors. With eight sequences or more a thread, and while what a step reads fits the
//! caches, a step makes both products for some units after others and computes the cell from the sums right away, so that pre-activations never leave
//! the nearest cache. Backward runs the other way with the small products of the step, and then makes `dx` and the weights' gradients as large
//! products over all steps.
//!
//! Threads that divide the sequences of a time loop keep what they write apart: each has its states, and a copy of weights that stay near it, in lines of its own, and
//! makes `dx` of its own sequences. The gradients of small weights are two sums, one over each half of the sequences, whatever the number of threads.
//!
//! | file | what |
//! |---|---|
//! | `activation` | sigmoid, tanh and the others on vectors |
//! | `gemm` | packing and matrix products |
//! | `cells` | the cells' steps, a file each |
//! | `recurrent` | the recurrent weights in a step's products, full or in blocks |
//! | `unit_groups` | the weights of all gates of some units, for forward steps that compute the cell right after its sums |
//! | `sequences` | lengths, resets, and where rows stand |
//! | `steps` | a tensor that threads write, some sequences each |
//! | `geometry` | sizes of operands, reserve and workspace |
//! | `ops` | what models compute besides the operator: matrix products of any layout, softmax, optimizers |
//! | `threads` | work that divides itself among threads |
//! | `team` | helper threads that wait awake for a while |
//! | `pool` | threads of the caller's in their place |
//! | `lockstep` | work whose parts meet after every step |
//! | `stream` | inference in steps, which keeps states and packed weights |
//! | `packed` | the weights of the forward pass as it multiplies with them, packed in every call or once for many |
//! | `products` | products over all steps, packed and divided among threads |
//! | `saved` | what training keeps from forward to backward |
//! | `forward`, `backward` | the time loops |
//! | `time_loop` | what both share: options, initial states, the division of sequences among threads |
//! | `weights` | the weights' gradients |
//! | `repeated` | those of `weight_ih` and of the input where it has few different rows |
//!
//! # What it promises
//!
//! The same bits from run to run and for any number of threads: every output is a chain of operations, or two and their sum, in an order that no
//! partition changes. AVX-512, AVX2 and NEON give the same bits too. A matrix unit (AMX) does not: where the processor has one, `f32` plans with large
//! recurrent weights and sixteen sequences or more multiply there, and gradients of large weights are computed there, with errors no larger than those of vectors, but that numbers below 2^-110 lose their last bits
//! and an infinite input or state makes what it is multiplied to NaN; `FUSED_RNN_INSTRUCTION_SET=avx512` switches it off. States and gradients of states below 2^-90, in `f64` 2^-986, are zero. Threads start with the first problem that is worth
//! them; a small one runs on the calling thread. Finished sequences take part in no product. Beside what the thread pool needs to hand
//! over work, nothing is allocated.
#![expect(
    clippy::indexing_slicing,
    reason = "every call checks the lengths of its tensors and its workspace against the plan's sizes, which all indices are below"
)]

pub(crate) mod activation;
mod backward;
mod cells;
mod forward;
mod gemm;

mod geometry;
mod lockstep;
#[cfg(feature = "model")]
mod ops;

mod packed;
mod pool;
mod products;
mod recurrent;
#[cfg(feature = "model")]
pub(crate) mod repeated;
mod saved;
mod sequences;
mod steps;
mod stream;
mod team;
#[cfg(test)]
mod tests;
mod threads;
mod time_loop;
mod unit_groups;
mod weights;

use std::borrow::{BorrowMut, Cow};
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::Arc;

use crate::backend::checkpoints::{self, Carried, Checkpoints, HostPasses, HostSegments, Planner, Start};
use crate::backend::host::check_at_least;
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, Differentiated, Empty, Filled, ForwardArgs, ForwardMode, HostPlan,
    RecurrentBackend, Reserve, TempSpace, WeightGrad,
};
use crate::error::{Error, Result};
use crate::rnn::{Dropout, RnnDescriptor, RnnShape};
use crate::simd::{Isa, SimdElement};
use geometry::{Geometry, Sizes};
use packed::{Packed, PackedWeights};
pub use pool::ThreadPool;
#[cfg(feature = "model")]
use repeated::HostRepeatedRows;
pub use stream::Stream;
use threads::Threads;

/// The fast CPU backend for `f32` and `f64`. See the [module](self).
///
/// Making one is cheap: threads start with the first problem that is worth them. Clones share them.
#[derive(Clone, Debug)]
pub struct CpuBackend<E> {
    isa: Isa,
    threads: Arc<Threads>,
    element: PhantomData<E>,
}

impl<E: CpuElement> CpuBackend<E> {
    /// A backend that uses as many threads as this machine runs at once.
    pub fn new() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        // A choice that cannot be met is an error of the first plan.
        let isa = Isa::chosen().unwrap_or_else(|_| Isa::detect());
        CpuBackend { isa, threads: Arc::new(Threads::new(threads)), element: PhantomData }
    }

    /// A backend that uses at most `threads` threads, 256 of them at a time. Results do not depend on their number.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] if `threads` is not in `1..=65535`.
    pub fn with_threads(threads: usize) -> Result<Self> {
        Ok(CpuBackend { threads: Arc::new(Threads::new(thread_count(threads)?)), ..Self::new() })
    }

    /// A backend that starts no threads but uses those of a pool of the caller's, as many as it says it has, 256 at a time.
    /// Results do not depend on it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] if the number of its threads is not in `1..=65535`.
    pub fn with_pool(pool: impl ThreadPool) -> Result<Self> {
        let count = thread_count(pool.threads())?;
        Ok(CpuBackend { threads: Arc::new(Threads::of_pool(count, Arc::new(pool))), ..Self::new() })
    }

    /// Threads that large problems run on.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// The instruction set in use: `amx` (AVX-512, and the matrix unit for large products of `f32`), `avx512`, `avx2` or `portable`. The best that the machine has, unless
    /// the environment variable `FUSED_RNN_INSTRUCTION_SET` names another; one that it has not is an error of every plan.
    pub fn instruction_set(&self) -> &'static str {
        self.isa.name()
    }

    /// How a plan of this backend runs, in a sentence: instruction set, and the threads of the products over all steps and of the time
    /// loop, which depend on how much there is to compute.
    pub fn describe(&self, plan: &CpuPlan) -> String {
        let (sizes, batch) = (&plan.sizes, plan.shape.batch);
        if sizes.geometry.directions_at_once(&self.threads) {
            return format!("{}; both directions at once, each on 1 thread", sizes.isa.name());
        }
        let steps = match batch {
            1 => sizes.row_workers.max(sizes.unit_workers),
            _ if sizes.geometry.on_tiles && sizes.groups.is_none() => sizes.cell_workers,
            _ => sizes.step_workers.min(sizes.workers),
        };
        let threads = |count: usize| if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") };
        let why = match (steps, batch) {
            (2.., _) if sizes.geometry.on_tiles && sizes.groups.is_none() => {
                "each takes units of the products, and sequences of the cells"
            }
            (1, 2..) if sizes.groups.is_some() => {
                "too little in a step to divide; cells are computed while their sums are in the nearest cache"
            }
            (1, _) => "too little in a step to divide",
            (_, 1) => "each takes units of the one sequence",
            (..) if sizes.groups.is_some() => {
                "each takes sequences, and computes cells while their sums are in the nearest cache"
            }
            _ => "each takes sequences",
        };
        let gradients = match sizes.weights_isa.name() {
            name if plan.mode == ForwardMode::Training && name != sizes.isa.name() => {
                format!("; gradients of weights: {name}")
            }
            _ => String::new(),
        };
        format!(
            "{}; products over all steps on {}, time loop on {}: {why}{gradients}",
            sizes.isa.name(),
            threads(sizes.workers),
            threads(steps)
        )
    }

    #[cfg(test)]
    pub(crate) fn with_isa(isa: Isa, threads: usize) -> Result<Self> {
        Ok(CpuBackend { isa, ..Self::with_threads(threads)? })
    }
}

fn thread_count(threads: usize) -> Result<NonZeroUsize> {
    NonZeroUsize::new(threads)
        .filter(|count| count.get() <= usize::from(u16::MAX))
        .ok_or_else(|| Error::option("threads", "1..=65535", threads))
}

impl<E: CpuElement> Default for CpuBackend<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// The plan of the CPU backend: that of any host backend, which it derefs to, and the sizes of its buffers.
#[derive(Clone, Debug)]
pub struct CpuPlan {
    host: HostPlan,
    sizes: Sizes,
    checkpoints: Option<Arc<Checkpoints<CpuPlan>>>,
    packed: Option<PackedWeights>,
}

impl Deref for CpuPlan {
    type Target = HostPlan;

    fn deref(&self) -> &HostPlan {
        &self.host
    }
}

/// What all passes of a call have in common.
#[derive(Clone, Copy)]
struct Call<'a, E> {
    plan: &'a HostPlan,
    sizes: &'a Sizes,
    geometry: &'a Geometry,
    isa: Isa,
    threads: &'a Threads,
    /// The weights, where the plan has them.
    packed: Option<Packed<'a, E>>,
    h0: Option<&'a [E]>,
    c0: Option<&'a [E]>,
    /// What the first step starts from, where that is not the initial states.
    start: Start<'a, E>,
    lengths: Option<&'a [u32]>,
    resets: Option<&'a [u8]>,
    dropout: Dropout,
    /// Whether the gradients of the first layer's `weight_ih` are left to another: see [`repeated`].
    leaves_inputs: bool,
}

type ForwardPass<E> = fn(&Call<'_, E>, ForwardArgs<'_, CpuBackend<E>>, Option<&mut [E]>);
type BackwardDataPass<E> = fn(&Call<'_, E>, BackwardDataArgs<'_, CpuBackend<E>>, Option<Carried<&mut [E]>>, &mut [E]);
type BackwardWeightsPass<E> = fn(&Call<'_, E>, BackwardWeightsArgs<'_, CpuBackend<E>>, &mut [E], WeightGrad);
#[cfg(feature = "model")]
type RepeatedPass<E> =
    fn(&Call<'_, E>, BackwardWeightsArgs<'_, CpuBackend<E>>, HostRepeatedRows<'_, E>, &mut [E], WeightGrad);

/// The passes for one element type. They are most of what this backend compiles to; calls go through these
/// pointers, so that a crate that uses the backend does not compile them again.
#[doc(hidden)]
pub struct Passes<E: CpuElement> {
    forward: ForwardPass<E>,
    backward_data: BackwardDataPass<E>,
    backward_weights: BackwardWeightsPass<E>,
    #[cfg(feature = "model")]
    repeated: RepeatedPass<E>,
}

/// `f32` and `f64`, and nothing else.
pub trait CpuElement: SimdElement {
    /// The passes for this type. Not generic, so that they are compiled here once and not again in every crate that calls them.
    #[doc(hidden)]
    fn passes() -> Passes<Self>;
}

impl CpuElement for f32 {
    #[inline(never)]
    fn passes() -> Passes<f32> {
        Passes::new()
    }
}

impl CpuElement for f64 {
    #[inline(never)]
    fn passes() -> Passes<f64> {
        Passes::new()
    }
}

impl<E: CpuElement> Passes<E> {
    fn new() -> Self {
        Passes {
            forward: |call, args, reserve| call.forward(args, reserve),
            backward_data: |call, args, carried, reserve| call.backward_data(args, carried, reserve),
            backward_weights: |call, args, reserve, grad| call.backward_weights(args, reserve, grad),
            #[cfg(feature = "model")]
            repeated: |call, args, of, reserve, grad| call.backward_weights_repeated(args, of, reserve, grad),
        }
    }
}

impl<E: CpuElement> RecurrentBackend for CpuBackend<E> {
    type Elem = E;
    type Buffer = [E];
    type Lengths = [u32];
    type Mask = [u8];
    type Plan = CpuPlan;

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn plan(&self, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<CpuPlan> {
        let mut plan = self.ordinary_plan(descriptor, shape, mode)?;
        let planner = Planner {
            element: size_of::<E>(),
            accumulator: size_of::<E>(),
            full: self.temp_space(&plan),
            plan: &|descriptor, shape| self.ordinary_plan(descriptor, shape, mode),
            space: &|plan| self.temp_space(plan),
            same_reserve: &|_, _| true,
        };
        plan.checkpoints = Checkpoints::of(descriptor, shape, mode, &planner)?.map(Arc::new);
        Ok(plan)
    }

    fn temp_space(&self, plan: &CpuPlan) -> TempSpace {
        match &plan.checkpoints {
            Some(checkpoints) => checkpoints.space(|plan| self.temp_space(plan)).total(),
            None => self.sizes(plan).temp,
        }
    }

    fn forward(&self, plan: &CpuPlan, args: ForwardArgs<'_, Self>) -> Result<()> {
        let packed = plan.packed.as_ref().map(|packed| packed.of(self)).transpose()?;
        let ForwardArgs { mut weights, x, h0, c0, lengths, resets, y, hn, cn, workspace, dropout_seed } = args;
        if let Some(packed) = packed {
            weights = packed.instead_of(weights)?;
        }
        let args = ForwardArgs::<Self> { weights, x, h0, c0, lengths, resets, y, hn, cn, workspace, dropout_seed };
        let sizes = &*self.sizes(plan);
        plan.check_forward(ForwardMode::Inference, sizes.temp.workspace, &args)?;
        self.infer(plan, sizes, packed, args)
    }

    fn forward_training<S: BorrowMut<[E]>>(
        &self,
        plan: &CpuPlan,
        args: ForwardArgs<'_, Self>,
        mut reserve: Reserve<S, Empty>,
    ) -> Result<Reserve<S, Filled>> {
        let space = self.temp_space(plan);
        plan.check_forward(ForwardMode::Training, space.workspace, &args)?;
        let storage = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", space.reserve, storage.len())?;
        let dropout_seed = args.dropout_seed;
        match &plan.checkpoints {
            Some(own) => checkpoints::forward(&self.segments(plan), own, args, storage)?,
            None => self.run_forward(plan, args, None, storage)?,
        }
        Ok(reserve.filled(plan.fingerprint(), dropout_seed))
    }

    fn backward_data<S: BorrowMut<[E]>>(
        &self,
        plan: &CpuPlan,
        args: BackwardDataArgs<'_, Self>,
        mut reserve: Reserve<S, Filled>,
    ) -> Result<Reserve<S, Differentiated>> {
        reserve.check_plan(plan.fingerprint())?;
        let (space, dropout_seed) = (self.temp_space(plan), reserve.dropout_seed());
        plan.check_backward_data(space.workspace, &args)?;
        let storage = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", space.reserve, storage.len())?;
        match &plan.checkpoints {
            Some(own) => checkpoints::backward_data(&self.segments(plan), own, args, storage, dropout_seed)?,
            None => self.run_backward_data(plan, args, None, None, storage, dropout_seed)?,
        }
        Ok(reserve.differentiated())
    }

    fn backward_weights<S: BorrowMut<[E]>>(
        &self,
        plan: &CpuPlan,
        args: BackwardWeightsArgs<'_, Self>,
        reserve: &mut Reserve<S, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()> {
        reserve.check_plan(plan.fingerprint())?;
        let (space, dropout_seed) = (self.temp_space(plan), reserve.dropout_seed());
        plan.check_backward_weights(space.workspace, &args)?;
        let storage = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", space.reserve, storage.len())?;
        match &plan.checkpoints {
            Some(own) => checkpoints::backward_weights(&self.segments(plan), own, args, storage, grad),
            None => self.run_backward_weights(plan, args, None, storage, dropout_seed, grad),
        }
    }
}

impl<E: CpuElement> HostPasses<E> for CpuBackend<E> {
    fn run_forward(
        &self,
        plan: &CpuPlan,
        args: ForwardArgs<'_, Self>,
        start: Start<'_, E>,
        reserve: &mut [E],
    ) -> Result<()> {
        let sizes = &*self.sizes(plan);
        let dropout = Dropout::new(plan.descriptor.dropout, args.dropout_seed);
        let call = Call { start, ..self.call(plan, sizes, (args.h0, args.c0), args.lengths, args.resets, dropout) };
        self.threads.start(sizes.forward.workers)?;
        (E::passes().forward)(&call, args, Some(reserve));
        Ok(())
    }

    fn copy_states(&self, plan: &CpuPlan, reserve: &[E], to: &mut [E]) {
        let len = self.sizes(plan).geometry.saved();
        to.copy_from_slice(&reserve[len.gates..len.gates + len.cells]);
    }

    fn run_backward_data(
        &self,
        plan: &CpuPlan,
        args: BackwardDataArgs<'_, Self>,
        start: Start<'_, E>,
        carried: Option<Carried<&mut [E]>>,
        reserve: &mut [E],
        dropout_seed: u64,
    ) -> Result<()> {
        let sizes = &*self.sizes(plan);
        let dropout = Dropout::new(plan.descriptor.dropout, dropout_seed);
        let call = Call { start, ..self.call(plan, sizes, (args.h0, args.c0), args.lengths, args.resets, dropout) };
        self.threads.start(sizes.backward.workers)?;
        (E::passes().backward_data)(&call, args, carried, reserve);
        Ok(())
    }

    fn run_backward_weights(
        &self,
        plan: &CpuPlan,
        args: BackwardWeightsArgs<'_, Self>,
        start: Start<'_, E>,
        reserve: &mut [E],
        dropout_seed: u64,
        grad: WeightGrad,
    ) -> Result<()> {
        let sizes = &*self.sizes(plan);
        let dropout = Dropout::new(plan.descriptor.dropout, dropout_seed);
        let call = Call { start, ..self.call(plan, sizes, (args.h0, args.c0), args.lengths, args.resets, dropout) };
        self.threads.start(sizes.workers)?;
        (E::passes().backward_weights)(&call, args, reserve, grad);
        Ok(())
    }
}

impl<E: CpuElement> CpuBackend<E> {
    fn segments<'a>(&'a self, plan: &'a CpuPlan) -> HostSegments<'a, E, Self> {
        HostSegments::new(self, &plan.host)
    }

    /// A pass of inference with arguments that have been checked.
    fn infer(
        &self,
        plan: &CpuPlan,
        sizes: &Sizes,
        packed: Option<Packed<'_, E>>,
        args: ForwardArgs<'_, Self>,
    ) -> Result<()> {
        let call = self.call(plan, sizes, (args.h0, args.c0), args.lengths, args.resets, Dropout::NONE);
        let call = Call { packed, ..call };
        self.threads.start(sizes.forward.workers)?;
        (E::passes().forward)(&call, args, None);
        Ok(())
    }

    /// The plan without checkpoints.
    fn ordinary_plan(&self, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<CpuPlan> {
        Isa::chosen()?;
        let host = HostPlan::new("cpu", descriptor, shape, mode)?;
        for (name, size) in [("seq_len", shape.seq_len), ("batch", shape.batch), ("steps", shape.seq_len * shape.batch)]
        {
            if size > u32::MAX as usize {
                return Err(Error::option(name, format!("at most {} on this backend", u32::MAX), size));
            }
        }
        let sizes = Sizes::new::<E>(&host, self.isa, &self.threads);
        if sizes.temp.workspace > isize::MAX as usize / size_of::<E>() {
            return Err(Error::SizeOverflow {
                tensor: "workspace".to_owned(),
                expression: format!("packed weights and buffers of {descriptor:?}"),
            });
        }
        Ok(CpuPlan { host, sizes, checkpoints: None, packed: None })
    }

    /// The sizes of a plan, which may be another backend's, with another element type, other vectors or threads.
    fn sizes<'a>(&self, plan: &'a CpuPlan) -> Cow<'a, Sizes> {
        if plan.sizes.are_of::<E>(self.isa, &self.threads) {
            Cow::Borrowed(&plan.sizes)
        } else {
            Cow::Owned(Sizes::new::<E>(&plan.host, self.isa, &self.threads))
        }
    }

    fn call<'a>(
        &'a self,
        plan: &'a CpuPlan,
        sizes: &'a Sizes,
        (h0, c0): (Option<&'a [E]>, Option<&'a [E]>),
        lengths: Option<&'a [u32]>,
        resets: Option<&'a [u8]>,
        dropout: Dropout,
    ) -> Call<'a, E> {
        let (isa, threads) = (sizes.isa, &self.threads);
        let (plan, geometry, start) = (&plan.host, &sizes.geometry, None);
        let leaves_inputs = false;
        Call {
            plan,
            sizes,
            geometry,
            isa,
            threads,
            packed: None,
            h0,
            c0,
            start,
            lengths,
            resets,
            dropout,
            leaves_inputs,
        }
    }
}
