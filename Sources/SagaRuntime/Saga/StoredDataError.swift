/// Stored data that doesn't decode. Never trapped on: the read fails, or the saga fails, parks or is quarantined.
public struct StoredDataError: Error, Sendable, Equatable {
    public var message: String

    public init(message: String) { self.message = message }
}
