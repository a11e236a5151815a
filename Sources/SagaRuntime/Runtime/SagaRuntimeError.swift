/// Why the runtime could not do what it was asked. Fields decide, never texts.
public enum SagaRuntimeError: Error, Sendable, Equatable {
    /// The same request id came with another request.
    case requestIDReused(SagaID)
    /// Too many sagas are in flight; come back after the delay.
    case overloaded(retryAfter: Duration)
    /// PostgreSQL can't be reached, or this process may not write now; `message` is for the log.
    case databaseUnavailable(String)
    /// The database was lost while the saga was being started: it may run, and the same request finds it then.
    case mayHaveStarted(SagaID)
    case shuttingDown
    /// The wait for a saga that is durable ended with the error; the saga goes on.
    indirect case interrupted(SagaID, SagaRuntimeError)
    case notFound
    /// `after` lies beyond the newest event.
    case outOfRange(newest: UInt32)
    /// Rows that this binary can't read.
    case unreadable(String)
    /// No definition of this type is registered.
    case unknownType(String)
    /// Not all live instances know this type yet: nobody would go on with such a saga if this one went away.
    case unknownToOthers(String)
    /// The database refuses what it was given; a bug or a bad value that validation let through.
    case refused(String)

    static func database(_ error: PostgresError) -> SagaRuntimeError {
        switch error.code {
        case .decoding: .unreadable("\(error)")
        case .overloaded: .overloaded(retryAfter: .milliseconds(200))
        default: .databaseUnavailable("\(error)")
        }
    }
}
