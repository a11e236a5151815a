/// The names of the five steps: the contract's, the journal's and the metrics'.
public enum DeviceStep {
    public static let allocatePorts = "ALLOCATE_PORTS"
    public static let createProviderDevice = "CREATE_PROVIDER_DEVICE"
    public static let createDatabaseRecord = "CREATE_DATABASE_RECORD"
    public static let reportQuotaUsage = "REPORT_QUOTA_USAGE"
    public static let startDevice = "START_DEVICE"
}

/// Why a creation failed: the contract's stable, machine-readable reasons.
public enum DeviceFailureReason {
    public static let portsExhausted = "PORTS_EXHAUSTED"
    public static let providerRefused = "PROVIDER_REFUSED"
    public static let providerUnavailable = "PROVIDER_UNAVAILABLE"
    public static let quotaRefused = "QUOTA_REFUSED"
    public static let quotaUnavailable = "QUOTA_UNAVAILABLE"
    public static let bootFailed = "BOOT_FAILED"
    /// Stored bytes that this binary can't read: the saga parks.
    static let unreadable = "UNREADABLE"
}
