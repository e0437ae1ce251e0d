//! What happened before what: vector clocks of warps, precise to the lane.
//!
//! Every warp counts what it does by a clock of its own, which advances when its lanes synchronise and when one of them releases
//! something. A [`Clock`] says for each warp up to which count its accesses are known to have happened. Mbarriers have components too:
//! their phases, which asynchronous stores are dated by.

use std::rc::Rc;

use super::instruction::Scope;

/// What is known of one warp: everything up to `all`, and everything that `lanes` did up to `some`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub all: u32,
    pub some: u32,
    pub lanes: u32,
}

impl Known {
    fn join(&mut self, other: Known) {
        self.all = self.all.max(other.all);
        if other.lanes != 0 {
            match self.some.cmp(&other.some) {
                std::cmp::Ordering::Less => (self.some, self.lanes) = (other.some, other.lanes),
                std::cmp::Ordering::Equal => self.lanes |= other.lanes,
                std::cmp::Ordering::Greater => {}
            }
        }
        if self.some <= self.all {
            (self.some, self.lanes) = (0, 0);
        }
    }
}

/// A vector clock. Components are numbered from a base, that of the first warp that is resident: of others nothing is known.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    base: u32,
    known: Vec<Known>,
}

impl Clock {
    pub fn new(base: u32) -> Self {
        Clock { base, known: Vec::new() }
    }

    /// The lanes of `who` that are known to have done what they did at `clock`.
    fn lanes(&self, who: u32, clock: u32) -> u32 {
        match who.checked_sub(self.base).and_then(|index| self.known.get(index as usize)) {
            Some(known) if clock <= known.all => u32::MAX,
            Some(known) if clock <= known.some => known.lanes,
            _ => 0,
        }
    }

    pub fn join(&mut self, other: &Clock) {
        if self.known.len() < other.known.len() {
            self.base = other.base;
            self.known.resize(other.known.len(), Known::default());
        }
        self.known.iter_mut().zip(&other.known).for_each(|(known, more)| known.join(*more));
    }

    /// Learns of one component.
    pub fn learn(&mut self, who: u32, known: Known) {
        let index = (who - self.base) as usize;
        if self.known.len() <= index {
            self.known.resize(index + 1, Known::default());
        }
        self.known[index].join(known);
    }
}

/// What some lanes have of a clock.
type OfLanes = Vec<(u32, Scope, Rc<Clock>)>;

/// A warp's own time, and what it knows of others.
#[derive(Clone, Debug, Default)]
pub struct WarpClock {
    /// The warp's component.
    pub id: u32,
    /// When the next access happens.
    pub now: u32,
    /// What all lanes know.
    known: Clock,
    /// What some lanes know besides.
    pending: OfLanes,
    /// What lanes released by a fence, for their later relaxed stores.
    fenced: OfLanes,
    /// What lanes read by relaxed loads, for their later fences.
    observed: OfLanes,
    /// Mbarriers that the warp initialised, and those among them that a fence has made known to the cluster.
    initialised: Clock,
    announced: Clock,
}

impl WarpClock {
    /// That of warp `id`, where components are numbered from `base` on.
    pub fn new(id: u32, base: u32) -> Self {
        WarpClock { id, now: 1, known: Clock::new(base), initialised: Clock::new(base), ..WarpClock::default() }
    }

    /// Whether an access of lanes `authors` of warp `who` happened before what `lane` does now.
    #[inline(always)]
    pub fn ordered(&self, lane: u32, who: u32, clock: u32, authors: u32) -> bool {
        // Nearly always all lanes know it, or the lane itself did it.
        match self.known.known.get(who.wrapping_sub(self.known.base) as usize) {
            Some(known) if clock <= known.all => true,
            _ => {
                (who == self.id && authors == 1 << lane && clock <= self.now)
                    || self.ordered_of(lane, who, clock, authors)
            }
        }
    }

    fn ordered_of(&self, lane: u32, who: u32, clock: u32, authors: u32) -> bool {
        let mut others = authors & !self.known.lanes(who, clock);
        if who == self.id && clock <= self.now {
            others &= !(1 << lane);
        }
        for (of, _, known) in &self.pending {
            if others != 0 && of >> lane & 1 == 1 {
                others &= !known.lanes(who, clock);
            }
        }
        others == 0
    }

    /// A clock that knows when one component's `time` is.
    pub fn knowing(&self, component: u32, time: u32) -> Clock {
        let mut clock = Clock::new(self.known.base);
        clock.learn(component, Known { all: time, some: 0, lanes: 0 });
        clock
    }

    /// All lanes of the warp synchronise: what one knows, all know. Gives what that is.
    pub fn synchronise(&mut self) -> &Clock {
        for (_, _, known) in std::mem::take(&mut self.pending) {
            self.known.join(&known);
        }
        self.known.learn(self.id, Known { all: self.now, some: 0, lanes: 0 });
        self.now += 1;
        &self.known
    }

    /// What `lanes` know now, for others.
    pub fn message(&self, lanes: u32) -> Clock {
        let mut message = self.known.clone();
        self.pending.iter().filter(|(of, ..)| of & lanes != 0).for_each(|(_, _, known)| message.join(known));
        message.learn(self.id, Known { all: 0, some: self.now, lanes });
        message
    }

    /// The same, after which the warp's time advances: what follows is not part of it.
    pub fn release(&mut self, lanes: u32) -> Clock {
        let message = self.message(lanes);
        self.now += 1;
        message
    }

    /// `lanes` of the `live` ones learn what another released.
    pub fn acquire(&mut self, lanes: u32, live: u32, message: &Clock) {
        if lanes == live {
            self.known.join(message);
        } else if let Some((.., known)) = self.pending.iter_mut().find(|(of, ..)| *of == lanes) {
            Rc::make_mut(known).join(message);
        } else {
            self.pending.push((lanes, Scope::System, Rc::new(message.clone())));
        }
    }

    /// `lane` initialised the mbarrier of this component, which happens at its time 1.
    pub fn initialise(&mut self, lane: u32, live: u32, component: u32) {
        let made = self.knowing(component, 1);
        self.initialised.join(&made);
        self.acquire(1 << lane, live, &made);
    }

    /// A fence for initialised mbarriers.
    pub fn announce(&mut self) {
        self.announced.join(&self.initialised);
    }

    /// What the warp's relaxed arrivals tell of: mbarriers that a fence has announced.
    pub fn announced(&self) -> &Clock {
        &self.announced
    }

    /// A fence that releases, of `lanes`.
    pub fn fence_release(&mut self, lanes: u32, scope: Scope) {
        let message = Rc::new(self.release(lanes));
        self.fenced.retain(|(of, known, _)| of & !lanes != 0 || *known > scope);
        self.fenced.push((lanes, scope, message));
    }

    /// What a relaxed store of `lane` carries for who reads it and then acquires.
    pub fn fenced(&self, lane: u32) -> Option<(Scope, Rc<Clock>)> {
        let mut of_lane = self.fenced.iter().rev().filter(|(lanes, ..)| lanes >> lane & 1 == 1);
        of_lane.next().map(|(_, scope, message)| (*scope, Rc::clone(message)))
    }

    /// A relaxed load of `lane` read something released.
    pub fn observe(&mut self, lane: u32, scope: Scope, message: &Rc<Clock>) {
        if !self.observed.iter().any(|(lanes, _, known)| lanes >> lane & 1 == 1 && Rc::ptr_eq(known, message)) {
            self.observed.push((1 << lane, scope, Rc::clone(message)));
        }
    }

    /// A fence that acquires, of `lanes`. What was observed at a scope that the fence does not reach stays unknown.
    pub fn fence_acquire(&mut self, lanes: u32, live: u32, reaches: impl Fn(Scope) -> bool) {
        for (of, scope, message) in std::mem::take(&mut self.observed) {
            if of & lanes != 0 && reaches(scope) {
                self.acquire(of & lanes, live, &message);
            } else {
                self.observed.push((of, scope, message));
            }
        }
    }
}
