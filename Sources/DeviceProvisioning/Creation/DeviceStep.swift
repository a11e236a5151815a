/// The names of the steps: the contract's, the journal's and the metrics'.
public enum DeviceStep {
    public static let allocatePorts = "ALLOCATE_PORTS"
    public static let createProviderDevice = "CREATE_PROVIDER_DEVICE"
    public static let createDatabaseRecord = "CREATE_DATABASE_RECORD"
    public static let reportQuotaUsage = "REPORT_QUOTA_USAGE"
    public static let startDevice = "START_DEVICE"

    // Of what is done with a device that is there.
    public static let claimDevice = "CLAIM_DEVICE"
    public static let stopDevice = "STOP_DEVICE"
    public static let updateDatabaseRecord = "UPDATE_DATABASE_RECORD"
    public static let destroyProviderDevice = "DESTROY_PROVIDER_DEVICE"
    public static let releaseQuota = "RELEASE_QUOTA"
    public static let removeDatabaseRecord = "REMOVE_DATABASE_RECORD"
}
