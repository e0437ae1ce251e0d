//! Where the samples of a pass come from, a batch at a time: [`Feed`].

use std::ops::Range;

use crate::backend::ops::IndexStatus;
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::arrays::{Data, Part, PlacedData, row_weights};
use crate::model::backup::other_data;
use crate::model::batch::{Batch, BatchIterator, Batches};
use crate::nn::Random;

/// Streams of random numbers from here on order samples; those before draw weights.
pub(super) const SHUFFLE_STREAM: u32 = 1 << 31;

/// The samples of a pass, a batch at a time: of training, of a validation or of an evaluation.
pub(super) enum Feed<'d, 'b> {
    /// From arrays that are there as a whole.
    Arrays(ArrayFeed<'d>),
    /// As an iterator gives them.
    Batches(BatchFeed<'b>),
}

/// Batches of arrays that are there as a whole.
pub(super) struct ArrayFeed<'d> {
    /// The data on the host, to name a sample in errors.
    data: Part<'d>,
    placed: PlacedData<'d>,
    /// The order in which samples are picked; without one it is that of the arrays.
    order: Option<Order>,
    batch_size: usize,
    epoch: usize,
    /// The batch at hand.
    batch: Range<usize>,
}

/// An order of samples, on the host and where the device computes.
struct Order {
    numbers: Vec<u32>,
    placed: Tensor,
    shuffled: bool,
}

/// Batches of an iterator.
pub(super) struct BatchFeed<'b> {
    /// `"validation "`, or nothing.
    what: &'static str,
    batches: Batches<'b>,
    class_weight: Vec<(usize, f64)>,
    pass: Option<BatchIterator<'b>>,
    epoch: usize,
    /// How many batches the pass has had so far.
    number: usize,
    /// How many a pass has, once that is known.
    count: usize,
    /// The batch at hand.
    data: Option<Data<'b>>,
}

impl<'d, 'b> Feed<'d, 'b> {
    /// Samples in the order in which they are there.
    pub fn of(device: &Device, prefix: &str, data: Part<'d>, batch_size: usize) -> Result<Self> {
        let placed = data.place(device, prefix)?;
        Ok(Feed::Arrays(ArrayFeed { data, placed, order: None, batch_size, epoch: 0, batch: 0..0 }))
    }

    /// Samples to train on, in another order each epoch where they are `shuffled`.
    pub fn of_training(device: &Device, data: Part<'d>, batch_size: usize, shuffled: bool) -> Result<Self> {
        let samples = data.samples;
        let count = u32::try_from(samples)
            .map_err(|_| Error::unsupported(format!("{samples} samples"), "at most 4294967295 are counted"))?;
        let placed = data.place(device, "")?;
        let mut order = Order {
            numbers: (0..count).collect(),
            placed: device.allocate_as("order of samples", DType::U32, samples)?,
            shuffled,
        };
        device.upload(&order.numbers, order.placed.view_mut())?;
        Ok(Feed::Arrays(ArrayFeed { data, placed, order: Some(order), batch_size, epoch: 0, batch: 0..0 }))
    }

    /// What an iterator gives; `what` names it in errors, `"validation "` or nothing.
    pub fn of_batches(what: &'static str, batches: Batches<'b>, class_weight: Vec<(usize, f64)>) -> Self {
        let feed = BatchFeed { what, batches, class_weight, pass: None, epoch: 0, number: 0, count: 0, data: None };
        Feed::Batches(feed)
    }

    /// Chooses how many samples a batch without training has, where they are there as a whole, and training has no size of its own.
    pub fn choose_batch_size(&mut self, model: &Model) -> Result<()> {
        if let Feed::Arrays(feed) = self {
            feed.batch_size = model.evaluation_batch(feed.data.samples, None)?;
        }
        Ok(())
    }

    /// Begins a pass: that of an epoch, counted from 1.
    pub fn begin(&mut self, epoch: usize) -> Result<()> {
        match self {
            Feed::Arrays(feed) => (feed.epoch, feed.batch) = (epoch, 0..0),
            Feed::Batches(feed) => {
                (feed.epoch, feed.number, feed.data) = (epoch, 0, None);
                // The one before it goes first, so that what it holds, such as a file, is free.
                feed.pass = None;
                let pass = feed.batches.of_epoch(epoch)?;
                if let (least, Some(most)) = pass.size_hint()
                    && least == most
                {
                    feed.count = least;
                }
                feed.pass = Some(pass);
            }
        }
        Ok(())
    }

    /// Draws the order of the epoch's samples, where they are shuffled.
    pub fn shuffle(&mut self, device: &Device, seed: u64, epochs_trained: u32) -> Result<()> {
        if let Feed::Arrays(ArrayFeed { order: Some(order), .. }) = self
            && order.shuffled
        {
            // From the same order every time, so that training that goes on from a file does so with the same bits.
            (0..).zip(&mut order.numbers).for_each(|(number, sample)| *sample = number);
            Random::new(seed, SHUFFLE_STREAM | epochs_trained).shuffle(&mut order.numbers);
            device.upload(&order.numbers, order.placed.view_mut())?;
        }
        Ok(())
    }

    /// Batches of a pass; 0 where that is not known yet.
    pub fn batches(&self) -> usize {
        match self {
            Feed::Arrays(feed) => feed.data.samples.div_ceil(feed.batch_size),
            Feed::Batches(feed) => feed.count,
        }
    }

    /// Takes over how many batches a pass has from an earlier one, where that is found out by counting.
    pub fn expect(&mut self, batches: usize) {
        if let Feed::Batches(feed) = self {
            feed.count = batches;
        }
    }

    /// Samples of a batch of training, but for the last, where that is known before.
    pub fn batch_size(&self) -> Option<usize> {
        match self {
            Feed::Arrays(feed) => Some(feed.batch_size),
            Feed::Batches(_) => None,
        }
    }

    /// Whether so many batches of an epoch have so many samples, as far as that is known before it begins.
    pub fn check_skip(&self, epoch: usize, batches: usize, samples: usize) -> Result<()> {
        let Feed::Arrays(feed) = self else { return Ok(()) };
        let most = feed.data.samples.div_ceil(feed.batch_size);
        let done = batches.saturating_mul(feed.batch_size).min(feed.data.samples);
        if batches > most || done != samples {
            return Err(other_data(epoch, (batches, samples), &format!("{most} with {} samples", feed.data.samples)));
        }
        Ok(())
    }

    /// Leaves out the first batches of a pass, which has begun.
    pub fn skip(&mut self, batches: usize, samples: usize) -> Result<()> {
        match self {
            Feed::Arrays(feed) => {
                let epoch = feed.epoch;
                self.check_skip(epoch, batches, samples)?;
                if let Feed::Arrays(feed) = self {
                    feed.batch = samples..samples;
                }
            }
            Feed::Batches(feed) => {
                let mut seen = 0usize;
                for number in 0..batches {
                    let Some(batch) = feed.pass.as_mut().and_then(Iterator::next) else {
                        return Err(other_data(feed.epoch, (batches, samples), &format!("{number} batches")));
                    };
                    let of_batch = batch?.x.first().and_then(|x| x.shape().first().copied()).unwrap_or(0);
                    seen = seen.saturating_add(of_batch);
                }
                if seen != samples {
                    return Err(other_data(feed.epoch, (batches, samples), &format!("{seen} samples in them")));
                }
                feed.number = batches;
            }
        }
        Ok(())
    }

    /// Whether the sizes of batches are known only as they come.
    pub fn is_open(&self) -> bool {
        matches!(self, Feed::Batches(_))
    }

    /// Goes on to the next batch, and says how many samples it has; none at the end of the pass.
    pub fn next(&mut self, model: &mut Model) -> Result<Option<usize>> {
        match self {
            Feed::Arrays(feed) => {
                model.take_lengths(feed.data.lengths)?;
                let first = feed.batch.end;
                let size = feed.batch_size.min(feed.data.samples - first);
                feed.batch = first..first + size;
                Ok(Some(size).filter(|size| *size > 0))
            }
            Feed::Batches(feed) => feed.next(model),
        }
    }

    /// Puts some samples of the batch at hand where the passes read them; there must be room. Says whether they have weights. `code` stands
    /// for them in the status.
    pub fn place(&self, model: &mut Model, samples: Range<usize>, code: u32) -> Result<bool> {
        match self {
            Feed::Arrays(feed) => {
                let range = feed.batch.start + samples.start..feed.batch.start + samples.end;
                feed.place(model, range, code)
            }
            Feed::Batches(feed) => match &feed.data {
                Some(data) => model.place_part(&data.part(samples)?),
                None => Ok(false),
            },
        }
    }

    /// Which sample of a batch, counted from 1, has a value that is not finite, in words for an error.
    pub fn bad_sample(&self, batch: usize) -> Option<String> {
        match self {
            Feed::Arrays(feed) => {
                let first = (batch.checked_sub(1)?).checked_mul(feed.batch_size)?;
                let mut range = first..first.saturating_add(feed.batch_size).min(feed.data.samples);
                let sample = |at: usize| {
                    feed.order.as_ref().map_or(at, |order| order.numbers.get(at).map_or(at, |n| *n as usize))
                };
                let bad = range.find_map(|at| Some(sample(at)).filter(|sample| feed.data.is_bad(*sample)))?;
                Some(format!("sample {bad} of the data has a NaN or infinite value"))
            }
            // Those before it have gone.
            Feed::Batches(feed) => {
                let data = feed.data.as_ref().filter(|_| feed.number == batch)?;
                let part = data.part(0..data.samples).ok()?;
                let bad = (0..data.samples).find(|sample| part.is_bad(*sample))?;
                Some(format!("sample {bad} of the batch has a NaN or infinite value"))
            }
        }
    }
}

impl ArrayFeed<'_> {
    /// Copies samples, by their places in the order.
    fn place(&self, model: &mut Model, range: Range<usize>, code: u32) -> Result<bool> {
        let weighted = !self.placed.weights.is_empty();
        let len = range.len();
        let Model { device, topology, network, outputs, status, .. } = model;
        let picked = match &self.order {
            Some(order) => Some(order.placed.view().part(range.clone())?),
            None => None,
        };
        let mut copy = |width: usize, from: TensorRef<'_>, to: TensorMut<'_>| match picked {
            Some(picked) => {
                device.gather(width, from, picked, to, Some(IndexStatus { code, status: status.get_mut() }))
            }
            None => device.copy(from.part(range.start * width..range.end * width)?, to),
        };
        for (input, from) in topology.inputs.iter().zip(&self.placed.x) {
            copy(input.value.size(), from.view(), network.value_mut(&input.value, len)?)?;
        }
        let mut weights = self.placed.weights.iter();
        for (output, y) in outputs.iter_mut().zip(&self.placed.y) {
            let (width, rows) = (output.target_size()?, output.weight_rows());
            copy(width, y.view(), output.targets.get_mut(len * width)?)?;
            if let Some(weights) = weights.next() {
                output.sample_weights.grow(device, "weights of rows", len * rows)?;
                copy(rows, weights.view(), output.sample_weights.get_mut(len * rows)?)?;
            }
        }
        Ok(weighted)
    }
}

impl<'b> BatchFeed<'b> {
    fn next(&mut self, model: &mut Model) -> Result<Option<usize>> {
        // The batch before it goes first, so that both need not fit.
        self.data = None;
        let Some(batch) = self.pass.as_mut().and_then(Iterator::next) else {
            self.pass = None;
            if self.number == 0 {
                let way_out = "give at least one batch; an iterator must be made anew for each epoch";
                return Err(Error::Presence {
                    tensor: format!("{}batches of epoch {}", self.what, self.epoch),
                    problem: format!("there are none; {way_out}"),
                });
            }
            self.count = self.number;
            return Ok(None);
        };
        self.number += 1;
        let data = self.checked(batch?, model)?;
        let samples = data.samples;
        self.data = Some(data);
        Ok(Some(samples))
    }

    /// A batch that fits the model.
    fn checked(&self, batch: Batch<'b>, model: &mut Model) -> Result<Data<'b>> {
        let prefix = format!("epoch {}, {}batch {}: ", self.epoch, self.what, self.number);
        if let Some(empty) = batch.x.iter().chain(&batch.y).find(|array| array.shape().first() == Some(&0)) {
            return Err(Error::shape(format!("{prefix}x"), "at least one sample", format!("{:?}", empty.shape())));
        }
        let mut data = model.check_data(&prefix, batch.x, Some(batch.y))?;
        let carried = model.network.carried_batch().filter(|carried| *carried != data.samples);
        if let (true, Some(carried)) = (model.network.is_stateful(), carried) {
            let expected = format!(
                "{carried} samples, as the model carries states from each batch to the next (or call reset_states first)"
            );
            return Err(Error::shape(format!("{prefix}x"), expected, format!("{} samples", data.samples)));
        }
        let (given, classes) = (&batch.sample_weight, &self.class_weight);
        data.weights = row_weights(&prefix, &model.outputs, &data, given, classes, model.dtype())?;
        Ok(data)
    }
}
