//! Threads that wake up on time: those that play a line, and those that measure one.

/// Asks the kernel to wake the calling thread promptly: no timer slack, and real-time priority where we may have it.
/// For threads that sleep most of the time.
pub(crate) fn be_punctual() {
    // SAFETY: a structure of integers, of which some C libraries have more than others; then system calls on the calling
    // thread with plain values. Their failure costs accuracy only: without the right to it the thread runs at the
    // ordinary priority.
    unsafe {
        let mut priority: libc::sched_param = std::mem::zeroed();
        priority.sched_priority = 10;
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &priority);
    }
}
