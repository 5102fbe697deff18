//! Threads that wake up on time: those that play a line, and those that measure one.

/// Asks the kernel to wake the calling thread promptly: no timer slack, and real-time priority where we may have it.
/// For threads that sleep most of the time.
pub(crate) fn be_punctual() {
    let priority = libc::sched_param { sched_priority: 10 };
    // SAFETY: system calls on the calling thread with plain values. Their failure costs accuracy only: without the
    // right to it the thread runs at the ordinary priority.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &priority);
    }
}
