//! The flow of control: where lanes that took different branches come together again, and which registers can share a place.

use super::instruction::NOWHERE;

/// What an instruction says of the flow and of registers, all banks numbered through.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Where it may branch to.
    pub target: Option<u32>,
    /// Whether the next instruction may follow.
    pub falls_through: bool,
    pub reads: Vec<u32>,
    /// What it writes in every lane that comes here; what is written under a predicate is read as well.
    pub writes: Vec<u32>,
}

/// Pieces of straight code.
struct Blocks {
    /// First instruction of each, and the end.
    starts: Vec<usize>,
    successors: Vec<Vec<usize>>,
    /// The block of each instruction.
    of: Vec<usize>,
}

impl Blocks {
    fn new(steps: &[Step]) -> Self {
        let mut leads = vec![false; steps.len() + 1];
        leads[0] = true;
        for (i, step) in steps.iter().enumerate() {
            if let Some(target) = step.target {
                leads[target as usize] = true;
            }
            if step.target.is_some() || !step.falls_through {
                leads[i + 1] = true;
            }
        }
        let starts: Vec<_> = (0..steps.len()).filter(|i| leads[*i]).chain([steps.len()]).collect();
        let mut of = vec![0; steps.len()];
        for (block, bounds) in starts.windows(2).enumerate() {
            of[bounds[0]..bounds[1]].fill(block);
        }
        let successors = starts.windows(2).map(|bounds| {
            let last = &steps[bounds[1] - 1];
            let next = (last.falls_through && bounds[1] < steps.len()).then(|| of[bounds[1]]);
            last.target.map(|target| of[target as usize]).into_iter().chain(next).collect()
        });
        let successors = successors.collect();
        Blocks { starts, successors, of }
    }

    fn len(&self) -> usize {
        self.successors.len()
    }
}

/// For each instruction that branches, the instruction where all its ways meet: the first of its block's immediate
/// post-dominator; [`NOWHERE`] where they only end.
pub fn joins(steps: &[Step]) -> Vec<u32> {
    let blocks = Blocks::new(steps);
    let end = blocks.len();
    // Post-dominators are dominators of the reversed flow, from a common end (Cooper, Harvey, Kennedy).
    let mut predecessors = vec![Vec::new(); end + 1];
    let mut ends = Vec::new();
    for (block, successors) in blocks.successors.iter().enumerate() {
        successors.iter().for_each(|next| predecessors[*next].push(block));
        if successors.is_empty() {
            ends.push(block);
        }
    }
    predecessors[end] = ends;
    // Orders blocks so that each comes after all that can only be reached through it, going backwards.
    let mut order = Vec::new();
    let mut seen = vec![false; end + 1];
    let mut pending = vec![(end, 0)];
    seen[end] = true;
    while let Some((block, next)) = pending.pop() {
        match predecessors[block].get(next) {
            None => order.push(block),
            Some(before) => {
                pending.push((block, next + 1));
                if !std::mem::replace(&mut seen[*before], true) {
                    pending.push((*before, 0));
                }
            }
        }
    }
    let mut position = vec![0; end + 1];
    order.iter().enumerate().for_each(|(i, block)| position[*block] = i);
    let mut immediate = vec![usize::MAX; end + 1];
    immediate[end] = end;
    let mut changed = true;
    while changed {
        changed = false;
        for block in order.iter().rev().copied().filter(|block| *block != end) {
            let ways = &blocks.successors[block];
            let ways = ways.iter().copied().chain(ways.is_empty().then_some(end));
            let mut common = usize::MAX;
            for way in ways.filter(|way| immediate[*way] != usize::MAX) {
                let (mut a, mut b) = (way, if common == usize::MAX { way } else { common });
                while a != b {
                    if position[a] < position[b] { a = immediate[a] } else { b = immediate[b] }
                }
                common = a;
            }
            if common != immediate[block] {
                (immediate[block], changed) = (common, true);
            }
        }
    }
    let join = |i: usize| match immediate[blocks.of[i]] {
        usize::MAX => NOWHERE,
        block if block == end => NOWHERE,
        block => blocks.starts[block] as u32,
    };
    (0..steps.len()).map(|i| if steps[i].target.is_some() { join(i) } else { NOWHERE }).collect()
}

/// For each register the first and the last instruction where its value matters; nothing where it never does.
pub fn lifetimes(steps: &[Step], registers: usize) -> Vec<Option<(usize, usize)>> {
    let blocks = Blocks::new(steps);
    let words = registers.div_ceil(64);
    let bit = |register: u32| (register as usize / 64, 1u64 << (register % 64));
    let (mut used, mut defined) = (vec![0u64; words * blocks.len()], vec![0u64; words * blocks.len()]);
    for (block, bounds) in blocks.starts.windows(2).enumerate() {
        let base = block * words;
        for step in &steps[bounds[0]..bounds[1]] {
            for (word, mask) in step.reads.iter().map(|r| bit(*r)) {
                used[base + word] |= mask & !defined[base + word];
            }
            for (word, mask) in step.writes.iter().map(|r| bit(*r)) {
                defined[base + word] |= mask;
            }
        }
    }
    let mut live_in = used.clone();
    let mut live_out = vec![0u64; words * blocks.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for block in (0..blocks.len()).rev() {
            for next in &blocks.successors[block] {
                for word in 0..words {
                    live_out[block * words + word] |= live_in[next * words + word];
                }
            }
            for at in block * words..(block + 1) * words {
                let live = used[at] | live_out[at] & !defined[at];
                changed |= live != live_in[at];
                live_in[at] = live;
            }
        }
    }
    let mut lifetimes: Vec<Option<(usize, usize)>> = vec![None; registers];
    let mut extend = |register: usize, at: usize| {
        let lifetime = lifetimes[register].get_or_insert((at, at));
        *lifetime = (lifetime.0.min(at), lifetime.1.max(at));
    };
    for (block, bounds) in blocks.starts.windows(2).enumerate() {
        for (live, at) in [(&live_in, bounds[0]), (&live_out, bounds[1])] {
            for word in 0..words {
                let mut bits = live[block * words + word];
                while bits != 0 {
                    extend(word * 64 + bits.trailing_zeros() as usize, at);
                    bits &= bits - 1;
                }
            }
        }
        for at in bounds[0]..bounds[1] {
            steps[at].reads.iter().chain(&steps[at].writes).for_each(|register| extend(*register as usize, at));
        }
    }
    lifetimes
}

/// A place for each lifetime, so that those which overlap have different places; and how many places there are.
pub fn places(lifetimes: &[Option<(usize, usize)>]) -> (Vec<u32>, usize) {
    let mut order: Vec<_> = (0..lifetimes.len()).filter(|i| lifetimes[*i].is_some()).collect();
    order.sort_by_key(|i| lifetimes[*i]);
    let mut ends: Vec<(usize, u32)> = Vec::new();
    let (mut free, mut count) = (Vec::new(), 0);
    let mut places = vec![0; lifetimes.len()];
    for i in order {
        let Some((start, end)) = lifetimes[i] else { continue };
        ends.retain(|(end, place)| {
            let over = *end < start;
            if over {
                free.push(*place);
            }
            !over
        });
        places[i] = free.pop().unwrap_or_else(|| {
            count += 1;
            count - 1
        });
        ends.push((end, places[i]));
    }
    (places, count as usize)
}
