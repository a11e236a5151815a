import Glibc

/// An instant of this machine's `CLOCK_BOOTTIME`: it never jumps, and it goes on while the machine is suspended.
///
/// Leases and time-outs are measured with it. It says nothing about the time of day, and nothing across a reboot.
public struct BootTime: Hashable, Sendable, Comparable {
    /// Since the machine's boot.
    public var nanoseconds: Int64

    public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    /// The clock as it stands; one vDSO call, cheap from any thread.
    public static var now: BootTime {
        var time = timespec()
        // clock_gettime(2) fails only for a clock that the kernel does not know; CLOCK_BOOTTIME is in Linux 2.6.39+.
        clock_gettime(CLOCK_BOOTTIME, &time)
        return BootTime(nanoseconds: Int64(time.tv_sec) &* 1_000_000_000 &+ Int64(time.tv_nsec))
    }

    /// The kernel's random name of this boot; `nil` where /proc is not mounted.
    public static var bootID: String? { SystemFile.read("/proc/sys/kernel/random/boot_id")?.trimmingASCIIWhitespace() }

    public static func < (lhs: BootTime, rhs: BootTime) -> Bool { lhs.nanoseconds < rhs.nanoseconds }
    public static func - (lhs: BootTime, rhs: BootTime) -> Duration {
        .nanoseconds(lhs.nanoseconds &- rhs.nanoseconds)
    }
    public static func + (lhs: BootTime, rhs: Duration) -> BootTime {
        let (seconds, attoseconds) = rhs.components
        let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, overflow2) = lhs.nanoseconds.addingReportingOverflow(overflow ? .max : whole)
        return BootTime(nanoseconds: overflow || overflow2 ? .max : sum &+ attoseconds / 1_000_000_000)
    }
}
