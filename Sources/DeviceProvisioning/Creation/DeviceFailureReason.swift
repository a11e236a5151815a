/// Why a creation failed: the contract's stable, machine-readable reasons.
public enum DeviceFailureReason {
    public static let portsExhausted = "PORTS_EXHAUSTED"
    /// No site has room for the device.
    public static let capacityExhausted = "CAPACITY_EXHAUSTED"
    public static let providerRefused = "PROVIDER_REFUSED"
    public static let providerUnavailable = "PROVIDER_UNAVAILABLE"
    public static let quotaRefused = "QUOTA_REFUSED"
    public static let quotaUnavailable = "QUOTA_UNAVAILABLE"
    public static let bootFailed = "BOOT_FAILED"
    /// Stored bytes that this binary can't read: the saga parks.
    static let unreadable = "UNREADABLE"
}
