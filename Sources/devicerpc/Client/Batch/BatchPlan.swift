import DeviceRPC

/// What a batch is to make: one request per name, with its request id.
struct BatchPlan {
    struct Item: Sendable {
        let name: String
        let request: V1.CreateDeviceRequest
        /// From 1; see `BatchRequestID`.
        let attempt: Int
    }

    let batchID: String
    let items: [Item]

    /// Expands a template: names from a pattern, numbered from `start`.
    static func expand(
        _ template: V1.CreateDeviceRequest, pattern: String, count: Int, start: Int
    ) throws(UsageError) -> [V1.CreateDeviceRequest] {
        guard let names = NamePattern(pattern) else {
            throw UsageError(
                "--name: '\(pattern)' has no place for a number; give it one {n}, as in phone-{n}, or phone-{n:3} for at least "
                    + "three digits")
        }
        return (start..<start + count).map { number in
            var request = template
            request.name = names.name(number)
            return request
        }
    }

    /// - Parameters:
    ///   - requests: every one needs a name, unique among them; request and batch ids in them are replaced.
    ///   - earlier: outcomes of earlier runs of this batch, by name.
    ///   - validatesOnly: whether nothing is to start.
    ///   - retriesFailed: makes a new try of what failed then. Otherwise the same request id gives the same failure.
    init(
        batchID: String, requests: [V1.CreateDeviceRequest], earlier: [String: BatchOutcome] = [:],
        retriesFailed: Bool = false, validatesOnly: Bool = false
    ) throws(UsageError) {
        guard (1...BatchRequestID.maximumLength).contains(batchID.utf8.count),
            batchID.utf8.allSatisfy({ (33...126).contains($0) })
        else { throw UsageError("--batch-id: must have 1 to 64 printable ASCII characters") }
        if requests.isEmpty { throw UsageError("there are no requests") }
        var names: Set<String> = []
        var requestIDs: Set<String> = []
        var items: [Item] = []
        items.reserveCapacity(requests.count)
        for (index, original) in requests.enumerated() {
            var request = original
            if request.name.isEmpty { throw UsageError("request \(index + 1) has no name") }
            guard names.insert(request.name).inserted else {
                throw UsageError("the name \(request.name) comes twice; results are kept by name")
            }
            let previous = earlier[request.name]
            let isNewTry = retriesFailed && (previous?.isFailure ?? false)
            let attempt = (previous?.attempt ?? 1) + (isNewTry ? 1 : 0)
            request.requestID = BatchRequestID.make(batchID: batchID, name: request.name, attempt: attempt)
            request.batchID = batchID
            request.validateOnly = validatesOnly
            guard requestIDs.insert(request.requestID).inserted else {
                throw UsageError("the names \(request.name) and another give the same request id; change the batch id")
            }
            items.append(Item(name: request.name, request: request, attempt: attempt))
        }
        self.batchID = batchID
        self.items = items
    }
}
