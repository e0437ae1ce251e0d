//! Barriers in shared memory that count arrivals and bytes: [`Mbarrier`].

use super::clock::{Clock, Known};
use super::fault::{Fault, FaultKind, Result};

/// Bytes that a phase may expect at most, and may have received too many: 2^20 - 1.
const MOST_BYTES: i64 = (1 << 20) - 1;

/// An initialised mbarrier.
#[derive(Debug)]
pub struct Mbarrier {
    count: i64,
    /// Arrivals that the phase lacks.
    arrivals: i64,
    /// Bytes that the phase lacks; below zero where more came than are expected so far.
    bytes: i64,
    /// Phases that are complete.
    pub phase: u32,
    /// Its component in clocks: it is initialised at time 1, and phase n is complete at time n + 2.
    pub component: u32,
    /// What arrivals of the phase released.
    released: Clock,
    /// What complete phases released.
    completed: Clock,
}

impl Mbarrier {
    /// `base`: number of the first component of clocks.
    pub fn new(count: u32, component: u32, base: u32) -> Result<Self> {
        if count == 0 || count > MOST_BYTES as u32 {
            return Err(Fault::new(FaultKind::Mbarrier, format!("a count of {count}; expected 1 to {MOST_BYTES}")));
        }
        let count = i64::from(count);
        let (released, completed) = (Clock::new(base), Clock::new(base));
        Ok(Mbarrier { count, arrivals: count, bytes: 0, phase: 0, component, released, completed })
    }

    /// Bytes are expected in the current phase.
    pub fn expect(&mut self, bytes: u32) -> Result<()> {
        self.bytes += i64::from(bytes);
        self.check()
    }

    /// Threads arrive.
    pub fn arrive(&mut self, threads: u32, released: Option<&Clock>) -> Result<()> {
        self.arrivals -= i64::from(threads);
        if let Some(released) = released {
            self.released.join(released);
        }
        if self.arrivals < 0 {
            return Err(Fault::new(
                FaultKind::Mbarrier,
                format!("{} arrivals in phase {}; expected {}", self.count - self.arrivals, self.phase, self.count),
            ));
        }
        self.advance();
        Ok(())
    }

    /// Bytes of an asynchronous store have come.
    pub fn complete(&mut self, bytes: u32, released: &Clock) -> Result<()> {
        self.bytes -= i64::from(bytes);
        self.released.join(released);
        self.check()?;
        self.advance();
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.bytes.abs() > MOST_BYTES {
            return Err(Fault::new(
                FaultKind::Mbarrier,
                format!("its phase {} lacks {} bytes; expected at most {MOST_BYTES}", self.phase, self.bytes),
            ));
        }
        Ok(())
    }

    fn advance(&mut self) {
        if self.arrivals == 0 && self.bytes == 0 {
            self.phase += 1;
            self.arrivals = self.count;
            self.completed.join(&self.released);
            self.completed.learn(self.component, Known { all: self.phase + 1, some: 0, lanes: 0 });
        }
    }

    /// When what belongs to the current phase is known to have happened.
    pub fn current(&self) -> u32 {
        self.phase + 2
    }

    /// What who waited for the phase of this parity learns, where that phase is complete.
    pub fn test(&self, parity: u32) -> Result<Option<&Clock>> {
        match parity {
            0 | 1 => Ok((self.phase % 2 != parity).then_some(&self.completed)),
            _ => Err(Fault::new(FaultKind::Mbarrier, format!("a wait for parity {parity}; expected 0 or 1"))),
        }
    }

    /// What a phase that has begun still lacks: arrivals, and bytes.
    pub fn lacks(&self) -> Option<(i64, i64)> {
        (self.arrivals != self.count || self.bytes != 0).then_some((self.arrivals, self.bytes))
    }
}
