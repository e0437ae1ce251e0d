//! Inference in steps, for serving: [`Stream`].

use super::{CpuBackend, CpuElement, CpuPlan};
use crate::backend::{ForwardArgs, ForwardMode, RecurrentBackend};
use crate::error::{Error, Result};
use crate::memory;
use crate::rnn::shape::check_len;
use crate::rnn::{Direction, RnnDescriptor, RnnShape};

/// An operator that is given its input as it arrives, one step or a few at a time: it keeps the states, and its weights are packed once.
/// A call allocates nothing.
///
/// ```
/// use fused_rnn::backend::cpu::{CpuBackend, Stream};
/// use fused_rnn::rnn::{RnnDescriptor, RnnShape, WeightLayout};
///
/// let descriptor = RnnDescriptor::lstm(4, 8);
/// let weights = vec![0.1; WeightLayout::new(&descriptor)?.len()];
/// let shape = RnnShape { seq_len: 1, batch: 1 }; // of a call
/// let mut stream = Stream::new(&CpuBackend::<f32>::new(), &descriptor, shape, &weights)?;
/// let mut y = [0.0; 8];
/// for step in 0..3 {
///     stream.step(&[step as f32; 4], &mut y)?;
/// }
/// stream.reset(); // the next step is a sequence's first
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Debug)]
pub struct Stream<E> {
    backend: CpuBackend<E>,
    plan: CpuPlan,
    /// Before the next step, and room for those after it.
    h: [Vec<E>; 2],
    c: [Vec<E>; 2],
    workspace: Vec<E>,
}

impl<E: CpuElement> Stream<E> {
    /// A stream from zero states, of calls of `shape`: `seq_len` steps of `batch` sequences. The weights are copied.
    ///
    /// # Errors
    ///
    /// Those of a [plan](RecurrentBackend::plan); [`Error::InvalidOption`] for a direction that begins at a sequence's end;
    /// [`Error::Shape`] for weights of another length; [`Error::Unsupported`] where memory is short.
    pub fn new(backend: &CpuBackend<E>, descriptor: &RnnDescriptor, shape: RnnShape, weights: &[E]) -> Result<Self> {
        if descriptor.direction != Direction::Forward {
            return Err(Error::option(
                "direction",
                "Forward, since a stream has no end",
                format!("{:?}", descriptor.direction),
            ));
        }
        let plan = backend.plan(descriptor, shape, ForwardMode::Inference)?;
        let plan = backend.with_weights(&plan, weights)?;
        let zeros = |what: &str, len: usize| memory::filled(what, len, E::of(0.0));
        let tensors = plan.tensors();
        let h = tensors.h.iter().product();
        let c = if descriptor.cell.has_cell_state() { tensors.c.iter().product() } else { 0 };
        let workspace = zeros("workspace", backend.temp_space(&plan).workspace)?;
        let (h, c) = ([zeros("h", h)?, zeros("h", h)?], [zeros("c", c)?, zeros("c", c)?]);
        Ok(Stream { backend: backend.clone(), plan, h, c, workspace })
    }

    /// The next steps: `x` and `y` as in a [call](ForwardArgs) of the shape that the stream was made for.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for an input or output of another length; the states stay as they are.
    pub fn step(&mut self, x: &[E], y: &mut [E]) -> Result<()> {
        // All else is its own.
        check_len("x", &self.plan.tensors().x, x.len())?;
        check_len("y", &self.plan.tensors().y, y.len())?;
        let packed = self.plan.packed.as_ref().map(|packed| packed.of(&self.backend)).transpose()?;
        let weights = packed.map_or(&[][..], |packed| packed.weights);
        let ([h0, hn], [c0, cn]) = (&mut self.h, &mut self.c);
        let has_c = !c0.is_empty();
        let args = ForwardArgs::<CpuBackend<E>>::new(weights, x, y, &mut self.workspace).h0(&h0[..]).hn(&mut hn[..]);
        let args = args.c0(has_c.then_some(&c0[..])).cn(has_c.then_some(&mut cn[..]));
        self.backend.infer(&self.plan, &self.plan.sizes, packed, args)?;
        self.h.swap(0, 1);
        self.c.swap(0, 1);
        Ok(())
    }

    /// Goes back to zero states.
    pub fn reset(&mut self) {
        self.h[0].fill(E::of(0.0));
        self.c[0].fill(E::of(0.0));
    }

    /// Goes back to zero states for one sequence of the batch, the others go on.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a number that no sequence has.
    pub fn reset_sequence(&mut self, sequence: usize) -> Result<()> {
        let batch = self.plan.shape().batch;
        if sequence >= batch {
            return Err(Error::option("sequence", format!("a number below the batch {batch}"), sequence));
        }
        let tensors = self.plan.tensors();
        for (state, [layers, batch, width]) in [(&mut self.h[0], tensors.h), (&mut self.c[0], tensors.c)] {
            if !state.is_empty() {
                for layer in 0..layers {
                    state[(layer * batch + sequence) * width..][..width].fill(E::of(0.0));
                }
            }
        }
        Ok(())
    }

    /// The output state after the last step, `[num_layers, batch, output_size]`.
    pub fn h(&self) -> &[E] {
        &self.h[0]
    }

    /// The states beside it, of cells that have such ([`TensorShapes::c`](crate::rnn::TensorShapes::c)); otherwise empty.
    pub fn c(&self) -> &[E] {
        &self.c[0]
    }

    /// Goes on from other states, such as those of a stream that was stopped.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for states of another length.
    pub fn set_states(&mut self, h: &[E], c: &[E]) -> Result<()> {
        for (name, own, given) in [("h", &self.h[0], h), ("c", &self.c[0], c)] {
            check_len(name, &[own.len()], given.len())?;
        }
        self.h[0].copy_from_slice(h);
        self.c[0].copy_from_slice(c);
        Ok(())
    }

    /// How it runs: what [`CpuBackend::describe`] says of its plan.
    pub fn describe(&self) -> String {
        self.backend.describe(&self.plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::pass::{self, Inputs};
    use crate::cell::CellKind;
    use crate::rnn::WeightLayout;

    fn numbers(len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|i| scale * ((i * 37 % 101) as f32 / 50.0 - 1.0)).collect()
    }

    /// Steps of one sequence, whose units threads divide, give what the whole sequence gives.
    #[test]
    fn a_stream_of_one_sequence_on_threads_is_its_sequence() {
        for cell in CellKind::ALL {
            let descriptor = RnnDescriptor::new(cell, 9, 70).num_layers(2);
            let weights = numbers(WeightLayout::new(&descriptor).unwrap().len(), 0.1);
            let x = numbers(5 * 9, 1.0);
            let inputs = Inputs { weights: weights.clone(), x: x.clone(), ..Inputs::default() };
            let shape = RnnShape { seq_len: 5, batch: 1 };
            let whole = pass::infer(&CpuBackend::<f32>::with_threads(1).unwrap(), &descriptor, shape, &inputs).unwrap();
            for threads in [1, 2, 3] {
                let backend = CpuBackend::<f32>::with_threads(threads).unwrap();
                let call = RnnShape { seq_len: 1, batch: 1 };
                let mut stream = Stream::new(&backend, &descriptor, call, &weights).unwrap();
                let mut y = vec![0.0; 5 * 70];
                for (x, y) in x.chunks_exact(9).zip(y.chunks_exact_mut(70)) {
                    stream.step(x, y).unwrap();
                }
                assert_eq!(y, whole.y, "{cell}, {threads} threads: {}", stream.describe());
                assert_eq!(stream.h(), whole.hn, "{cell}");
            }
        }
    }

    /// Steps of one and of three give what the whole sequence gives, for every cell; a sequence that begins anew forgets the others' past.
    #[test]
    fn a_stream_is_its_sequence() {
        let backend = CpuBackend::<f32>::with_threads(2).unwrap();
        for cell in CellKind::ALL {
            let descriptor = RnnDescriptor::new(cell, 5, 24).num_layers(2);
            let weights = numbers(WeightLayout::new(&descriptor).unwrap().len(), 0.3);
            let (shape, row) = (RnnShape { seq_len: 6, batch: 2 }, 2 * 24);
            let x = numbers(6 * 2 * 5, 1.0);
            let inputs = Inputs { weights: weights.clone(), x: x.clone(), ..Inputs::default() };
            let whole = pass::infer(&backend, &descriptor, shape, &inputs).unwrap();
            for steps in [1, 3] {
                let call = RnnShape { seq_len: steps, batch: 2 };
                let mut stream = Stream::new(&backend, &descriptor, call, &weights).unwrap();
                for pass in 0..2 {
                    let mut y = vec![0.0; 6 * row];
                    for (x, y) in x.chunks_exact(steps * 10).zip(y.chunks_exact_mut(steps * row)) {
                        stream.step(x, y).unwrap();
                    }
                    assert_eq!(y, whole.y, "{cell}, steps of {steps}, pass {pass}");
                    assert_eq!(stream.h(), whole.hn, "{cell}");
                    stream.reset();
                }
            }
            let mut stream = Stream::new(&backend, &descriptor, RnnShape { seq_len: 1, batch: 2 }, &weights).unwrap();
            let (mut first, mut again) = (vec![0.0; row], vec![0.0; row]);
            stream.step(&x[..10], &mut first).unwrap();
            stream.reset_sequence(1).unwrap();
            let (h, c) = (stream.h().to_vec(), stream.c().to_vec());
            stream.step(&x[..10], &mut again).unwrap();
            assert_eq!(first[24..], again[24..], "{cell}");
            assert_ne!(first[..24], again[..24], "{cell}");
            stream.set_states(&h, &c).unwrap();
            stream.step(&x[..10], &mut first).unwrap();
            assert_eq!(first, again, "{cell}");
        }
    }

    #[test]
    fn what_a_stream_cannot_do_is_named() {
        let backend = CpuBackend::<f32>::with_threads(1).unwrap();
        let (descriptor, shape) = (RnnDescriptor::lstm(3, 4), RnnShape { seq_len: 1, batch: 2 });
        let weights = numbers(WeightLayout::new(&descriptor).unwrap().len(), 0.3);
        let says = |error: Error, words: &[&str]| {
            let error = error.to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        };
        for direction in [Direction::Reverse, Direction::Bidirectional] {
            let backwards = descriptor.clone().direction(direction);
            let refused = Stream::new(&backend, &backwards, shape, &weights).unwrap_err();
            says(refused, &["direction", "no end", &format!("{direction:?}")]);
        }
        says(Stream::new(&backend, &descriptor, shape, &weights[1..]).unwrap_err(), &["weights"]);
        let mut stream = Stream::new(&backend, &descriptor, shape, &weights).unwrap();
        says(stream.step(&[0.0; 5], &mut [0.0; 8]).unwrap_err(), &["x", "6 elements", "5 elements"]);
        says(stream.step(&[0.0; 6], &mut [0.0; 7]).unwrap_err(), &["y", "8 elements", "7 elements"]);
        says(stream.reset_sequence(2).unwrap_err(), &["sequence", "batch 2"]);
        says(stream.set_states(&[0.0; 8], &[0.0; 7]).unwrap_err(), &["c", "8 elements", "7 elements"]);
        assert_eq!(stream.h(), [0.0; 8]);
    }
}
