//! A warp: which of its lanes are where, what it waits for, what it knows.

use super::clock::WarpClock;
use super::instruction::NOWHERE;
use super::registers::Registers;

/// Lanes that are at one place, and where they meet the others.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub at: u32,
    pub lanes: u32,
    /// Where the lanes below on the stack wait for these.
    pub join: u32,
}

/// What a warp waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Number of the block's barrier.
    AtBarrier(u32),
    AtClusterBarrier,
    Ended,
}

/// A warp's copies with cp.async.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    /// Groups under way, the oldest first.
    pub groups: std::collections::VecDeque<Vec<Copy>>,
    /// What no group has yet.
    pub open: Vec<Copy>,
    /// Groups so far.
    pub closed: u32,
    /// Component of clocks: group n is complete at time n + 1.
    pub component: Option<u32>,
}

/// A copy that is under way.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Offset in shared memory.
    pub to: u64,
    /// What arrives there.
    pub bytes: [u8; 16],
    pub len: u8,
}

/// A warp.
#[derive(Debug)]
pub struct Warp {
    pub registers: Registers,
    /// Its number among all that are resident.
    pub number: u32,
    /// Its block, among those that are resident.
    pub block: usize,
    /// First thread of the block that is in it.
    pub first_thread: u32,
    /// Lanes that have not ended.
    pub live: u32,
    /// Diverged paths, the one that runs last.
    pub paths: Vec<Path>,
    pub state: State,
    pub clock: WarpClock,
    pub copies: Copies,
    /// How many effects there had been when it last found a phase of an mbarrier incomplete.
    pub polled: Option<u64>,
    /// The phase of the cluster's barrier that it arrived in and has not waited for yet.
    pub cluster_phase: Option<u32>,
}

impl Warp {
    /// Warp `number` of the launch, where those that are resident are numbered from `base` on.
    pub fn new(registers: Registers, number: u32, base: u32, block: usize, first_thread: u32, lanes: u32) -> Self {
        Warp {
            registers,
            number,
            block,
            first_thread,
            live: lanes,
            paths: vec![Path { at: 0, lanes, join: NOWHERE }],
            state: State::Ready,
            clock: WarpClock::new(number, base),
            copies: Copies::default(),
            polled: None,
            cluster_phase: None,
        }
    }

    /// Ends the lanes of the running path that are in `lanes`.
    pub fn end(&mut self, lanes: u32) {
        self.live &= !lanes;
        self.paths.iter_mut().for_each(|path| path.lanes &= !lanes);
        self.settle();
    }

    /// Takes off paths without lanes, and those that have come to their join.
    pub fn settle(&mut self) {
        while self.paths.last().is_some_and(|path| path.lanes == 0 || path.at == path.join) {
            self.paths.pop();
        }
        if self.paths.is_empty() {
            self.state = State::Ended;
        }
    }

    /// The running path branches to `target` with `taken` of its lanes; the others go on. `taken_first`: which of the two runs first.
    pub fn branch(&mut self, target: u32, join: u32, taken: u32, taken_first: bool) {
        let Some(path) = self.paths.last_mut() else { return };
        let next = path.at + 1;
        let others = path.lanes & !taken;
        if others == 0 || taken == 0 {
            path.at = if others == 0 { target } else { next };
        } else {
            let within = path.join;
            // The lanes wait for each other in a path below, if there is not one already that waits there.
            if join == within {
                self.paths.pop();
            } else {
                path.at = join;
            }
            let ways = [Path { at: next, lanes: others, join }, Path { at: target, lanes: taken, join }];
            let ways = if taken_first { ways } else { [ways[1], ways[0]] };
            self.paths.extend(ways.into_iter().filter(|way| way.at != join));
        }
        self.settle();
    }
}
