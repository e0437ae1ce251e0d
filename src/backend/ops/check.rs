//! Lengths of calls' tensors, with the geometry that follows from them.

use super::arguments::{AttentionShape, MatMul, Orientation, Strides};
use super::status::STATUS_LEN;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::rnn::shape::check_len;

pub(crate) fn matmul(product: &MatMul, a: usize, b: usize, c: usize) -> Result<()> {
    let MatMul { count, orientation, m, n, k } = *product;
    let (a_shape, b_shape) = match orientation {
        Orientation::Nt => ([count, m, k], [count, n, k]),
        Orientation::Nn => ([count, m, k], [count, k, n]),
        Orientation::Tn => ([count, k, m], [count, k, n]),
    };
    check_len("a", &a_shape, a)?;
    check_len("b", &b_shape, b)?;
    check_len("c", &[count, m, n], c)
}

/// A bias of a product's columns.
pub(crate) fn bias(product: &MatMul, bias: usize) -> Result<()> {
    check_len("bias", &[product.n], bias)
}

/// Tensors that must be as long as the first.
pub(crate) fn same(first: usize, others: &[(&str, Option<usize>)]) -> Result<()> {
    others.iter().try_for_each(|(name, len)| len.map_or(Ok(()), |len| check_len(name, &[first], len)))
}

/// A workspace may be larger than needed.
pub(crate) fn workspace(needed: usize, got: usize) -> Result<()> {
    if got >= needed {
        return Ok(());
    }
    let expected = format!("at least {needed} elements (see Operations::workspace)");
    Err(Error::shape("workspace", expected, format!("{got} elements")))
}

pub(crate) fn status(len: usize) -> Result<()> {
    check_len("status", &[STATUS_LEN], len)
}

/// Rows of a matrix of `len` elements.
pub(crate) fn rows(tensor: &str, len: usize, columns: usize) -> Result<usize> {
    if columns == 0 {
        return Err(Error::ZeroSize { name: "columns" });
    }
    if !len.is_multiple_of(columns) {
        return Err(Error::shape(tensor, format!("a multiple of {columns} elements"), format!("{len} elements")));
    }
    Ok(len / columns)
}

/// Lengths of a loss's tensors; the rows.
pub(crate) fn loss(
    loss: Loss,
    columns: usize,
    targets: usize,
    predictions: usize,
    weights: Option<usize>,
    gradient: Option<usize>,
) -> Result<usize> {
    let rows = loss.check_lengths(columns, targets, predictions)?;
    same(predictions, &[("gradient", gradient)])?;
    same(rows, &[("weights", weights)])?;
    Ok(rows)
}

/// Rows of the table.
pub(crate) fn gather(width: usize, table: usize, indices: usize, out: usize) -> Result<usize> {
    let rows = rows("table", table, width)?;
    check_len("out", &[indices, width], out)?;
    Ok(rows)
}

/// Rows of a matrix, and that there are as many as `rows` elsewhere.
pub(crate) fn by_rows(rows: usize, x: usize) -> Result<usize> {
    if rows == 0 || !x.is_multiple_of(rows) {
        return Err(Error::shape("x", format!("a multiple of {rows} elements"), format!("{x} elements")));
    }
    Ok(x / rows)
}

/// The lengths of x and y under [`super::Operations::sum_axis`].
pub(crate) fn axis([outer, count, inner]: [usize; 3], x: usize, y: usize) -> Result<()> {
    check_len("x", &[outer, count, inner], x)?;
    check_len("y", &[outer, inner], y)
}

/// Whether every index of a shape leads into a tensor of `len` elements.
fn inside(tensor: &str, shape: [usize; 4], layout: Strides, len: usize) -> Result<()> {
    let wrong = |got: String| Error::shape(tensor, format!("a tensor that holds {shape:?} under {layout:?}"), got);
    let (mut low, mut high) = (layout.offset as i128, layout.offset as i128);
    for (n, stride) in shape.into_iter().zip(layout.strides) {
        let span = (n as i128 - 1).saturating_mul(stride as i128);
        (low, high) = (low.saturating_add(span.min(0)), high.saturating_add(span.max(0)));
    }
    if low < 0 || high >= len as i128 {
        return Err(wrong(format!("{len} elements, of which it needs {low} to {high}")));
    }
    Ok(())
}

/// Whether a strided copy stays inside, and writes no element twice. `false`: there is nothing to copy.
pub(crate) fn strided(shape: [usize; 4], from: (Strides, usize), to: (Strides, usize)) -> Result<bool> {
    if shape.contains(&0) {
        return Ok(false);
    }
    inside("from", shape, from.0, from.1)?;
    inside("to", shape, to.0, to.1)?;
    let mut place = shape.iter();
    let mut axes = to.0.strides.map(|stride| (stride.unsigned_abs(), *place.next().unwrap_or(&1)));
    axes.sort_unstable();
    let mut span = 1usize;
    for (stride, n) in axes.into_iter().filter(|(_, n)| *n > 1) {
        if stride < span {
            return Err(Error::shape("to", "strides under which no element is written twice", format!("{:?}", to.0)));
        }
        span = stride.saturating_mul(n - 1).saturating_add(span);
    }
    Ok(true)
}

pub(crate) fn normalized(
    columns: usize,
    x: usize,
    others: &[(&str, Option<usize>)],
    vectors: &[(&str, Option<usize>)],
) -> Result<usize> {
    let rows = rows("x", x, columns)?;
    same(x, others)?;
    same(columns, vectors)?;
    Ok(rows)
}

/// Rows that share one of the mask's; 1 without a mask.
pub(crate) fn softmax(
    rows: usize,
    columns: usize,
    keys: Option<(usize, usize)>,
    causal: Option<usize>,
) -> Result<usize> {
    if causal == Some(0) {
        return Err(Error::ZeroSize { name: "queries" });
    }
    let Some((len, by)) = keys else { return Ok(1) };
    if by == 0 || !rows.is_multiple_of(by) {
        return Err(Error::shape("keys", format!("rows a mask that divide {rows}"), by.to_string()));
    }
    check_len("keys", &[rows / by, columns], len)?;
    Ok(by)
}

/// Lengths of an attention's tensors: of queries, keys, values and mask, of y and statistics, and of what else is shaped as one of these.
pub(crate) fn attention(
    shape: &AttentionShape,
    [query, key, value, y, statistics]: [usize; 5],
    mask: Option<usize>,
    others: [(&str, Option<usize>); 4],
) -> Result<()> {
    let AttentionShape { batch, heads, queries, keys, key_dim, value_dim, .. } = *shape;
    let sizes =
        [(heads, "heads"), (queries, "queries"), (keys, "keys"), (key_dim, "key_dim"), (value_dim, "value_dim")];
    if let Some((_, name)) = sizes.into_iter().find(|(size, _)| *size == 0) {
        return Err(Error::ZeroSize { name });
    }
    check_len("query", &[batch, queries, heads, key_dim], query)?;
    check_len("key", &[batch, keys, heads, key_dim], key)?;
    check_len("value", &[batch, keys, heads, value_dim], value)?;
    check_len("y", &[batch, queries, heads, value_dim], y)?;
    check_len("statistics", &[batch, queries, heads, 2], statistics)?;
    mask.map_or(Ok(()), |mask| check_len("mask", &[batch, keys], mask))?;
    let expected = [y, query, key, value];
    let mut others = others.into_iter().zip(expected);
    others.try_for_each(|((name, len), expected)| len.map_or(Ok(()), |len| check_len(name, &[expected], len)))
}

/// The lengths of what [`super::MaskOrder`] writes; the batch.
pub(crate) fn order(
    steps: usize,
    mask: usize,
    parts: [(&str, usize); 3],
    by_sample: [(&str, usize); 2],
) -> Result<usize> {
    let batch = rows("mask", mask, steps)?;
    parts.into_iter().try_for_each(|(name, len)| check_len(name, &[batch, steps], len))?;
    by_sample.into_iter().try_for_each(|(name, len)| check_len(name, &[batch], len))?;
    Ok(batch)
}
