//! How much a property is tried: fewer and smaller problems on a device that is slow.

use std::cell::Cell;

use fused_rnn::rnn::InputKind;

use super::Recipe;

/// How many problems, and of which sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// As many as the property says, of every size.
    Full,
    /// A few small ones.
    Small,
}

thread_local! {
    static EFFORT: Cell<Effort> = const { Cell::new(Effort::Full) };
}

/// Runs `check` with this effort.
pub fn with_effort<R>(effort: Effort, check: impl FnOnce() -> R) -> R {
    EFFORT.set(effort);
    let result = check();
    EFFORT.set(Effort::Full);
    result
}

/// That of this thread.
pub fn effort() -> Effort {
    EFFORT.get()
}

/// One of two, by the effort.
pub fn by_effort<T>(full: T, small: T) -> T {
    if effort() == Effort::Full { full } else { small }
}

/// How many random problems stand for `count`.
pub fn problems(count: u64) -> u64 {
    by_effort(count, count.div_ceil(8))
}

/// Most multiply-adds of a small problem's forward pass.
const SMALL_WORK: usize = 12_000;

/// Makes a recipe small where that is the effort.
pub fn limit(recipe: &mut Recipe) {
    if effort() == Effort::Full {
        return;
    }
    recipe.descriptor.num_layers = recipe.descriptor.num_layers.min(2);
    recipe.shape.seq_len = recipe.shape.seq_len.min(5);
    // The largest size first, and by turns: none is lost.
    while recipe.work() > SMALL_WORK {
        let (shape, d) = (&mut recipe.shape, &mut recipe.descriptor);
        let half = |size: usize| size.div_ceil(2);
        let widest = if d.input == InputKind::Features { d.hidden_size.max(d.input_size) } else { d.hidden_size };
        if shape.batch >= widest && shape.batch > 1 {
            shape.batch = half(shape.batch);
        } else if d.input == InputKind::Features && d.input_size > d.hidden_size {
            d.input_size = half(d.input_size);
        } else if d.hidden_size > 1 {
            d.hidden_size = half(d.hidden_size);
            d.heads = if d.hidden_size.is_multiple_of(d.heads) { d.heads } else { 1 };
            d.proj_size = d.proj_size.map(half).filter(|size| *size < d.hidden_size);
        } else {
            shape.seq_len = half(shape.seq_len);
        }
        *recipe = recipe.clone().fitted();
    }
}
