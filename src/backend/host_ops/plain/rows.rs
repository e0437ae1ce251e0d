//! Rows: gathered, scattered, scaled, selected, masked, ordered; softmax over them.

use crate::backend::WeightGrad;
use crate::backend::ops::{MaskOrder, NO_ROW};
use crate::dtype::Scalar;
use crate::error::{Error, Result};

fn no_such_row(position: usize, rows: usize, got: u32) -> Error {
    Error::option(format!("rows[{position}]"), format!("below the {rows} rows of the table"), got)
}

/// See [`Operations::gather`](crate::backend::Operations::gather).
pub(crate) fn gather<E: Scalar>(width: usize, table: &[E], rows: &[u32], out: &mut [E]) -> Result<()> {
    let count = table.len() / width;
    for (i, (row, out)) in rows.iter().zip(out.chunks_exact_mut(width)).enumerate() {
        match *row {
            NO_ROW => out.fill(E::zero()),
            row if (row as usize) < count => out.copy_from_slice(&table[row as usize * width..][..width]),
            row => return Err(no_such_row(i, count, row)),
        }
    }
    Ok(())
}

/// See [`Operations::scatter_add`](crate::backend::Operations::scatter_add).
pub(crate) fn scatter_add<E: Scalar>(
    width: usize,
    rows: &[u32],
    dout: &[E],
    dtable: &mut [E],
    grad: WeightGrad,
) -> Result<()> {
    let count = dtable.len() / width;
    // Before anything is written.
    if let Some(i) = rows.iter().position(|row| *row != NO_ROW && *row as usize >= count) {
        return Err(no_such_row(i, count, rows[i]));
    }
    if grad == WeightGrad::Set {
        dtable.fill(E::zero());
    }
    for (from, row) in dout.chunks_exact(width).zip(rows).filter(|(_, row)| **row != NO_ROW) {
        dtable[*row as usize * width..][..width].iter_mut().zip(from).for_each(|(to, from)| *to += *from);
    }
    Ok(())
}

/// See [`Operations::scale_rows`](crate::backend::Operations::scale_rows). There is at least one column.
pub(crate) fn scale_rows<E: Scalar>(columns: usize, factors: &[E], inverse: bool, x: &[E], y: &mut [E]) {
    for ((x, y), factor) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)).zip(factors) {
        match (inverse, *factor == E::zero()) {
            (false, _) => y.iter_mut().zip(x).for_each(|(y, x)| *y = *x * *factor),
            (true, false) => y.iter_mut().zip(x).for_each(|(y, x)| *y = *x / *factor),
            (true, true) => y.fill(E::zero()),
        }
    }
}

/// See [`Operations::select_rows`](crate::backend::Operations::select_rows).
pub(crate) fn select_rows<E: Scalar>(columns: usize, mask: &[E], a: &[E], b: Option<&[E]>, out: &mut [E]) {
    for (row, valid) in mask.iter().enumerate() {
        let range = row * columns..(row + 1) * columns;
        let to = &mut out[range.clone()];
        match (*valid != E::zero(), b) {
            (true, _) => to.copy_from_slice(&a[range]),
            (false, Some(b)) => to.copy_from_slice(&b[range]),
            (false, None) => to.fill(E::zero()),
        }
    }
}

/// See [`Operations::softmax`](crate::backend::Operations::softmax); `valid` says for a row and a column whether it takes part.
pub(crate) fn softmax<E: Scalar>(columns: usize, x: &[E], valid: impl Fn(usize, usize) -> bool, y: &mut [E]) {
    for (row, (x, y)) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)).enumerate() {
        // Nothing is larger than a NaN, which makes the sum NaN.
        let mut largest = E::neg_infinity();
        for c in (0..columns).filter(|c| valid(row, *c)) {
            if x[c] > largest {
                largest = x[c];
            }
        }
        let mut total = E::zero();
        for c in 0..columns {
            y[c] = if valid(row, c) { (x[c] - largest).exp() } else { E::zero() };
            total += y[c];
        }
        for c in (0..columns).filter(|c| valid(row, *c)) {
            y[c] /= total;
        }
    }
}

/// See [`Operations::softmax_gradient`](crate::backend::Operations::softmax_gradient).
pub(crate) fn softmax_gradient<E: Scalar>(columns: usize, y: &[E], dy: &[E], dx: &mut [E]) {
    for ((y, dy), dx) in y.chunks_exact(columns).zip(dy.chunks_exact(columns)).zip(dx.chunks_exact_mut(columns)) {
        let sum: E = y.iter().zip(dy).map(|(y, dy)| *y * *dy).sum();
        for c in 0..columns {
            dx[c] = y[c] * (dy[c] - sum);
        }
    }
}

/// See [`Operations::mask_not_equal`](crate::backend::Operations::mask_not_equal).
pub(crate) fn mask_not_equal<E: Scalar>(columns: usize, x: &[E], value: f64, mask: &mut [E]) {
    let value = E::of(value);
    for (mask, x) in mask.iter_mut().zip(x.chunks_exact(columns)) {
        *mask = if x.iter().any(|x| *x != value) { E::one() } else { E::zero() };
    }
}

/// [`MaskOrder`] in the host's memory.
pub struct HostMaskOrder<'a, E> {
    pub(crate) rows: &'a mut [u32],
    pub(crate) inverse: &'a mut [u32],
    pub(crate) hold: &'a mut [u32],
    pub(crate) lengths: &'a mut [u32],
    pub(crate) any: &'a mut [E],
}

impl<'a, E: Scalar> HostMaskOrder<'a, E> {
    pub(crate) fn new(order: MaskOrder<'a>) -> Result<Self> {
        Ok(HostMaskOrder {
            rows: order.rows.host()?,
            inverse: order.inverse.host()?,
            hold: order.hold.host()?,
            lengths: order.lengths.host()?,
            any: order.any.host()?,
        })
    }
}

/// See [`Operations::mask_order`](crate::backend::Operations::mask_order).
pub(crate) fn mask_order<E: Scalar>(steps: usize, reverse: bool, mask: &[E], order: HostMaskOrder<'_, E>) {
    let HostMaskOrder { rows, inverse, hold, lengths, any } = order;
    for b in 0..lengths.len() {
        let first = b * steps;
        let mut count = 0;
        for t in first..first + steps {
            inverse[t] = NO_ROW;
            if mask[t] != E::zero() {
                rows[first + count] = t as u32;
                inverse[t] = (first + count) as u32;
                count += 1;
            }
        }
        rows[first + count..first + steps].fill(NO_ROW);
        let mut last = NO_ROW;
        for step in 0..steps {
            let t = first + if reverse { steps - 1 - step } else { step };
            if inverse[t] != NO_ROW {
                last = inverse[t];
            }
            hold[t] = last;
        }
        lengths[b] = count.max(1) as u32;
        any[b] = if count > 0 { E::one() } else { E::zero() };
    }
}

/// See [`Operations::hold_gradient`](crate::backend::Operations::hold_gradient).
pub(crate) fn hold_gradient<E: Scalar>(width: usize, hold: &[u32], dy: &[E], dx: &mut [E]) -> Result<()> {
    dx.fill(E::zero());
    for (i, row) in hold.iter().enumerate().filter(|(_, row)| **row != NO_ROW) {
        if *row as usize >= hold.len() {
            return Err(Error::option(format!("hold[{i}]"), format!("below the {} rows", hold.len()), row));
        }
        let to = &mut dx[*row as usize * width..][..width];
        to.iter_mut().zip(&dy[i * width..]).for_each(|(to, from)| *to += *from);
    }
    Ok(())
}

/// See [`Operations::indices`](crate::backend::Operations::indices).
pub(crate) fn indices<E: Scalar>(rows: usize, x: &[E], out: &mut [u32]) -> Result<()> {
    for (i, (x, out)) in x.iter().zip(out).enumerate() {
        let value = x.wide();
        if !(value >= 0.0 && value < rows as f64 && value.fract() == 0.0) {
            return Err(Error::option(format!("element {i}"), format!("a whole number below {rows}"), value));
        }
        *out = value as u32;
    }
    Ok(())
}
