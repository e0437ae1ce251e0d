//! Barriers of a block and of a cluster.

use super::clock::Clock;
use super::fault::{Fault, FaultKind, Result};
use super::machine::Machine;
use super::warp::{State, Warp};

/// A barrier of a block.
#[derive(Debug, Default)]
pub struct BlockBarrier {
    /// Threads that have arrived.
    arrived: u32,
    /// Threads that it is for.
    threads: u32,
    /// Warps that wait.
    waiting: Vec<usize>,
    released: Clock,
}

/// The barrier of a cluster.
#[derive(Debug, Default)]
pub struct ClusterBarrier {
    /// Phases that are complete.
    phase: u32,
    /// Warps that have arrived in this one.
    arrived: u32,
    /// Warps that wait for it, and whether they acquire.
    waiting: Vec<(usize, bool)>,
    /// What was released in this phase and before.
    released: Clock,
}

/// A warp comes to a barrier.
#[derive(Clone, Debug)]
pub enum Arrival {
    Block { number: u32, threads: u32, wait: bool },
    Cluster { released: Clock },
    WaitForCluster { acquire: bool },
}

impl Machine<'_> {
    /// A warp arrives, and whoever waited for it goes on.
    pub fn arrive(&mut self, number: usize, arrival: Arrival) -> Result<()> {
        match arrival {
            Arrival::Block { number: barrier, threads, wait } => self.arrive_at_block(number, barrier, threads, wait),
            Arrival::Cluster { released } => self.arrive_at_cluster(number, released),
            Arrival::WaitForCluster { acquire } => self.wait_for_cluster(number, acquire),
        }
    }

    fn arrive_at_block(&mut self, number: usize, barrier: u32, threads: u32, wait: bool) -> Result<()> {
        let misused = |problem: String| Err(Fault::new(FaultKind::Barrier, problem));
        let Some(warp) = self.warps[number].as_mut() else { return Ok(()) };
        let block = &mut self.blocks[warp.block];
        if barrier > 15
            || threads == 0
            || !threads.is_multiple_of(32)
            || threads > self.launch.block.next_multiple_of(32)
        {
            return misused(format!(
                "barrier {barrier} for {threads} threads of a block of {}; expected a number up to 15 and whole warps of the block",
                self.launch.block
            ));
        }
        let state = block.barriers.entry(barrier).or_default();
        if state.arrived > 0 && state.threads != threads {
            return misused(format!(
                "barrier {barrier} for {threads} threads; others came to it for {}",
                state.threads
            ));
        }
        state.threads = threads;
        state.arrived += 32;
        state.released.join(warp.clock.synchronise());
        if wait {
            warp.state = State::AtBarrier(barrier);
            state.waiting.push(number);
        }
        if state.arrived > threads {
            return misused(format!("{} threads at barrier {barrier}; expected {threads}", state.arrived));
        }
        if state.arrived == threads {
            let done = std::mem::take(state);
            for waiting in done.waiting {
                if let Some(warp) = self.warps[waiting].as_mut() {
                    warp.state = State::Ready;
                    let live = warp.live;
                    warp.clock.acquire(live, live, &done.released);
                }
            }
        }
        Ok(())
    }

    fn arrive_at_cluster(&mut self, number: usize, released: Clock) -> Result<()> {
        let Some(warp) = self.warps[number].as_mut() else { return Ok(()) };
        let cluster = &mut self.clusters[warp.block / self.launch.cluster as usize];
        if warp.cluster_phase.replace(cluster.phase).is_some() {
            return Err(Fault::new(
                FaultKind::Barrier,
                "a second arrival at the cluster's barrier; expected a wait in between",
            ));
        }
        cluster.arrived += 1;
        cluster.released.join(&released);
        if cluster.arrived == self.launch.cluster * self.topology.warps_of_block {
            (cluster.phase, cluster.arrived) = (cluster.phase + 1, 0);
            for (waiting, acquire) in std::mem::take(&mut cluster.waiting) {
                if let Some(warp) = self.warps[waiting].as_mut() {
                    pass_cluster(warp, acquire, &cluster.released);
                }
            }
        }
        Ok(())
    }

    fn wait_for_cluster(&mut self, number: usize, acquire: bool) -> Result<()> {
        let Some(warp) = self.warps[number].as_mut() else { return Ok(()) };
        let Some(phase) = warp.cluster_phase else {
            return Err(Fault::new(FaultKind::Barrier, "a wait for the cluster's barrier; expected an arrival before"));
        };
        let cluster = &mut self.clusters[warp.block / self.launch.cluster as usize];
        if cluster.phase > phase {
            pass_cluster(warp, acquire, &cluster.released);
        } else {
            warp.state = State::AtClusterBarrier;
            cluster.waiting.push((number, acquire));
        }
        Ok(())
    }
}

/// A warp goes on after the cluster's barrier.
fn pass_cluster(warp: &mut Warp, acquire: bool, released: &Clock) {
    warp.state = State::Ready;
    warp.cluster_phase = None;
    if acquire {
        warp.clock.acquire(warp.live, warp.live, released);
    }
}
