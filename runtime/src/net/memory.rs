//! The memory of this process, as Linux reports it; nothing is known elsewhere.

use std::fs;
use std::path::Path;

/// The memory that is resident, in bytes (proc(5), `VmRSS`).
pub(super) fn resident() -> Option<u64> {
    kib("/proc/self/status", "VmRSS:")
}

/// The memory that the process may use, in bytes: the machine's, or the limit of a control group of version 2, whichever is less.
pub(super) fn available() -> Option<u64> {
    let machine = kib("/proc/meminfo", "MemTotal:");
    [machine, control_group()].into_iter().flatten().min()
}

/// A line of a file that states its values in KiB.
fn kib(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest limit of the control group of this process and of those above it.
fn control_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = |group: &Path| {
        let file = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
        // Without a limit, the file contains "max".
        fs::read_to_string(file).ok()?.trim().parse().ok()
    };
    Path::new(path).ancestors().filter_map(limit).min()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_less_resident_than_it_may_use() {
        let (resident, available) = (resident().unwrap(), available().unwrap());
        assert!(resident > 0 && resident < available, "{resident} of {available}");
    }
}
