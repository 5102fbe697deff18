//! Giving up privileges: what a process that talks to the internet does not need, it cannot misuse.
//!
//! [`Confinement`] leaves the capabilities that networks need, forbids to gain others by executing a program, and has
//! the kernel refuse system calls that only an intruder would make. The refusal is an error (`EPERM`), not a
//! death, so that a C library which tries something new goes on without it.

use std::fmt;
use std::io;

use libc::{c_int, c_long, c_ulong, sock_filter, sock_fprog};
use serde::Serialize;

/// A capability that can be kept (linux/capability.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// UDP ports below 1024.
    NetBindService = 10,
    /// TUN devices, routes, rules, addresses, marks.
    NetAdmin = 12,
    /// Raw sockets (the watchdog's pings), `SO_BINDTODEVICE`.
    NetRaw = 13,
}

impl Capability {
    const ALL: [Capability; 3] = [Capability::NetBindService, Capability::NetAdmin, Capability::NetRaw];

    /// Its name in capabilities(7), and in [`Confined`].
    pub const fn name(self) -> &'static str {
        match self {
            Capability::NetBindService => "CAP_NET_BIND_SERVICE",
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::NetRaw => "CAP_NET_RAW",
        }
    }
}

/// What is to be left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    capabilities: u64,
}

/// What could be given up, for log and status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confined {
    /// Names of the capabilities that are left.
    pub capabilities: Vec<&'static str>,
    /// The kernel filters our system calls.
    pub seccomp: bool,
}

impl Confinement {
    /// Keeps these capabilities, as far as the process has them.
    pub fn keep(capabilities: &[Capability]) -> Self {
        Confinement { capabilities: capabilities.iter().fold(0, |set, one| set | 1 << *one as u32) }
    }

    /// Confines the calling thread, and every thread and process that it starts from here on. To be called before the
    /// first further thread.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to take away capabilities. Without seccomp (`CONFIG_SECCOMP_FILTER`) the rest is done.
    pub fn enter(self) -> io::Result<Confined> {
        limit_bounding_set(self.capabilities)?;
        let kept = limit_capabilities(self.capabilities)?;
        nix::sys::prctl::set_no_new_privs()?;
        let seccomp = match filter_system_calls() {
            Ok(filtered) => filtered,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
            Err(error) => return Err(error),
        };
        let left = Capability::ALL.into_iter().filter(|capability| kept >> *capability as u32 & 1 == 1);
        Ok(Confined { capabilities: left.map(Capability::name).collect(), seccomp })
    }
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capabilities = match self.capabilities.as_slice() {
            [] => "none".to_owned(),
            some => some.join(", "),
        };
        let filter = if self.seccomp { "system calls are filtered" } else { "this kernel has no seccomp" };
        write!(f, "privileges kept: {capabilities}; {filter}")
    }
}

/// Lets the process survive SIGTERM, SIGINT, SIGHUP and SIGPIPE, without its children inheriting that, as they would
/// inherit a blocked or ignored signal.
///
/// # Errors
///
/// Those of sigaction(2).
pub fn survive_termination() -> io::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

    extern "C" fn nothing(_: c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        // SAFETY: the handler does nothing, which is safe at any moment.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes everything else out of the bounding set, where that is allowed: nothing that is executed can get it back.
fn limit_bounding_set(keep: u64) -> io::Result<()> {
    for capability in 0..64 as c_ulong {
        if keep >> capability & 1 == 1 {
            continue;
        }
        // SAFETY: takes numbers only.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Ok(()) => {}
            Err(error) => match error.raw_os_error() {
                // Behind the last one that the kernel knows; or started without CAP_SETPCAP, as by systemd with a
                // bounding set of its own.
                Some(libc::EINVAL | libc::EPERM) => return Ok(()),
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

/// `struct __user_cap_header_struct` and `__user_cap_data_struct` of linux/capability.h, version 3.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Returns what is left.
fn limit_capabilities(keep: u64) -> io::Result<u64> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: both pointers are to structures of the layout that version 3 has, alive through the call.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check(got as c_int)?;
    let mut kept = 0;
    for (half, word) in data.iter_mut().zip([keep as u32, (keep >> 32) as u32]) {
        half.permitted &= word;
        half.effective = half.permitted;
        half.inheritable = 0;
        kept = kept >> 32 | u64::from(half.permitted) << 32;
    }
    // SAFETY: as above; the kernel only reads.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    check(set as c_int)?;
    Ok(kept)
}

/// The value that `seccomp_data.arch` has for this program (linux/audit.h).
const ARCHITECTURE: Option<u32> = {
    let little = 0x4000_0000 * cfg!(target_endian = "little") as u32;
    let wide = 0x8000_0000 * cfg!(target_pointer_width = "64") as u32;
    // Numbers of machines in ELF files (elf.h).
    let machine = if cfg!(target_arch = "x86_64") {
        Some(62)
    } else if cfg!(target_arch = "x86") {
        Some(3)
    } else if cfg!(target_arch = "aarch64") {
        Some(183)
    } else if cfg!(target_arch = "arm") {
        Some(40)
    } else if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
        Some(8)
    } else if cfg!(target_arch = "powerpc") {
        Some(20)
    } else if cfg!(target_arch = "powerpc64") {
        Some(21)
    } else if cfg!(target_arch = "riscv64") {
        Some(243)
    } else {
        None
    };
    match machine {
        Some(machine) => Some(machine | little | wide),
        None => None,
    }
};

/// System calls that neither this program nor its libraries make after the start.
const REFUSED: &[c_long] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Other views of the system.
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_mknodat,
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    libc::SYS_iopl,
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    libc::SYS_ioperm,
];

/// First number of the x32 interface, which the same kernel may offer under the same `arch` (asm/unistd.h).
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;

/// The filter, in the kernel's classic BPF.
fn program(architecture: u32) -> Vec<sock_filter> {
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let refuse = instruction(
        libc::BPF_RET | libc::BPF_K,
        0,
        0,
        libc::SECCOMP_RET_ERRNO | libc::EPERM as u32 & libc::SECCOMP_RET_DATA,
    );
    let equal = |value, yes, no| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let at_least = |value, yes, no| instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, yes, no, value);
    let mut program = vec![load(ARCHITECTURE_OFFSET), equal(architecture, 1, 0), refuse, load(NUMBER_OFFSET)];
    if cfg!(target_arch = "x86_64") {
        program.extend([at_least(X32, 0, 1), refuse]);
    }
    for number in REFUSED {
        // One refusal behind each comparison: jumps reach 255 instructions only.
        program.extend([equal(*number as u32, 0, 1), refuse]);
    }
    program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    program
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// Returns whether system calls are filtered from here on.
fn filter_system_calls() -> io::Result<bool> {
    let Some(architecture) = ARCHITECTURE else { return Ok(false) };
    let mut program = program(architecture);
    let len = program.len().try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the filter and what it points to live through the call; the kernel copies them.
    check(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER as c_ulong, &raw const filter, 0, 0)
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The capability sets and flags of the calling thread.
    fn status(field: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        value.unwrap_or_else(|| panic!("{field} in {status}")).to_owned()
    }

    #[test]
    fn a_confined_thread_keeps_nothing_else() {
        // Only the thread that asks is confined.
        let confined = std::thread::spawn(|| {
            let before = u64::from_str_radix(&status("CapPrm"), 16).unwrap();
            let confined = Confinement::keep(&[Capability::NetAdmin, Capability::NetRaw]).enter().unwrap();
            let expected = format!("{:016x}", before & 0x3000);
            assert_eq!([status("CapPrm"), status("CapEff")], [expected.clone(), expected]);
            assert_eq!(status("NoNewPrivs"), "1");
            assert!(confined.to_string().starts_with("privileges kept: "));
            if confined.seccomp {
                assert_eq!(status("Seccomp"), "2");
                let refused = Command::new("/bin/true").status().unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
                let refused = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).unwrap_err();
                assert_eq!(refused, nix::errno::Errno::EPERM);
            }
            // What the daemon does all day still works.
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            std::thread::spawn(|| {}).join().unwrap();
            confined
        });
        let confined = confined.join().unwrap();
        println!("{confined}");
        assert!(Command::new("/bin/true").status().unwrap().success(), "other threads are free");
    }

    #[test]
    fn the_filter_ends_in_a_decision_whatever_the_number() {
        let program = program(ARCHITECTURE.unwrap_or(1));
        let run = |architecture: u32, number: u32| {
            let (mut at, mut accumulator) = (0usize, 0);
            for _ in 0..program.len() + 1 {
                let step = program[at];
                at += 1;
                match u32::from(step.code) {
                    code if code == libc::BPF_RET | libc::BPF_K => return step.k,
                    code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                        accumulator = if step.k == 4 { architecture } else { number };
                    }
                    code if code & 0xf0 == libc::BPF_JEQ => {
                        at += usize::from(if accumulator == step.k { step.jt } else { step.jf });
                    }
                    _ => at += usize::from(if accumulator >= step.k { step.jt } else { step.jf }),
                }
            }
            panic!("no decision")
        };
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let own = ARCHITECTURE.unwrap_or(1);
        for number in 0..2_000 {
            let listed = REFUSED.contains(&(number as c_long));
            let expected = if listed { refused } else { libc::SECCOMP_RET_ALLOW };
            assert_eq!(run(own, number), expected, "{number}");
            assert_eq!(run(own ^ 1, number), refused, "another architecture");
        }
    }
}
