//! Element by element: copies, scaling, activations, dropout.

use crate::backend::WeightGrad;
use crate::backend::ops::Strides;
use crate::cell::Activation;
use crate::dtype::Scalar;
use crate::rnn::Dropout;

/// See [`Operations::scale_add`](crate::backend::Operations::scale_add).
pub(crate) fn scale_add<E: Scalar>(alpha: f64, x: &[E], beta: f64, y: &mut [E]) {
    let (alpha, factor) = (E::of(alpha), E::of(beta));
    if beta == 0.0 {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = alpha * *x);
    } else {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = alpha * *x + factor * *y);
    }
}

/// See [`Operations::sum`](crate::backend::Operations::sum).
#[inline(always)]
pub(crate) fn sum<E: Scalar>(a: &[E], alpha: f64, b: &[E], y: &mut [E]) {
    let alpha = E::of(alpha);
    y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = *a + alpha * *b);
}

/// See [`Operations::scale`](crate::backend::Operations::scale).
pub(crate) fn scale<E: Scalar>(alpha: f64, x: &mut [E]) {
    let alpha = E::of(alpha);
    x.iter_mut().for_each(|x| *x *= alpha);
}

/// See [`Operations::strided_copy`](crate::backend::Operations::strided_copy). The shape is not empty.
pub(crate) fn strided_copy<E: Scalar>(
    shape: [usize; 4],
    from: &[E],
    from_layout: Strides,
    to: &mut [E],
    to_layout: Strides,
    grad: WeightGrad,
) {
    let [n0, n1, n2, n3] = shape;
    let (f, t) = (from_layout.strides, to_layout.strides);
    for i in 0..n0 as isize {
        for j in 0..n1 as isize {
            for k in 0..n2 as isize {
                let at = |layout: Strides, s: [isize; 4]| layout.offset as isize + i * s[0] + j * s[1] + k * s[2];
                let (read, write) = (at(from_layout, f), at(to_layout, t));
                if (f[3], t[3]) == (1, 1) {
                    let source = &from[read as usize..][..n3];
                    let target = &mut to[write as usize..][..n3];
                    match grad {
                        WeightGrad::Set => target.copy_from_slice(source),
                        WeightGrad::Add => target.iter_mut().zip(source).for_each(|(to, from)| *to += *from),
                    }
                    continue;
                }
                for l in 0..n3 as isize {
                    let value = from[(read + l * f[3]) as usize];
                    let target = &mut to[(write + l * t[3]) as usize];
                    *target = if grad == WeightGrad::Add { *target + value } else { value };
                }
            }
        }
    }
}

/// See [`Operations::multiply`](crate::backend::Operations::multiply).
pub(crate) fn multiply<E: Scalar>(a: &[E], b: &[E], out: &mut [E]) {
    out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = *a * *b);
}

/// See [`Operations::add_bias_activate`](crate::backend::Operations::add_bias_activate).
pub(crate) fn add_bias_activate<E: Scalar>(
    activation: Activation,
    bias: Option<&[E]>,
    values: &mut [E],
    inputs: Option<&mut [E]>,
) {
    if let Some(bias) = bias {
        for row in values.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(v, b)| *v += *b);
        }
    }
    if let Some(inputs) = inputs {
        inputs.copy_from_slice(values);
    }
    if activation != Activation::Linear {
        values.iter_mut().for_each(|v| *v = activation.apply(*v));
    }
}

/// See [`Operations::activation_gradient`](crate::backend::Operations::activation_gradient).
pub(crate) fn activation_gradient<E: Scalar>(activation: Activation, dy: &[E], values: &[E], dx: &mut [E]) {
    let from_input = activation.derivative_needs_input();
    for ((dx, dy), v) in dx.iter_mut().zip(dy).zip(values) {
        let y = if from_input { activation.apply(*v) } else { *v };
        *dx = *dy * activation.derivative(*v, y);
    }
}

/// See [`Operations::dropout`](crate::backend::Operations::dropout); the rows from `first` on.
#[inline(always)]
pub(crate) fn dropout<E: Scalar>(
    dropout: &Dropout,
    layer: usize,
    batch: usize,
    features: usize,
    first: usize,
    x: &[E],
    y: &mut [E],
) {
    y.copy_from_slice(x);
    for (r, row) in y.chunks_exact_mut(features).enumerate() {
        let r = first + r;
        dropout.apply(row, layer, r / batch, r % batch);
    }
}
