/// What the journal's statements are given, row by row.
enum JournalInput {
    /// A saga that is inserted.
    struct Creation: Sendable {
        var entry: JournalEntry
        var saga: NewSaga
        /// Of the database step that its first flush runs.
        var argument: String
    }

    /// A saga that moves on by what a database step decides.
    struct Decision: Sendable {
        var entry: JournalEntry
        var argument: String
    }

    /// A saga that a later statement of the flush touches: its status and version as the guarded statement has left them.
    struct Passenger: Sendable {
        var entry: JournalEntry
        var status: String
        var argument: String
    }

    static let creation = InputColumns<Creation>(
        [
            .text("saga_id") { $0.entry.sagaID.rawValue },
            .text("saga_type") { $0.saga.type },
            .int("definition_version") { $0.entry.record.granted.snapshot.definitionVersion },
            .int("max_retries") { $0.entry.maximumRetries },
            .time("timeout_at") { $0.entry.record.granted.snapshot.deadline },
            .time("created_at") { $0.entry.record.granted.snapshot.createdAt },
            .text("user_id") { $0.saga.userID },
            .filledText("tenant_id") { $0.saga.tenantID },
            .uuid("resource_id") { $0.saga.resourceID },
            .filledText("batch_id") { $0.saga.batchID },
            .filledText("request_id") { $0.saga.requestID },
            .int("method") { $0.saga.method },
            .bytes("digest") { $0.saga.requestDigest },
            .filledBytes("secrets") { $0.saga.secrets },
            .text("argument") { $0.argument },
        ] + Self.granted(\.entry) + Self.refused(\.entry))

    static let transition = InputColumns<JournalEntry>(Self.guarded(\.self) + Self.granted(\.self))

    /// Of a saga that goes to sleep: `record.sleep` is there.
    static let sleep = InputColumns<JournalEntry>(
        Self.guarded(\.self) + [
            .optionalTime("asleep_at") { $0.record.sleep?.now },
            .optionalTime("due_at") { $0.record.sleep?.wait.until },
            .optionalText("dependency") { $0.record.sleep?.wait.dependency },
            .text("reason") { $0.record.sleep?.wait.reason.rawValue ?? "" },
            .bool("is_unsent") { $0.record.sleep?.isUnsent == true },
            .optionalTime("doubt_until") { $0.record.sleep?.doubtUntil },
        ])

    static let decision = InputColumns<Decision>(
        Self.guarded(\.entry) + [.text("argument") { $0.argument }] + Self.granted(\.entry) + Self.refused(\.entry))

    static let ride = InputColumns<Passenger>([
        .text("saga_id") { $0.entry.sagaID.rawValue },
        .int("version") { $0.entry.record.expectedVersion + 1 },
        .text("status") { $0.status },
        .text("argument") { $0.argument },
    ])

    /// What the guard looks at, and what changes with every record.
    private static func guarded<Row>(
        _ entry: @escaping @Sendable (Row) -> JournalEntry
    ) -> [InputColumns<Row>.Column] {
        [
            .text("saga_id") { entry($0).sagaID.rawValue },
            .int("version") { entry($0).record.expectedVersion },
            .time("now") { entry($0).record.granted.snapshot.updatedAt },
            .int("retry_count") { entry($0).retryCount },
            .int("adoptions") { entry($0).record.adoptions },
            .int("commands") { entry($0).record.commandsSeen ?? -1 },
        ]
    }

    /// What is written if the database step grants, or if there is none.
    private static func granted<Row>(
        _ entry: @escaping @Sendable (Row) -> JournalEntry
    ) -> [InputColumns<Row>.Column] {
        Self.outcome(prefix: "") { entry($0).record.granted }
    }

    /// What is written if it refuses.
    private static func refused<Row>(
        _ entry: @escaping @Sendable (Row) -> JournalEntry
    ) -> [InputColumns<Row>.Column] {
        Self.outcome(prefix: "refused_") { row in
            let record = entry(row).record
            return record.refused ?? record.granted
        }
    }

    private static func outcome<Row>(
        prefix: String, _ outcome: @escaping @Sendable (Row) -> SagaRecord.Outcome
    ) -> [InputColumns<Row>.Column] {
        [
            .text("\(prefix)status") { outcome($0).snapshot.status.name },
            .int("\(prefix)step_index") { outcome($0).snapshot.stepIndex },
            .text("\(prefix)current_step") { outcome($0).snapshot.currentStep },
            .int("\(prefix)last_sequence") { outcome($0).snapshot.lastSequence },
            .filledBytes("\(prefix)events") { row in
                let events = outcome(row).events
                return events.isEmpty
                    ? [] : JournalEventCodec.encode(events, format: events.map(\.type.format).max() ?? 1)
            },
            .optionalText("\(prefix)error_message") { outcome($0).snapshot.failure?.message },
        ]
    }

    /// The columns of the outcome that came to pass, of a row `i` that `granted` (as `g`) has, or has not.
    static let decided = ["status", "step_index", "current_step", "last_sequence", "events", "error_message"].map {
        "CASE WHEN g.saga_id IS NULL THEN i.refused_\($0) ELSE i.\($0) END AS \($0)"
    }.joined(separator: ",\n        ")
}
