//! Measuring one point: ours and the peers' in turn.

use std::time::{Duration, Instant};

use fused_rnn::rnn::{InputKind, RnnDescriptor, RnnShape};
use fused_rnn::{Device, Error, Result};

use super::Args;
use super::ceilings::Measured;
use super::comparison::{compare, request, unsupported, usual_tolerance};
use super::cuda::{self, Gpu};
use super::machine::{HostDevices, forget_peak, host_plan, resident_peak};
use super::peers::{Failure, Peer};
use super::point::{Pass, Point};
use super::record::{Compared, Ours, Record, Theirs};
use super::round_trip::round_trip;
use super::subject::{Data, Elements, Subject, mode, operations};
use super::timing::{Times, microseconds, sample};

/// Between one program's turn and the next's, so that threads that spin for a while have gone to sleep.
const PAUSE: Duration = Duration::from_millis(20);
/// Part of a timing that calls are made before it, not timed.
const WARM_UP: f64 = 0.2;

/// What lasts from point to point.
#[derive(Default)]
pub struct Session {
    gpu: Gpu,
    hosts: HostDevices,
    pub ceilings: Measured,
    pub peers: Vec<Peer>,
}

/// Calls that can be timed.
enum Calls<'a> {
    Host(Subject),
    Gpu(cuda::Calls<'a>),
}

impl Calls<'_> {
    /// Microseconds of calls for so many seconds.
    fn round(&mut self, seconds: f64, least: usize) -> Result<Vec<f64>> {
        match self {
            Calls::Host(subject) => {
                sample(seconds * WARM_UP, 1, || subject.call().map(|()| 0.0))?;
                sample(seconds, least, || {
                    let before = Instant::now();
                    subject.call()?;
                    Ok(microseconds(before.elapsed()))
                })
            }
            Calls::Gpu(calls) => sample(seconds, least, || calls.sample()),
        }
    }
}

impl Session {
    /// Everything about a point. `tell` hears what is being done.
    pub fn measure(&mut self, args: &Args, point: &Point, tell: &dyn Fn(&str)) -> Record {
        let mut theirs = Vec::new();
        let ours = self.try_measure(args, point, tell, &mut theirs);
        Record { point: point.clone(), graph: args.graph, matmul: args.matmul.clone(), ours, theirs }
    }

    fn try_measure(
        &mut self,
        args: &Args,
        point: &Point,
        tell: &dyn Fn(&str),
        theirs: &mut Vec<Theirs>,
    ) -> Result<Ours> {
        let descriptor = point.descriptor(&args.operator);
        let opened = if point.is_on_host() { None } else { Some(self.gpu.open(point, &args.matmul)?) };
        let device = match &opened {
            Some(opened) => opened.device.clone(),
            None => self.hosts.open(point)?,
        };
        let of_gpus = [("graph", args.graph), ("matmul", args.matmul != "kernels")];
        if let (true, Some((option, _))) = (point.is_on_host(), of_gpus.into_iter().find(|(_, given)| *given)) {
            return Err(Error::InvalidOption {
                option: option.into(),
                expected: "the cuda backend".into(),
                got: point.backend_name().into(),
            });
        }
        let (mode, element) = (mode(point.pass), point.number.dtype.size());
        // A streaming call is one step's.
        let shape = if point.pass == Pass::Stream { RnnShape { seq_len: 1, ..point.shape } } else { point.shape };
        let space = device.plan(&descriptor, shape, mode)?.temp_space();
        let elements = Elements::new(point, &descriptor, space)?;
        if point.is_on_host() {
            elements.check(element)?;
        }
        let (plan, why) = match &opened {
            Some(opened) => cuda::plan(&opened.device, shape, &descriptor, mode)?,
            None => (point.backend_name().to_owned(), host_plan(point, &descriptor, shape, mode)?),
        };
        let ceilings = point.is_on_host().then(|| self.ceilings.on(point.used_threads(), point.number.dtype));

        forget_peak();
        tell("building");
        let data = Data::new(point, &descriptor)?;
        let mut subject = Subject::new(&device, point, &descriptor, &data)?;
        self.compare_peers(args, point, (&descriptor, &data), (&device, &mut subject), tell, theirs)?;
        let wrap = |subject: Subject| match &opened {
            Some(opened) => cuda::Calls::new(opened, subject, point, args.graph).map(Calls::Gpu),
            None => Ok(Calls::Host(subject)),
        };
        let mut calls = wrap(subject)?;
        let mut bare = match without_input(point, &descriptor).filter(|_| !args.whole) {
            Some(descriptor) => {
                let gates = Point {
                    sizes: crate::descriptor_args::Sizes { input_size: descriptor.input_size, ..point.sizes },
                    ..point.clone()
                };
                let space = device.plan(&descriptor, shape, mode)?.temp_space();
                let both = Elements::new(&gates, &descriptor, space)?;
                let fits = !point.is_on_host()
                    || Elements { all: both.all.saturating_add(elements.all), ..both }.check(element).is_ok();
                let made = fits.then(|| {
                    let data = Data::new(&gates, &descriptor)?;
                    wrap(Subject::new(&device, &gates, &descriptor, &data)?)
                });
                made.transpose()?
            }
            None => None,
        };
        drop(data);

        let (mut times, mut bare_times, mut round_trips) = (Times::default(), Times::default(), Times::default());
        let rounds = args.rounds();
        // Long calls are timed once a round.
        let least = 3usize.div_ceil(rounds);
        for round in 1..=rounds {
            tell(&format!("round {round} of {rounds}"));
            if point.is_on_host() && point.used_threads() > 1 {
                round_trips.add(round_trip().into_iter().collect());
            }
            times.add(calls.round(args.seconds, least)?);
            if let Some(bare) = &mut bare {
                bare_times.add(bare.round(args.seconds, least)?);
            }
            for theirs in theirs.iter_mut() {
                let Compared::Timed { times, .. } = &mut theirs.outcome else { continue };
                let Some(peer) = self.peers.iter_mut().find(|peer| peer.kind.name == theirs.peer) else { continue };
                tell(&format!("round {round} of {rounds}, {}", theirs.peer));
                std::thread::sleep(PAUSE);
                match peer.time(args.seconds, least) {
                    Ok(found) => times.add(found),
                    Err(Failure::Unsupported(why)) => theirs.outcome = Compared::Unsupported(why),
                    Err(Failure::Failed(problem)) => theirs.outcome = Compared::Failed(problem),
                }
                std::thread::sleep(PAUSE);
            }
        }
        Ok(Ours {
            times,
            without_input: bare.map(|_| bare_times),
            plan,
            why,
            operations: operations(point, &descriptor)?,
            moved_bytes: elements.moved * element as f64,
            workspace_bytes: space.workspace.saturating_mul(element),
            reserve_bytes: space.reserve.saturating_mul(element),
            memory_bytes: elements.all.saturating_mul(element),
            resident_bytes: resident_peak(),
            ceilings,
            round_trips,
        })
    }

    /// Gives the point to every peer, and compares what they compute with ours. A subject that this changed is made anew.
    fn compare_peers(
        &mut self,
        args: &Args,
        point: &Point,
        (descriptor, data): (&RnnDescriptor, &Data),
        (device, subject): (&Device, &mut Subject),
        tell: &dyn Fn(&str),
        theirs: &mut Vec<Theirs>,
    ) -> Result<()> {
        let taking_part = || self.peers.iter().filter(|peer| peer.missing.is_none());
        if taking_part().next().is_none() {
            return Ok(());
        }
        if let Some(why) = unsupported(point, descriptor) {
            let outcome = || Compared::Unsupported(why.to_owned());
            theirs.extend(taking_part().map(|peer| Theirs { peer: peer.kind.name, outcome: outcome() }));
            return Ok(());
        }
        let folder = tempfile::tempdir().map_err(|source| Error::Io {
            action: "create",
            path: std::env::temp_dir().join("a folder"),
            source,
        })?;
        let request = request(point, descriptor, data, subject, folder.path())?;
        let ours = subject.results()?;
        if point.pass == Pass::TrainStep {
            *subject = Subject::new(device, point, descriptor, data)?;
        }
        let (dtype, tolerance) = (point.number.dtype, args.tolerance.unwrap_or(usual_tolerance(point.number.dtype)));
        for peer in self.peers.iter_mut().filter(|peer| peer.missing.is_none()) {
            tell(&format!("{} computes", peer.kind.name));
            let compared = peer.prepare(&request).and_then(|names| {
                compare(&ours, &names, dtype, folder.path()).map_err(|error| Failure::Failed(error.to_string()))
            });
            let outcome = match compared {
                Ok(found) if found.error <= tolerance => {
                    Compared::Timed { times: Times::default(), error: found.error }
                }
                Ok(found) => Compared::Mismatch { error: found.error, worst: found.worst, tolerance },
                Err(Failure::Unsupported(why)) => Compared::Unsupported(why),
                Err(Failure::Failed(problem)) => Compared::Failed(problem),
            };
            theirs.push(Theirs { peer: peer.kind.name, outcome });
        }
        Ok(())
    }
}

/// The same operator with the input's gates given, where that leaves a product out.
fn without_input(point: &Point, descriptor: &RnnDescriptor) -> Option<RnnDescriptor> {
    let is_pass = matches!(point.pass, Pass::Infer | Pass::Forward | Pass::ForwardBackward);
    let gates = (is_pass && descriptor.input == InputKind::Features).then(|| descriptor.clone().of_gates())?;
    gates.validate().is_ok().then_some(gates)
}
