public import RPCTransport
import SagaRuntime

extension RPCError {
    /// What the engine's refusal means to a caller.
    ///
    /// - Parameter name: what was asked for, e.g. a saga's id.
    init(_ error: SagaRuntimeError, of name: String = "") {
        switch error {
        case .requestIDReused(let id):
            self.init(
                .requestIDReused,
                "request_id was used for another request before; a new request needs a new request_id",
                metadata: ["other_saga_id": id.rawValue])
        case .overloaded(let delay):
            self = .overloaded(retryAfter: delay)
        case .databaseUnavailable:
            // What callers may build on: a creation that is told this has not happened, and never will.
            self.init(
                .databaseUnavailable, "the database can't be reached, nothing was changed; try again",
                retry: .after(.seconds(1)))
        case .mayHaveStarted:
            self.init(
                .databaseUnavailable,
                "the database was lost meanwhile: the device may have been created, or changed, or may still be; repeat with the same request_id",
                retry: .after(.seconds(1)))
        case .shuttingDown:
            self = .shuttingDown
        case .interrupted(let id, let cause):
            switch cause {
            case .databaseUnavailable, .overloaded, .refused:
                self.init(
                    .databaseUnavailable,
                    "\(id) goes on, but the database can't be reached; repeat with the same request_id",
                    metadata: ["saga_id": id.rawValue], retry: .after(.seconds(1)))
            case .shuttingDown:
                self.init(
                    .shuttingDown,
                    "\(id) goes on, but this server is shutting down; repeat with the same request_id elsewhere",
                    metadata: ["saga_id": id.rawValue])
            case .requestIDReused, .interrupted, .mayHaveStarted, .notFound, .outOfRange, .unreadable, .unknownType,
                .unknownToOthers:
                self.init(cause, of: id.rawValue)
            }
        case .notFound:
            self = .notFound(V1.Saga.self, name)
        case .outOfRange(let newest):
            self.init(
                .sequenceOutOfRange, "after_sequence is beyond the newest event, \(newest)",
                metadata: ["newest_sequence": "\(newest)"])
        case .unknownToOthers:
            self.init(
                .upgrading,
                "an older server runs beside this one and doesn't know this yet; try again once it is upgraded",
                retry: .after(.seconds(5)))
        case .refused:
            // Values are checked before they get here: what the database refuses of a new saga is its own trouble.
            self.init(.databaseUnavailable, "the database does not take new sagas now; repeat with the same request_id")
        case .unreadable, .unknownType:
            // The log has the details; they are nothing to a caller.
            self.init(.internal, "what is stored of \(name.isEmpty ? "it" : name) can't be read by this server")
        }
    }

    /// SHUTTING_DOWN: whatever was asked for may be had elsewhere.
    public static var shuttingDown: RPCError {
        RPCError(.shuttingDown, "the server is shutting down; repeat with the same request_id, or watch on, elsewhere")
    }

    /// The status that a handler's error becomes.
    static func code(of error: any Error) -> RPCCode {
        switch error {
        case let error as RPCError: error.code
        case is CancellationError: .cancelled
        default: .unknown
        }
    }

    /// Any error of a handler. Cancellation and statuses pass as they are.
    static func of(_ error: any Error, name: String = "") -> any Error {
        switch error {
        case let error as SagaRuntimeError: RPCError(error, of: name)
        case let error as InvalidRequest: RPCError(error)
        case let error as MessageDecodingError: RPCError(error)
        case let error as PostgresError: RPCError(.init(database: error), of: name)
        default: error
        }
    }
}

extension SagaRuntimeError {
    fileprivate init(database error: PostgresError) {
        self = error.code == .decoding ? .unreadable("\(error)") : .databaseUnavailable("\(error)")
    }
}
