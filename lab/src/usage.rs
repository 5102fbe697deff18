//! What a process costs.

use std::fs;
use std::io;
use std::time::Duration;

/// Processor time and memory of a process (proc(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time so far, in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory (`VmRSS`), in bytes.
    pub resident: u64,
    /// The most that was ever resident (`VmHWM`), in bytes.
    pub peak: u64,
}

impl Usage {
    /// Of the process with this id, until now.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn of(process: u32) -> io::Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        Usage::read(&stat, &status).ok_or_else(|| io::Error::other("/proc is not as it should be"))
    }

    fn read(stat: &str, status: &str) -> Option<Usage> {
        // The name, in brackets, may contain anything.
        let mut times = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || times.next()?.parse::<u64>().ok();
        // `USER_HZ` is 100 on every Linux that Rust runs on.
        let cpu = Duration::from_millis(10 * (ticks()? + ticks()?));
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
        };
        Some(Usage { cpu, resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_whatever_the_name() {
        let stat = "7 (a) (b 1 2) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 1 0 100 0 0\n";
        let status = "Name:\ta\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n";
        let usage = Usage::read(stat, status).unwrap();
        assert_eq!(usage.cpu, Duration::from_millis(1_750));
        assert_eq!((usage.resident, usage.peak), (1_024_000, 2_048_000));
    }

    #[test]
    fn this_process_costs_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident > 0 && usage.peak >= usage.resident, "{usage:?}");
        assert!(Usage::of(u32::MAX).is_err());
    }
}
