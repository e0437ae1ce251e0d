//! Kernels that are loaded, in sets: [`KernelSets`].

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;

/// Sets of kernels, each loaded when the first of them is needed. A set is known by its type.
#[derive(Debug, Default)]
pub(crate) struct KernelSets(Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl KernelSets {
    /// The set of a type, loaded if it is the first time.
    ///
    /// # Errors
    ///
    /// What `load` returns.
    pub(crate) fn get<T: Send + Sync + 'static>(&self, load: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        // A panic elsewhere leaves the map whole.
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = sets.get(&TypeId::of::<T>()).and_then(|set| Arc::clone(set).downcast().ok()) {
            return Ok(set);
        }
        let set = Arc::new(load()?);
        sets.insert(TypeId::of::<T>(), set.clone());
        Ok(set)
    }
}
