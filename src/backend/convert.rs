//! A call's tensors given in another way.

use super::{BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, Tensors};
use crate::error::Result;

/// Turns the tensors of one way of giving them into those of another.
pub(crate) trait Convert<From: Tensors, To: Tensors> {
    fn read<'a>(&self, tensor: From::Read<'a>) -> Result<To::Read<'a>>;
    fn write<'a>(&self, tensor: From::Write<'a>) -> Result<To::Write<'a>>;
    fn lengths<'a>(&self, lengths: From::Lengths<'a>) -> Result<To::Lengths<'a>>;
    fn mask<'a>(&self, mask: From::Mask<'a>) -> Result<To::Mask<'a>>;
}

impl<'a, T: Tensors> ForwardArgs<'a, T> {
    /// The same call on tensors given in another way.
    pub(crate) fn convert<U: Tensors>(self, with: &impl Convert<T, U>) -> Result<ForwardArgs<'a, U>> {
        Ok(ForwardArgs {
            weights: with.read(self.weights)?,
            x: with.read(self.x)?,
            h0: self.h0.map(|tensor| with.read(tensor)).transpose()?,
            c0: self.c0.map(|tensor| with.read(tensor)).transpose()?,
            lengths: self.lengths.map(|tensor| with.lengths(tensor)).transpose()?,
            resets: self.resets.map(|tensor| with.mask(tensor)).transpose()?,
            y: with.write(self.y)?,
            hn: self.hn.map(|tensor| with.write(tensor)).transpose()?,
            cn: self.cn.map(|tensor| with.write(tensor)).transpose()?,
            workspace: with.write(self.workspace)?,
            dropout_seed: self.dropout_seed,
        })
    }
}

impl<'a, T: Tensors> BackwardDataArgs<'a, T> {
    /// The same call on tensors given in another way.
    pub(crate) fn convert<U: Tensors>(self, with: &impl Convert<T, U>) -> Result<BackwardDataArgs<'a, U>> {
        Ok(BackwardDataArgs {
            weights: with.read(self.weights)?,
            x: with.read(self.x)?,
            y: with.read(self.y)?,
            h0: self.h0.map(|tensor| with.read(tensor)).transpose()?,
            c0: self.c0.map(|tensor| with.read(tensor)).transpose()?,
            lengths: self.lengths.map(|tensor| with.lengths(tensor)).transpose()?,
            resets: self.resets.map(|tensor| with.mask(tensor)).transpose()?,
            dy: self.dy.map(|tensor| with.read(tensor)).transpose()?,
            dhn: self.dhn.map(|tensor| with.read(tensor)).transpose()?,
            dcn: self.dcn.map(|tensor| with.read(tensor)).transpose()?,
            dx: self.dx.map(|tensor| with.write(tensor)).transpose()?,
            dh0: self.dh0.map(|tensor| with.write(tensor)).transpose()?,
            dc0: self.dc0.map(|tensor| with.write(tensor)).transpose()?,
            workspace: with.write(self.workspace)?,
        })
    }
}

impl<'a, T: Tensors> BackwardWeightsArgs<'a, T> {
    /// The same call on tensors given in another way.
    pub(crate) fn convert<U: Tensors>(self, with: &impl Convert<T, U>) -> Result<BackwardWeightsArgs<'a, U>> {
        Ok(BackwardWeightsArgs {
            x: with.read(self.x)?,
            y: with.read(self.y)?,
            h0: self.h0.map(|tensor| with.read(tensor)).transpose()?,
            c0: self.c0.map(|tensor| with.read(tensor)).transpose()?,
            lengths: self.lengths.map(|tensor| with.lengths(tensor)).transpose()?,
            resets: self.resets.map(|tensor| with.mask(tensor)).transpose()?,
            dweights: with.write(self.dweights)?,
            workspace: with.write(self.workspace)?,
        })
    }
}
