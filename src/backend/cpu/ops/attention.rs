//! Attention by blocks of queries: scores, mask, softmax and mixture of the values of two vectors of queries at a time, whose weights stay in the
//! nearest caches. The matrix `[queries, keys]` of all weights is never there: the gradients compute the weights of a block again from the statistics
//! of its rows ([Dao et al. 2022](https://arxiv.org/abs/2205.14135), algorithms 1 and 4, with all keys in one block).
//!
//! A lane is a query, and what it computes depends on no other. Sums over keys, over queries and over features are taken in their order, so neither
//! the vectors nor the threads change a bit.

use std::ops::Range;

use crate::backend::cpu::CpuElement;
use crate::backend::cpu::activation::exp_of_negative;
use crate::backend::cpu::threads::{Divide, Threads, share};
use crate::backend::host_ops::{HostAttention, HostAttentionGradients};
use crate::backend::ops::AttentionShape;
use crate::error::Result;
use crate::simd::{Isa, Kernel, MAX_LANES, Simd, load_part, store_part};

/// Keys whose sums are taken at once.
const KEYS: usize = 4;

/// Features of a value, or of a key, whose sums over keys are taken at once.
const FEATURES: usize = 4;

/// Keys whose sums over queries are taken at once, where a vector has all features of a head.
const MANY_KEYS: usize = 8;

/// What an exponential takes beside the products, in the unit of [`Threads::worth`].
const EXPONENTIAL: f64 = 40.0;

/// Threads that a call is worth, of which each has as much scratch.
fn workers(threads: &Threads, shape: &AttentionShape, products: f64, parts: usize) -> usize {
    let AttentionShape { batch, heads, queries, keys, key_dim, value_dim, .. } = *shape;
    let pairs = batch as f64 * heads as f64 * queries as f64 * keys as f64;
    threads.worth(pairs * (products * (key_dim as f64 + value_dim as f64) + EXPONENTIAL)).min(parts.max(1))
}

fn forward_workers(threads: &Threads, shape: &AttentionShape) -> usize {
    workers(threads, shape, 2.0, shape.batch.saturating_mul(shape.queries))
}

/// The gradients of keys and values are sums over all queries of a sample, so a sample is not divided.
fn backward_workers(threads: &Threads, shape: &AttentionShape) -> usize {
    workers(threads, shape, 5.0, shape.batch)
}

/// Scratch of a thread: a block of queries, and of the weights of all keys.
fn forward_scratch<E: CpuElement>(isa: Isa, shape: &AttentionShape) -> usize {
    scratch::<E>(isa, [shape.key_dim, shape.keys, 0, 0])
}

/// Scratch of a thread: a block of queries and of the gradients of their mixtures, of the weights of all keys and of the gradients of their scores.
fn backward_scratch<E: CpuElement>(isa: Isa, shape: &AttentionShape) -> usize {
    scratch::<E>(isa, [shape.key_dim, shape.value_dim, shape.keys, shape.keys])
}

/// Rows of two vectors of queries. Saturating: sizes beyond memory are refused, not computed.
fn scratch<E: CpuElement>(isa: Isa, rows: [usize; 4]) -> usize {
    rows.into_iter().fold(0, usize::saturating_add).saturating_mul(2 * isa.lanes::<E>())
}

/// Scratch of [`attention`].
pub(super) fn workspace<E: CpuElement>(isa: Isa, threads: &Threads, shape: &AttentionShape) -> usize {
    forward_workers(threads, shape).saturating_mul(forward_scratch::<E>(isa, shape))
}

/// Scratch of [`attention_gradient`].
pub(super) fn gradient_workspace<E: CpuElement>(isa: Isa, threads: &Threads, shape: &AttentionShape) -> usize {
    backward_workers(threads, shape).saturating_mul(backward_scratch::<E>(isa, shape))
}

/// See [`Operations::attention`](crate::backend::Operations::attention). No size is zero.
pub(super) fn attention<E: CpuElement>(
    isa: Isa,
    threads: &Threads,
    of: HostAttention<'_, E>,
    y: &mut [E],
    statistics: &mut [E],
    scratch: &mut [E],
) -> Result<()> {
    let workers = forward_workers(threads, &of.shape);
    threads.start(workers)?;
    let scratch = &mut scratch[..workspace::<E>(isa, threads, &of.shape)];
    let rows = 0..of.shape.batch * of.shape.queries;
    threads.workers(workers).divide(SomeQueries { isa, of, rows, y, statistics, scratch });
    Ok(())
}

/// See [`Operations::attention_gradient`](crate::backend::Operations::attention_gradient). No size is zero.
#[allow(clippy::too_many_arguments)] // those of the operation
pub(super) fn attention_gradient<E: CpuElement>(
    isa: Isa,
    threads: &Threads,
    of: HostAttention<'_, E>,
    y: &[E],
    statistics: &[E],
    dy: &[E],
    to: HostAttentionGradients<'_, E>,
    scratch: &mut [E],
) -> Result<()> {
    let workers = backward_workers(threads, &of.shape);
    threads.start(workers)?;
    let scratch = &mut scratch[..gradient_workspace::<E>(isa, threads, &of.shape)];
    let samples = 0..of.shape.batch;
    threads.workers(workers).divide(SomeSamples { isa, of, y, statistics, dy, samples, to, scratch });
    Ok(())
}

/// Some queries of all samples, counted through.
struct SomeQueries<'a, E> {
    isa: Isa,
    of: HostAttention<'a, E>,
    rows: Range<usize>,
    /// Of these rows.
    y: &'a mut [E],
    /// Of these rows.
    statistics: &'a mut [E],
    /// As much for each thread.
    scratch: &'a mut [E],
}

impl<E: CpuElement> Divide for SomeQueries<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let SomeQueries { isa, of: call, rows, y, statistics, scratch } = self;
        let count = share(rows.len(), left, of);
        let middle = rows.start + count;
        let (y_left, y_right) = y.split_at_mut(count * call.shape.heads * call.shape.value_dim);
        let (statistics_left, statistics_right) = statistics.split_at_mut(count * call.shape.heads * 2);
        let (scratch_left, scratch_right) = scratch.split_at_mut(scratch.len() / of * left);
        let part = |rows, y, statistics, scratch| SomeQueries { isa, of: call, rows, y, statistics, scratch };
        (
            part(rows.start..middle, y_left, statistics_left, scratch_left),
            part(middle..rows.end, y_right, statistics_right, scratch_right),
        )
    }

    fn run(self) {
        let SomeQueries { isa, of, rows, y, statistics, scratch } = self;
        isa.run(Attend { of, rows, y, statistics, scratch });
    }
}

/// Some samples.
struct SomeSamples<'a, E> {
    isa: Isa,
    of: HostAttention<'a, E>,
    /// Of all samples, as what else is read.
    y: &'a [E],
    statistics: &'a [E],
    dy: &'a [E],
    samples: Range<usize>,
    /// Of these samples.
    to: HostAttentionGradients<'a, E>,
    /// As much for each thread.
    scratch: &'a mut [E],
}

impl<'a, E: CpuElement> Divide for SomeSamples<'a, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let SomeSamples { isa, of: call, y, statistics, dy, samples, to, scratch } = self;
        let count = share(samples.len(), left, of);
        let middle = samples.start + count;
        let AttentionShape { heads, queries, keys, key_dim, value_dim, .. } = call.shape;
        let split = |width: usize| move |to: &'a mut [E]| to.split_at_mut(count * width);
        let (dquery_left, dquery) = to.dquery.map(split(queries * heads * key_dim)).unzip();
        let (dkey_left, dkey) = to.dkey.map(split(keys * heads * key_dim)).unzip();
        let (dvalue_left, dvalue) = to.dvalue.map(split(keys * heads * value_dim)).unzip();
        let to_left = HostAttentionGradients { dquery: dquery_left, dkey: dkey_left, dvalue: dvalue_left };
        let to_right = HostAttentionGradients { dquery, dkey, dvalue };
        let (scratch_left, scratch_right) = scratch.split_at_mut(scratch.len() / of * left);
        let part = |samples, to, scratch| SomeSamples { isa, of: call, y, statistics, dy, samples, to, scratch };
        (part(samples.start..middle, to_left, scratch_left), part(middle..samples.end, to_right, scratch_right))
    }

    fn run(self) {
        let SomeSamples { isa, of, y, statistics, dy, samples, to, scratch } = self;
        isa.run(Gradients { of, y, statistics, dy, samples, to, scratch });
    }
}

/// The rows of one head of one sample in a tensor `[batch, steps, heads, width]`.
#[derive(Clone, Copy)]
struct Head<'a, E> {
    data: &'a [E],
    stride: usize,
    width: usize,
}

impl<'a, E> Head<'a, E> {
    #[inline(always)]
    fn new(data: &'a [E], steps: usize, heads: usize, width: usize, sample: usize, head: usize) -> Self {
        let stride = heads * width;
        Head { data: &data[sample * steps * stride + head * width..], stride, width }
    }

    #[inline(always)]
    fn row(self, step: usize) -> &'a [E] {
        &self.data[step * self.stride..][..self.width]
    }
}

/// The keys that a block of queries may look at.
struct Visible<'a, E> {
    /// Of the sample.
    mask: Option<&'a [E]>,
    causal: bool,
    /// The first query of the block.
    first: usize,
    /// Keys from here on are seen by none.
    end: usize,
    /// As many times minus infinity as a block has queries, then infinity: key `first + t` is seen by the queries from number t of the block on.
    limits: [E; 4 * MAX_LANES],
    /// Queries of a block.
    width: usize,
}

impl<'a, E: CpuElement> Visible<'a, E> {
    #[inline(always)]
    fn new(of: &HostAttention<'a, E>, sample: usize, queries: Range<usize>, width: usize) -> Self {
        let AttentionShape { keys, causal, .. } = of.shape;
        let mask = of.mask.map(|mask| &mask[sample * keys..][..keys]);
        let end = if causal { keys.min(queries.end) } else { keys };
        let end = mask.map_or(end, |mask| mask[..end].iter().rposition(|m| *m != E::zero()).map_or(0, |last| last + 1));
        let mut limits = [E::infinity(); 4 * MAX_LANES];
        limits[..width].fill(E::neg_infinity());
        Visible { mask, causal, first: queries.start, end, limits, width }
    }

    /// Scores of a key, minus infinity for the queries that do not see it. A NaN becomes infinity, which makes its row NaN all the same.
    #[inline(always)]
    fn limited<S: Simd<E>, const V: usize>(&self, s: S, key: usize, mut scores: [S::V; V]) -> [S::V; V] {
        if let Some(mask) = self.mask {
            let limit = if mask[key] == E::zero() { E::neg_infinity() } else { E::infinity() };
            for v in 0..V {
                scores[v] = s.min(scores[v], s.splat(limit));
            }
        }
        if self.causal && key > self.first {
            // No more than the block is wide: `end` is not beyond its last query.
            let at = self.width - (key - self.first);
            for v in 0..V {
                scores[v] = s.min(scores[v], s.load(&self.limits[at + v * S::LANES..]));
            }
        }
        scores
    }

    /// Writes the scores of a key, and takes them into the largest ones.
    #[inline(always)]
    fn put<S: Simd<E>, const V: usize>(
        &self,
        s: S,
        key: usize,
        scores: [S::V; V],
        largest: &mut [S::V; V],
        to: &mut [E],
    ) {
        let scores = self.limited(s, key, scores);
        for v in 0..V {
            largest[v] = s.max(scores[v], largest[v]);
            s.store(&mut to[v * S::LANES..], scores[v]);
        }
    }
}

/// The rows `first..first + count` of a head, transposed and times `factor`: `[width][lanes]`, zero beyond.
#[inline(always)]
fn transpose<E: CpuElement>(of: Head<'_, E>, first: usize, count: usize, factor: E, lanes: usize, to: &mut [E]) {
    to.fill(E::zero());
    for i in 0..count {
        for (to, x) in to.chunks_exact_mut(lanes).zip(of.row(first + i)) {
            to[i] = *x * factor;
        }
    }
}

/// `sums[r][v] = Σ_d rows[r][d] block[d][v]`.
#[inline(always)]
fn scores<E: CpuElement, S: Simd<E>, const R: usize, const V: usize>(
    s: S,
    rows: [&[E]; R],
    block: &[E],
) -> [[S::V; V]; R] {
    let mut sums = [[s.splat(E::zero()); V]; R];
    for (d, block) in block.chunks_exact(V * S::LANES).enumerate() {
        for r in 0..R {
            let x = s.splat(rows[r][d]);
            for v in 0..V {
                sums[r][v] = s.mul_add(x, s.load(&block[v * S::LANES..]), sums[r][v]);
            }
        }
    }
    sums
}

/// `to[i * stride + d] = factor_i Σ_j rows[j][d] weights[j][i]` over the first keys, for all features d and the first `count` lanes.
#[inline(always)]
fn mix<E: CpuElement, S: Simd<E>, const V: usize>(
    s: S,
    of: Head<'_, E>,
    weights: &[E],
    factor: [S::V; V],
    to: &mut [E],
    stride: usize,
    count: usize,
) {
    let fours = of.width / FEATURES * FEATURES;
    for d in (0..fours).step_by(FEATURES) {
        mix_features::<E, S, V, FEATURES>(s, of, d, weights, factor, &mut to[d..], stride, count);
    }
    for d in fours..of.width {
        mix_features::<E, S, V, 1>(s, of, d, weights, factor, &mut to[d..], stride, count);
    }
}

/// The same for `F` features from `d` on.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // as above, and which features
fn mix_features<E: CpuElement, S: Simd<E>, const V: usize, const F: usize>(
    s: S,
    of: Head<'_, E>,
    d: usize,
    weights: &[E],
    factor: [S::V; V],
    to: &mut [E],
    stride: usize,
    count: usize,
) {
    let mut sums = [[s.splat(E::zero()); V]; F];
    for (j, weights) in weights.chunks_exact(V * S::LANES).enumerate() {
        let x = &of.row(j)[d..d + F];
        for f in 0..F {
            for v in 0..V {
                sums[f][v] = s.mul_add(s.splat(x[f]), s.load(&weights[v * S::LANES..]), sums[f][v]);
            }
        }
    }
    let mut lanes = [[E::zero(); 2 * MAX_LANES]; F];
    for f in 0..F {
        for v in 0..V {
            s.store(&mut lanes[f][v * S::LANES..], s.mul(sums[f][v], factor[v]));
        }
    }
    for i in 0..count {
        let to = &mut to[i * stride..][..F];
        for f in 0..F {
            to[f] = lanes[f][i];
        }
    }
}

/// Vectors side by side.
#[inline(always)]
fn load<E: CpuElement, S: Simd<E>, const V: usize>(s: S, from: &[E]) -> [S::V; V] {
    let mut vectors = [s.splat(E::zero()); V];
    for v in 0..V {
        vectors[v] = s.load(&from[v * S::LANES..]);
    }
    vectors
}

/// Attention of some queries of all samples, counted through.
struct Attend<'a, E> {
    of: HostAttention<'a, E>,
    rows: Range<usize>,
    y: &'a mut [E],
    statistics: &'a mut [E],
    scratch: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for Attend<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(mut self, s: S) {
        let queries = self.of.shape.queries;
        let mut row = self.rows.start;
        while row < self.rows.end {
            let (sample, first) = (row / queries, row % queries);
            let left = (queries - first).min(self.rows.end - row);
            let count = left.min(2 * S::LANES);
            let at = row - self.rows.start;
            if count > S::LANES {
                self.block::<S, 2>(s, sample, first..first + count, at);
            } else {
                self.block::<S, 1>(s, sample, first..first + count, at);
            }
            row += count;
        }
    }
}

impl<E: CpuElement> Attend<'_, E> {
    /// All heads of some queries of a sample, which are rows from `at` on of what is written.
    #[inline(always)]
    fn block<S: Simd<E>, const V: usize>(&mut self, s: S, sample: usize, queries: Range<usize>, at: usize) {
        let AttentionShape { heads, keys, key_dim, value_dim, .. } = self.of.shape;
        let lanes = V * S::LANES;
        let visible = Visible::new(&self.of, sample, queries.clone(), lanes);
        let (query, weights) = self.scratch.split_at_mut(key_dim * lanes);
        let weights = &mut weights[..visible.end * lanes];
        for head in 0..heads {
            let of_query = Head::new(self.of.query, self.of.shape.queries, heads, key_dim, sample, head);
            let key = Head::new(self.of.key, keys, heads, key_dim, sample, head);
            let value = Head::new(self.of.value, keys, heads, value_dim, sample, head);
            transpose(of_query, queries.start, queries.len(), E::of(self.of.alpha), lanes, query);

            // Scores, and the largest of each query: a row without any is not to give the difference of two infinities.
            let mut largest = [s.splat(E::min_value()); V];
            let fours = visible.end / KEYS * KEYS;
            for (block, to) in weights[..fours * lanes].chunks_exact_mut(KEYS * lanes).enumerate() {
                let j = block * KEYS;
                let rows = [key.row(j), key.row(j + 1), key.row(j + 2), key.row(j + 3)];
                let sums = scores::<E, S, KEYS, V>(s, rows, query);
                for r in 0..KEYS {
                    visible.put(s, j + r, sums[r], &mut largest, &mut to[r * lanes..][..lanes]);
                }
            }
            for (j, to) in weights.chunks_exact_mut(lanes).enumerate().skip(fours) {
                let [sums] = scores::<E, S, 1, V>(s, [key.row(j)], query);
                visible.put(s, j, sums, &mut largest, to);
            }

            let mut totals = [s.splat(E::zero()); V];
            for weights in weights.chunks_exact_mut(lanes) {
                for v in 0..V {
                    let weights = &mut weights[v * S::LANES..];
                    let e = exp_of_negative(s, s.sub(s.load(weights), largest[v]));
                    totals[v] = s.add(totals[v], e);
                    s.store(weights, e);
                }
            }
            // The largest score adds 1 to its total, so that a total below that is one of a row without any.
            let mut inverse = totals;
            for v in 0..V {
                let quotient = s.div(s.splat(E::one()), totals[v]);
                inverse[v] = s.zero_where_less(totals[v], s.splat(E::of(0.5)), quotient);
            }

            let mut tile = [[E::zero(); 2 * MAX_LANES]; 2];
            for v in 0..V {
                s.store(&mut tile[0][v * S::LANES..], largest[v]);
                s.store(&mut tile[1][v * S::LANES..], inverse[v]);
            }
            for i in 0..queries.len() {
                let to = &mut self.statistics[((at + i) * heads + head) * 2..][..2];
                to.copy_from_slice(&[tile[0][i], tile[1][i]]);
            }
            let width = heads * value_dim;
            let y = &mut self.y[at * width + head * value_dim..];
            mix::<E, S, V>(s, value, weights, inverse, y, width, queries.len());
        }
    }
}

/// The gradients of some samples.
struct Gradients<'a, E> {
    of: HostAttention<'a, E>,
    y: &'a [E],
    statistics: &'a [E],
    dy: &'a [E],
    samples: Range<usize>,
    to: HostAttentionGradients<'a, E>,
    scratch: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for Gradients<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(mut self, s: S) {
        // Sums over blocks of queries.
        for sums in [&mut self.to.dkey, &mut self.to.dvalue].into_iter().flatten() {
            sums.fill(E::zero());
        }
        let queries = self.of.shape.queries;
        for sample in self.samples.clone() {
            for head in 0..self.of.shape.heads {
                for first in (0..queries).step_by(2 * S::LANES) {
                    let block = first..queries.min(first + 2 * S::LANES);
                    if block.len() > S::LANES {
                        self.block::<S, 2>(s, sample, head, block);
                    } else {
                        self.block::<S, 1>(s, sample, head, block);
                    }
                }
            }
        }
    }
}

impl<E: CpuElement> Gradients<'_, E> {
    /// What some queries of a head add.
    ///
    /// With p the weights and g = dy value: ds = p (g - Σ p g), where Σ p g over the keys is Σ y dy over the features; then dquery = alpha ds key,
    /// dkey = alpha dsᵀ query and dvalue = pᵀ dy.
    #[inline(always)]
    fn block<S: Simd<E>, const V: usize>(&mut self, s: S, sample: usize, head: usize, queries: Range<usize>) {
        let AttentionShape { heads, queries: all, keys, key_dim, value_dim, .. } = self.of.shape;
        let (lanes, count) = (V * S::LANES, queries.len());
        let visible = Visible::new(&self.of, sample, queries.clone(), lanes);
        let (query, scratch) = self.scratch.split_at_mut(key_dim * lanes);
        let (slope, scratch) = scratch.split_at_mut(value_dim * lanes);
        let (weights, dscores) = scratch.split_at_mut(keys * lanes);
        let (weights, dscores) = (&mut weights[..visible.end * lanes], &mut dscores[..visible.end * lanes]);
        let of_query = Head::new(self.of.query, all, heads, key_dim, sample, head);
        let key = Head::new(self.of.key, keys, heads, key_dim, sample, head);
        let value = Head::new(self.of.value, keys, heads, value_dim, sample, head);
        let (y, dy) = (self.y, self.dy);
        let y = Head::new(y, all, heads, value_dim, sample, head);
        let dy = Head::new(dy, all, heads, value_dim, sample, head);
        transpose(of_query, queries.start, count, E::of(self.of.alpha), lanes, query);
        transpose(dy, queries.start, count, E::one(), lanes, slope);

        // Beyond the last query everything is zero.
        let mut rows = [[E::zero(); 2 * MAX_LANES]; 3];
        for i in 0..count {
            let row = sample * all + queries.start + i;
            let statistics = &self.statistics[(row * heads + head) * 2..][..2];
            (rows[0][i], rows[1][i]) = (statistics[0], statistics[1]);
        }
        for d in 0..value_dim {
            for i in 0..count {
                let row = queries.start + i;
                rows[2][i] += y.row(row)[d] * dy.row(row)[d];
            }
        }
        let rows = WeightRows::<E, S, V> {
            visible: &visible,
            largest: load(s, &rows[0]),
            inverse: load(s, &rows[1]),
            mean: load(s, &rows[2]),
            alpha: s.splat(E::of(self.of.alpha)),
            least: s.splat(E::min_positive_value().sqrt()),
        };
        let fours = visible.end / KEYS * KEYS;
        let blocks = weights[..fours * lanes].chunks_exact_mut(KEYS * lanes);
        for (block, (to, dto)) in blocks.zip(dscores[..fours * lanes].chunks_exact_mut(KEYS * lanes)).enumerate() {
            let j = block * KEYS;
            let keys = [key.row(j), key.row(j + 1), key.row(j + 2), key.row(j + 3)];
            let sums = scores::<E, S, KEYS, V>(s, keys, query);
            let values = [value.row(j), value.row(j + 1), value.row(j + 2), value.row(j + 3)];
            let dsums = scores::<E, S, KEYS, V>(s, values, slope);
            for r in 0..KEYS {
                let at = r * lanes..(r + 1) * lanes;
                rows.put(s, j + r, sums[r], dsums[r], &mut to[at.clone()], &mut dto[at]);
            }
        }
        let rest = weights.chunks_exact_mut(lanes).zip(dscores.chunks_exact_mut(lanes)).enumerate().skip(fours);
        for (j, (to, dto)) in rest {
            let [sums] = scores::<E, S, 1, V>(s, [key.row(j)], query);
            let [dsums] = scores::<E, S, 1, V>(s, [value.row(j)], slope);
            rows.put(s, j, sums, dsums, to, dto);
        }

        let sample = sample - self.samples.start;
        if let Some(dquery) = &mut self.to.dquery {
            let width = heads * key_dim;
            let dquery = &mut dquery[(sample * all + queries.start) * width + head * key_dim..];
            mix::<E, S, V>(s, key, dscores, [s.splat(E::one()); V], dquery, width, count);
        }
        if let Some(dkey) = &mut self.to.dkey {
            let (width, rows) = (heads * key_dim, of_query);
            let dkey = &mut dkey[sample * keys * width + head * key_dim..];
            add_products(s, rows, queries.clone(), dscores, lanes, dkey, width);
        }
        if let Some(dvalue) = &mut self.to.dvalue {
            let width = heads * value_dim;
            let dvalue = &mut dvalue[sample * keys * width + head * value_dim..];
            add_products(s, dy, queries, weights, lanes, dvalue, width);
        }
    }
}

/// Statistics of the queries of a block.
struct WeightRows<'v, 'a, E, S: Simd<E>, const V: usize>
where
    E: CpuElement,
{
    visible: &'v Visible<'a, E>,
    largest: [S::V; V],
    inverse: [S::V; V],
    /// Means of the gradients of the weights, weighted by these.
    mean: [S::V; V],
    alpha: S::V,
    /// Weights below this count as zero: their products would be denormal numbers, with which arithmetic is many times slower.
    least: S::V,
}

impl<E: CpuElement, S: Simd<E>, const V: usize> WeightRows<'_, '_, E, S, V> {
    /// Writes the weights of a key, and alpha times the gradients of its scores.
    #[inline(always)]
    fn put(&self, s: S, key: usize, scores: [S::V; V], dweights: [S::V; V], to: &mut [E], dto: &mut [E]) {
        let scores = self.visible.limited(s, key, scores);
        for v in 0..V {
            let p = s.mul(exp_of_negative(s, s.sub(scores[v], self.largest[v])), self.inverse[v]);
            let p = s.zero_where_less(p, self.least, p);
            s.store(&mut to[v * S::LANES..], p);
            let d = s.mul(s.mul(p, s.sub(dweights[v], self.mean[v])), self.alpha);
            s.store(&mut dto[v * S::LANES..], d);
        }
    }
}

/// `to[j, :] += Σ_i weights[j][i] rows[i, :]` for all keys j over some queries i; a row of `to` begins every `stride` elements.
#[inline(always)]
fn add_products<E: CpuElement, S: Simd<E>>(
    s: S,
    rows: Head<'_, E>,
    queries: Range<usize>,
    weights: &[E],
    lanes: usize,
    to: &mut [E],
    stride: usize,
) {
    let keys = weights.len() / lanes;
    let mut d = 0;
    while d < rows.width {
        let left = rows.width - d;
        let (wide, many) = (left > S::LANES, if left > S::LANES { KEYS } else { MANY_KEYS });
        let blocks = keys / many * many;
        for j in (0..blocks).step_by(many) {
            if wide {
                add_tile::<E, S, KEYS, 2>(s, rows, queries.clone(), d, weights, lanes, j, to, stride);
            } else {
                add_tile::<E, S, MANY_KEYS, 1>(s, rows, queries.clone(), d, weights, lanes, j, to, stride);
            }
        }
        for j in blocks..keys {
            add_tile::<E, S, 1, 2>(s, rows, queries.clone(), d, weights, lanes, j, to, stride);
        }
        d += if wide { 2 * S::LANES } else { S::LANES };
    }
}

/// The same for `R` keys from `j` on and `N` vectors of features from `d` on.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn add_tile<E: CpuElement, S: Simd<E>, const R: usize, const N: usize>(
    s: S,
    rows: Head<'_, E>,
    queries: Range<usize>,
    d: usize,
    weights: &[E],
    lanes: usize,
    j: usize,
    to: &mut [E],
    stride: usize,
) {
    // Features of each vector; the second may have none.
    let mut widths = [0; N];
    for n in 0..N {
        widths[n] = rows.width.saturating_sub(d + n * S::LANES).min(S::LANES);
    }
    let at = |n: usize| (d + n * S::LANES).min(rows.width);
    let mut sums = [[s.splat(E::zero()); N]; R];
    for r in 0..R {
        let to = &to[(j + r) * stride..][..rows.width];
        for n in 0..N {
            sums[r][n] = load_part(s, to, at(n), widths[n]);
        }
    }
    let weights = &weights[j * lanes..][..R * lanes];
    for (i, query) in queries.enumerate() {
        let row = rows.row(query);
        let mut x = [s.splat(E::zero()); N];
        for n in 0..N {
            x[n] = load_part(s, row, at(n), widths[n]);
        }
        for r in 0..R {
            let weight = s.splat(weights[r * lanes + i]);
            for n in 0..N {
                sums[r][n] = s.mul_add(weight, x[n], sums[r][n]);
            }
        }
    }
    for r in 0..R {
        let to = &mut to[(j + r) * stride..][..rows.width];
        for n in 0..N {
            store_part(s, to, at(n), widths[n], sums[r][n]);
        }
    }
}
