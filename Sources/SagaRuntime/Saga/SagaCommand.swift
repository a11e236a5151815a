/// A wish about a saga: a row of `saga_command`, consumed exactly once, by whoever drives the saga, in one of its flushes.
public struct SagaCommand: Sendable, Equatable {
    public enum Kind: String, Sendable, CaseIterable {
        /// Stop going forward, and undo: what a deletion wishes of a creation.
        case cancel = "CANCEL"
        /// The same, by an operator.
        case compensate = "COMPENSATE"
        /// Take a parked saga up again, in the direction in which it parked. One that waits goes on at once.
        case resume = "RESUME"
        /// Resume, and take the step that parked it for done: somebody has done it by hand.
        case skip = "SKIP"
        /// What this program doesn't know: issued by a newer one, or by hand. It has no effect.
        case unknown = "UNKNOWN"
    }

    /// What became of it.
    public enum Result: String, Sendable, CaseIterable {
        case done = "DONE"
        /// There was nothing to do: the saga turns back already, or somebody else has taken it up again meanwhile.
        case noEffect = "NO_EFFECT"
        /// The saga is not parked, or not where its step may be skipped.
        case notParked = "NOT_PARKED"
        /// The saga can only go forward.
        case pastPivot = "PAST_PIVOT"
        /// The saga ended, or parked, before it came to this.
        case tooLate = "TOO_LATE"
        /// Whoever drives the saga doesn't know this kind of command.
        case unknownKind = "UNKNOWN_KIND"
    }

    public var id: Int64
    public var kind: Kind
    /// Who wishes it.
    public var issuer: String
    /// Why; up to 1,000 characters.
    public var reason: String
    /// The sequence of the newest event that its issuer knew of: it is meant for what the saga was then. `nil`: for whatever it is.
    public var sequence: Int?

    public init(id: Int64, kind: Kind, issuer: String, reason: String, sequence: Int? = nil) {
        self.id = id
        self.kind = kind
        self.issuer = issuer
        self.reason = reason
        self.sequence = sequence
    }

    /// A command that was consumed, and what became of it.
    struct Answer: Sendable, Equatable {
        var kind: Kind
        var result: Result
    }
}

extension SagaCommand {
    /// Whether a saga that goes forward turns back.
    var turnsBack: Bool { self.kind == .cancel || self.kind == .compensate }

    /// Marks it as consumed, in the flush that does so. What was parked waits for it no longer, unless it stays parked and has
    /// another one.
    func consumption(_ result: Result) -> SideEffect {
        let argument = #"{"id":\#(self.id),"result":"\#(result.rawValue)"}"#
        return SideEffect(
            name: "command_consume",
            statement: """
                , unwaited AS (
                    DELETE FROM saga_waiting w USING accepted a
                    WHERE w.saga_id = a.saga_id AND (a.argument->>'result' = '\(Result.done.rawValue)' OR NOT EXISTS (
                        SELECT 1 FROM saga_command o WHERE o.saga_id = a.saga_id AND o.consumed_at IS NULL
                            AND o.command_id <> (a.argument->>'id')::bigint))
                )
                UPDATE saga_command c SET consumed_at = saga_now(), result = a.argument->>'result'
                FROM accepted a
                WHERE c.command_id = (a.argument->>'id')::bigint AND c.saga_id = a.saga_id
                """,
            argument: { _ in argument })
    }
}
