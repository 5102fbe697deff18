//! The last words of a program that has a bug.
//!
//! The programs for routers are built without the texts of panics, which nobody may ever read and which are a tenth of
//! them: a panic there is an instruction that the processor refuses. What the kernel makes of it is a signal that says
//! where; it is put on record before the process ends. `scripts/cross --where` tells which function that is.
//!
//! Where panics have texts these are printed as always, and nothing here is ever called.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::os::unix::net::UnixDatagram;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

/// What processors make of the instruction that stands for a panic: x86 and 32-bit ARM, and all others.
const SIGNALS: [libc::c_int; 2] = [libc::SIGILL, libc::SIGTRAP];

/// Where every system's log daemon listens.
pub const LOG: &str = "/dev/log";

/// Priority `daemon.crit` and the name of a message (RFC 3164, section 4.1).
const PRIORITY: &[u8] = b"<26>";

static SYSLOG: AtomicI32 = AtomicI32::new(-1);

unsafe extern "C" {
    /// The first byte of the program in memory, which every linker of ELF files names.
    static __ehdr_start: u8;
}

/// Has the place of a panic written to standard error before the process ends by it.
///
/// # Errors
///
/// None that a kernel is known to give.
pub fn report() -> io::Result<()> {
    for signal in SIGNALS {
        // SAFETY: all zeros is a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = last_words as *const () as libc::sighandler_t;
        // Once it returns the instruction is refused again, and the kernel ends the process.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
        // SAFETY: `action` lives through the call, and the handler only does what is safe in one (signal-safety(7)).
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Has it written to the system's log as well.
///
/// # Errors
///
/// When there are no sockets left.
pub fn report_to_syslog() -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match SYSLOG.compare_exchange(-1, socket.as_raw_fd(), Ordering::Relaxed, Ordering::Relaxed) {
        // It stays open for as long as the process lives.
        Ok(_) => drop(socket.into_raw_fd()),
        Err(_) => drop(socket),
    }
    Ok(())
}

extern "C" fn last_words(signal: libc::c_int, info: *const libc::siginfo_t, _: *const libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t`, whose address counts where the kernel itself made the signal.
    let (code, place) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code <= 0 {
        // Another process has sent it, which is no bug. No instruction would be refused again.
        // SAFETY: the signal's handler is gone, so that it ends the process when this returns.
        unsafe { libc::raise(signal) };
        return;
    }
    let start = (&raw const __ehdr_start) as usize;
    let mut words = Words::default();
    words.add(PRIORITY);
    words.add(concat!("bonding ", env!("CARGO_PKG_VERSION"), " (").as_bytes());
    words.add(std::env::consts::ARCH.as_bytes());
    words.add(b") has a bug and ends at ");
    words.add_hexadecimal(place.wrapping_sub(start));
    words.add(b": please report this line\n");
    let line = words.bytes();

    // SAFETY: all zeros is a valid `sockaddr_un`.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(LOG.bytes()) {
        *to = from as libc::c_char;
    }
    let shown = line.get(PRIORITY.len()..).unwrap_or_default();
    // SAFETY: both calls only read what lives through them, with its right lengths; a wrong descriptor is refused.
    unsafe {
        libc::write(libc::STDERR_FILENO, shown.as_ptr().cast(), shown.len());
        libc::sendto(
            SYSLOG.load(Ordering::Relaxed),
            line.as_ptr().cast(),
            line.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        );
    }
}

/// A line that is written without memory being allocated.
struct Words {
    text: [u8; 160],
    len: usize,
}

impl Default for Words {
    fn default() -> Self {
        Words { text: [0; 160], len: 0 }
    }
}

impl Words {
    fn bytes(&self) -> &[u8] {
        self.text.get(..self.len).unwrap_or_default()
    }

    /// What does not fit is left out.
    fn add(&mut self, bytes: &[u8]) {
        for (to, from) in self.text.iter_mut().skip(self.len).zip(bytes) {
            *to = *from;
            self.len += 1;
        }
    }

    fn add_hexadecimal(&mut self, number: usize) {
        self.add(b"0x");
        let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for place in (0..digits).rev() {
            let digit = (number >> (4 * place) & 0xf) as u8;
            self.add(&[if digit < 10 { b'0' + digit } else { b'a' - 10 + digit }]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lines_that_are_too_long() {
        for number in [0, 9, 10, 0xabc_def, usize::MAX] {
            let mut words = Words::default();
            words.add_hexadecimal(number);
            assert_eq!(words.bytes(), format!("{number:#x}").as_bytes());
            (0..100).for_each(|_| words.add(b"long"));
            assert_eq!(words.bytes().len(), 160);
        }
    }

    /// The tests' program again, as a process that ends itself.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn the_place_is_told_before_the_end() {
        use std::os::unix::process::ExitStatusExt as _;

        const ENDING: &str = "BONDING_TEST_ENDS";
        #[inline(never)]
        fn end() {
            // SAFETY: the process ends.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                std::arch::asm!("ud2");
                #[cfg(target_arch = "aarch64")]
                std::arch::asm!("brk #1");
            }
        }
        let ending = std::env::var(ENDING).unwrap_or_default();
        if !ending.is_empty() {
            report().unwrap();
            // SAFETY: the process ends.
            if ending == "killed" {
                unsafe { _ = libc::raise(SIGNALS[0]) }
            } else {
                end()
            }
            unreachable!("it has ended");
        }
        let name = concat!(module_path!(), "::the_place_is_told_before_the_end");
        let name = name.split_once("::").unwrap().1;
        let run = |ending| {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let ended = command.args(["--exact", name, "--nocapture"]).env(ENDING, ending).output().unwrap();
            assert!(SIGNALS.contains(&ended.status.signal().unwrap()), "{:?}", ended.status);
            String::from_utf8(ended.stderr).unwrap()
        };
        assert!(!run("killed").contains("bug"), "by somebody else");
        let text = run("itself");
        let place = text.split_once("has a bug and ends at 0x").unwrap().1.split_once(':').unwrap().0;
        let place = usize::from_str_radix(place, 16).unwrap();
        let function = (end as *const () as usize) - (&raw const __ehdr_start) as usize;
        assert!((function..function + 64).contains(&place), "{place:#x} in {function:#x}");
    }
}
