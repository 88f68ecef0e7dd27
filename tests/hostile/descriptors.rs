//! The limit of file descriptors, for tests that open thousands of connections.

use std::process::Command;

/// The soft and the hard limit of this process.
fn limits() -> [usize; 2] {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap();
    let mut values = line
        .split_whitespace()
        .map(|value| value.parse().unwrap_or(usize::MAX));
    [(); 2].map(|()| values.next().unwrap())
}

/// Raises the limit of this process, and so that of the processes that it starts, as far as is needed and permitted. Returns how
/// many of the needed descriptors there are.
pub(crate) fn raise(needed: usize) -> usize {
    let [soft, hard] = limits();
    let limit = needed.min(hard);
    if soft < limit {
        let pid = std::process::id().to_string();
        let raised = Command::new("prlimit")
            .args(["--pid", &pid, &format!("--nofile={limit}:")])
            .status();
        if !raised.is_ok_and(|status| status.success()) {
            return soft;
        }
    }
    limit
}
