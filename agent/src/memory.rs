//! Memory of processes, as Linux counts it.

/// Bytes that `/proc/PROCESS/status` has under a field such as `VmRSS`; the process is an id or `self`. Nothing where
/// there is no such process, or no Linux.
pub fn status_bytes(process: &str, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let named = |line: &str| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned);
    let kib: u64 = status.lines().find_map(named)?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
