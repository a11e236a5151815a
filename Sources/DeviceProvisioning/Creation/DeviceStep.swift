/// The names of the five steps: the contract's, the journal's and the metrics'.
public enum DeviceStep {
    public static let allocatePorts = "ALLOCATE_PORTS"
    public static let createProviderDevice = "CREATE_PROVIDER_DEVICE"
    public static let createDatabaseRecord = "CREATE_DATABASE_RECORD"
    public static let reportQuotaUsage = "REPORT_QUOTA_USAGE"
    public static let startDevice = "START_DEVICE"
}
