/// Stored data that doesn't decode. Never trapped on: the read fails, or the saga fails, parks or is quarantined.
public struct StoredDataError: Error, Sendable, Equatable {
    public var message: String
    /// Not damaged, but of this format of the journal, which this binary doesn't read (`JournalEventCodec`).
    var newerFormat: Int?
    /// The saga's definition is neither one of this binary's nor a plan that it has read.
    var isOfUnknownPlan = false

    public init(message: String) { self.message = message }

    static func newer(_ format: Int, _ what: String) -> StoredDataError {
        var error = StoredDataError(
            message: "\(what) of format \(format), and this server reads up to \(JournalEventCodec.newest)")
        error.newerFormat = format
        return error
    }
}
