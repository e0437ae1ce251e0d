//! A model's weights where the device computes, and where the host can read them: [`Mirrored`].

use crate::backend::device::copy_on_host;
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::error::{Error, Result};
use crate::rnn::shape::checked_len;

/// A tensor where the device computes, with a copy on the host where that cannot read it.
pub(crate) struct Mirrored {
    tensor: Tensor,
    /// Rises with every change.
    version: u64,
    /// What [`host`](Self::host) shows; only where that is not the tensor itself.
    copy: Option<Tensor>,
}

impl Mirrored {
    /// `len` zeros; `what` names it in errors.
    pub fn new(device: &Device, what: &str, len: usize) -> Result<Self> {
        let tensor = device.allocate(what, len)?;
        let copy = match tensor.is_on_host() {
            true => None,
            false => Some(Tensor::on_host(what, tensor.dtype(), len)?),
        };
        Ok(Mirrored { tensor, version: 0, copy })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.tensor.len()
    }

    /// The values as of the last refresh, in the host's memory; on the host the tensor itself.
    pub fn host(&self) -> TensorRef<'_> {
        self.copy.as_ref().unwrap_or(&self.tensor).view()
    }

    /// The tensor.
    pub fn get(&self) -> TensorRef<'_> {
        self.tensor.view()
    }

    /// The tensor, to be changed; a refresh must follow before the host's copy is used.
    pub fn get_mut(&mut self) -> TensorMut<'_> {
        self.version += 1;
        self.tensor.view_mut()
    }

    /// Brings the host's copy up to date.
    pub fn refresh(&mut self, device: &Device) -> Result<()> {
        match &mut self.copy {
            Some(copy) => device.download_tensor(self.tensor.view(), copy.view_mut()),
            None => Ok(()),
        }
    }

    /// Changes the host's copy, as of the last refresh, and then the tensor to it.
    pub fn change(&mut self, device: &Device, write: impl FnOnce(TensorMut<'_>) -> Result<()>) -> Result<()> {
        self.change_from(device, 0, write)
    }

    /// The same of the elements from `start` on.
    pub fn change_from(
        &mut self,
        device: &Device,
        start: usize,
        write: impl FnOnce(TensorMut<'_>) -> Result<()>,
    ) -> Result<()> {
        self.version += 1;
        let all = start..self.tensor.len();
        match &mut self.copy {
            Some(copy) => {
                write(copy.view_mut().part(all.clone())?)?;
                device.upload_tensor(copy.view().part(all.clone())?, self.tensor.view_mut().part(all)?)
            }
            None => write(self.tensor.view_mut().part(all)?),
        }
    }

    /// Makes it `len` long; elements that were there stay, and new ones are to be written. Where it moves, it gets room for `spare` more, so
    /// that it moves seldom.
    pub fn extend(&mut self, device: &Device, what: &str, len: usize, spare: usize) -> Result<()> {
        if self.tensor.len() == len {
            return Ok(());
        }
        let room = checked_len(what, &[("elements", len.saturating_add(spare))])?;
        let moved = |old: &Tensor, mut new: Tensor, copy: &dyn Fn(TensorRef<'_>, TensorMut<'_>) -> Result<()>| {
            copy(old.view(), new.view_mut().part(0..old.len())?)?;
            new.set_len(len);
            Ok::<_, Error>(new)
        };
        if !self.tensor.set_len(len) {
            let new = device.allocate(what, room)?;
            self.tensor = moved(&self.tensor, new, &|from, to| device.copy(from, to))?;
        }
        if let Some(copy) = &mut self.copy
            && !copy.set_len(len)
        {
            let new = Tensor::on_host(what, copy.dtype(), room)?;
            *copy = moved(copy, new, &copy_on_host)?;
        }
        self.version += 1;
        Ok(())
    }

    /// Makes it `len` long again, after [`extend`](Self::extend).
    pub fn truncate(&mut self, len: usize) {
        self.version += 1;
        self.tensor.set_len(len);
        if let Some(copy) = &mut self.copy {
            copy.set_len(len);
        }
    }

    /// How often it has changed.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Takes the place of another, of which nothing that was kept holds any more.
    pub fn replace(&mut self, mut new: Mirrored) {
        new.version += self.version;
        *self = new;
    }
}
