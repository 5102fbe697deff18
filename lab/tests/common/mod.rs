//! What the tests in real time share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keeps tests with exact times from disturbing each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
