/// What a family of series is: its exposition type, help and buckets.
struct MetricFamilyDescription: Sendable {
    enum Kind: String, Sendable { case counter, gauge, histogram }

    let name: String
    let kind: Kind
    let help: String
    /// Upper bounds of a histogram's buckets, ascending, without +Inf.
    let buckets: [Double]

    static func counter(_ name: String, _ help: String) -> Self {
        Self(name: name, kind: .counter, help: help, buckets: [])
    }
    static func gauge(_ name: String, _ help: String) -> Self {
        Self(name: name, kind: .gauge, help: help, buckets: [])
    }
    static func histogram(_ name: String, _ help: String, _ buckets: [Double]) -> Self {
        Self(name: name, kind: .histogram, help: help, buckets: buckets)
    }
}

/// Bucket bounds by what is measured.
enum Buckets {
    /// Seconds, 100 µs to 10 s: calls, flushes.
    static let fast: [Double] = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
    ]
    /// Seconds, 5 ms to an hour: sagas and their steps.
    static let slow: [Double] = [
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600,
    ]
    /// Rows, sagas, bytes in powers of two and four.
    static let counts: [Double] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
}

/// The metrics that this product promises, with their help; others are taken too, with a plain help text.
enum KnownMetrics {
    static let all: [MetricFamilyDescription] = [
        .counter("saga_device_creation_total", "Device creations that ended, by status: completed, failed, timeout."),
        .histogram(
            "saga_device_creation_duration_seconds", "Time from acceptance to the end of a device creation.",
            Buckets.slow),
        .counter("saga_device_creation_retry_count", "Retries of forward steps of device creations, by step."),
        .counter("saga_device_creation_compensate_total", "Undone steps of device creations, by step."),
        .counter(
            "saga_device_creation_failed_total", "Device creations that were undone, by reason; unknown ones: other."),
        .counter("saga_device_creation_step_failed_total", "Steps of device creations that failed for good, by step."),
        .gauge(
            "saga_device_creation_in_progress",
            "Device creations that are not over, asleep ones too, in the database: each replica tells the same number."),
        .gauge("saga_unfinished", "Sagas that are not over, in the database, by type."),
        .gauge("saga_adoption_held", "1: the database may have been restored, and no sagas are taken up."),
        .gauge("saga_retention_held_days", "Days that are old enough to go, with sagas that are not over."),
        .gauge("saga_retention_failing", "1: days that could go stay; the log says why."),
        .gauge("saga_oldest_unfinished_seconds", "Age of the oldest saga that is not over, in the database, by type."),
        .counter("saga_step_retry_total", "Retries of forward steps, by type of saga and step."),
        .counter("saga_step_failed_total", "Steps that failed for good, by type of saga and step."),
        .counter("saga_step_compensated_total", "Undone steps, by type of saga and step."),
        .gauge("saga_in_progress", "Sagas of all types that this replica is working on."),
        .gauge("saga_parked", "Sagas in the database that wait for an operator."),
        .gauge("saga_asleep", "Sagas of all replicas that wait for a while, and that no replica holds meanwhile."),
        .gauge("saga_unserved", "Sagas under way whose site no live replica serves: they wait."),
        .gauge("saga_quarantined", "Sagas in the database that nobody drives: they can't be read, or not written."),
        .counter("saga_parked_total", "Sagas that this replica parked, by type and reason."),
        .counter("saga_ended_total", "Sagas that ended here, by type and status: COMPLETED, COMPENSATED."),
        .counter("saga_undo_retry_total", "Retries of undo steps, by step."),
        .gauge("saga_breaker_open", "1 while a dependency is taken to be down, and undo waits for it, by dependency."),
        .counter("saga_breaker_opened_total", "How often a dependency was found to be down, by dependency."),
        .gauge("saga_feature_on", "1 while all live instances know a feature, by feature: newer programs use it then."),
        .counter(
            "quota_assumed_total",
            "Reports to the user service whose outcome is unknown and that were taken for done, by operation "
                + "(USER_SERVICE_DOUBT=accept)."),
        .counter("saga_unreadable_total", "Reads of sagas whose events this server can't read."),
        .counter(
            "saga_commands_total",
            "Commands of operators and deletions that sagas of this replica have consumed, by kind and result."),
        .counter("saga_adopted_total", "Sagas taken over from other replicas, by type."),
        .histogram(
            "saga_flush_duration_seconds", "Time of one journal transaction, from BEGIN to COMMIT.", Buckets.fast),
        .histogram("saga_flush_records", "Sagas in one journal transaction.", Buckets.counts),
        .gauge("saga_lease_age_seconds", "Time since the last lease renewal that succeeded was sent."),
        .gauge("saga_partitions_ahead", "Days for which partitions exist beyond today."),
        .counter("rpc_server_calls_total", "Calls that ended, by method and status code."),
        .counter("rpc_server_retries_total", "Calls whose client had tried before, by method."),
        .histogram("rpc_server_call_duration_seconds", "Time of calls that ended, by method.", Buckets.fast),
        .gauge("rpc_server_calls_in_progress", "Calls under way, by method; WatchSaga's are the open watchers."),
        .gauge(
            "rpc_server_tls_certificate_not_after_seconds", "When the server's certificate ends, in seconds since 1970."
        ),
        .counter(
            "rpc_server_tls_reloads_total",
            "Readings of the files of TLS, the one at the start included; rejected: what was there before stays."),
        .counter(
            "rpc_server_refusals_total",
            "Connections and calls turned away for what their clients did, by scope (connection, call) and reason."),
        .counter(
            "operators_connections_closed_total",
            "Connections to the operators' port that were closed because there were too many; those quiet for longest."),
        .gauge("devicerpc_info", "Always 1; the version is a label."),
        .counter(
            "devicerpc_log_lines_dropped_total",
            "Log lines that nobody will read: they came faster than they were read, or could not be written."),
        .gauge("devicerpc_ready", "1 if this replica takes new work, as /readyz says."),
        .counter("process_cpu_seconds_total", "User and system CPU time."),
        .gauge("process_resident_memory_bytes", "Resident memory."),
        .gauge("process_open_fds", "Open file descriptors."),
        .gauge("process_max_fds", "File descriptors that this process may have open."),
        .gauge("process_start_time_seconds", "When the process started, seconds since the Unix epoch."),
    ]

    static let byName = Dictionary(uniqueKeysWithValues: Self.all.map { ($0.name, $0) })
}
