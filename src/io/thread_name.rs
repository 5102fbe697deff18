//! The name of a thread, without the C library's formatted output.
//!
//! musl's `pthread_setname_np` reaches any thread, by a path in /proc that it prints with `snprintf`: 12 KB that nothing
//! else in this program needs. Rust's standard library names the calling thread only, for which one system call will do.
//! A static program takes this function instead of the library's.

use std::ffi::{c_char, c_int};

/// As in pthread_setname_np(3), for the calling thread.
///
/// # Safety
///
/// `name` must be a string that ends with a zero byte.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_setname_np(thread: libc::pthread_t, name: *const c_char) -> c_int {
    // SAFETY: neither has arguments that could be wrong, and the caller answers for `name`, which is only read.
    unsafe {
        if thread != libc::pthread_self() {
            return libc::EINVAL;
        }
        match libc::prctl(libc::PR_SET_NAME, name) {
            0 => 0,
            _ => *libc::__errno_location(),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_bears_its_name() {
        let named = std::thread::Builder::new().name("by-its-name".into());
        let read = named.spawn(|| std::fs::read_to_string("/proc/thread-self/comm").unwrap()).unwrap();
        assert_eq!(read.join().unwrap(), "by-its-name\n");
    }
}
