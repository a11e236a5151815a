public import SagaRuntime

extension FieldChecker {
    /// An id of a saga; `nil` if it is none, which is then noted.
    mutating func sagaID(_ text: String, _ field: String = "saga_id") -> SagaID? {
        if let id = SagaID(text) { return id }
        self.violated(field, "must be a saga's id, such as saga_1730188800000_7k2m9x4q1c")
        return nil
    }

    /// Up to 1000 ids, in the order asked, once each.
    mutating func sagaIDs(_ texts: [String], _ field: String) -> [SagaID] {
        if texts.count > 1000 { self.violated(field, "must have up to 1000 elements, has \(texts.count)") }
        var seen: Set<SagaID> = []
        var ids: [SagaID] = []
        for (index, text) in texts.prefix(1000).enumerated() {
            if let id = self.sagaID(text, "\(field)[\(index)]"), seen.insert(id).inserted { ids.append(id) }
        }
        return ids
    }

    /// The result of the checks.
    func finish<Value>(_ value: Value?) throws(InvalidRequest) -> Value {
        try self.finish()
        // A missing value was noted where it was missed.
        guard let value else { throw InvalidRequest([]) }
        return value
    }
}

extension V1.GetSagaRequest {
    public func validatedSagaID() throws(InvalidRequest) -> SagaID {
        var checker = FieldChecker()
        let id = checker.sagaID(self.sagaID)
        return try checker.finish(id)
    }
}

extension V1.BatchGetSagasRequest {
    /// The ids in the order asked, once each.
    public func validatedSagaIDs() throws(InvalidRequest) -> [SagaID] {
        var checker = FieldChecker()
        let ids = checker.sagaIDs(self.sagaIDs, "saga_ids")
        try checker.finish()
        return ids
    }
}

/// A `WatchSagasRequest` that keeps every rule of the contract.
public struct WatchSagasQuery: Sendable, Equatable {
    /// Empty: all.
    public var batchID: String
    /// Empty: every user that the caller may see.
    public var userID: String
    /// Empty: all; else a UUID in lower case.
    public var deviceID: String
    /// Once each; empty: all.
    public var sagaIDs: [SagaID]
    /// Empty: all; in order, once each.
    public var statuses: [V1.SagaStatus]
    public var endsWhenDone: Bool

    /// - Parameter mayWatchAll: whether the caller needs no filter.
    public init(validating request: V1.WatchSagasRequest, mayWatchAll: Bool) throws(InvalidRequest) {
        var checker = FieldChecker()
        checker.identifier(request.batchID, "batch_id")
        self.batchID = request.batchID
        checker.owner(request.userID, "user_id")
        self.userID = request.userID
        self.deviceID = checker.deviceID(request.deviceID, isOptional: true)
        self.sagaIDs = checker.sagaIDs(request.sagaIDs, "saga_ids")
        checker.filter(request.statuses, "statuses")
        self.statuses = Set(request.statuses).sorted { $0.rawValue < $1.rawValue }
        self.endsWhenDone = request.endWhenDone
        let isNarrow =
            !request.batchID.isEmpty || !request.userID.isEmpty || !request.deviceID.isEmpty || !request.sagaIDs.isEmpty
        if !isNarrow, !mayWatchAll {
            checker.violated(
                "batch_id", "one of batch_id, user_id, device_id and saga_ids must be set without saga.admin")
        }
        try checker.finish()
    }
}

extension V1.WatchSagaRequest {
    public func validatedSagaID() throws(InvalidRequest) -> SagaID {
        var checker = FieldChecker()
        let id = checker.sagaID(self.sagaID)
        return try checker.finish(id)
    }
}

/// A `ListSagasRequest` that keeps every rule of the contract.
public struct ListSagasQuery: Sendable, Equatable {
    /// Empty: all; in order, once each.
    public var statuses: [V1.SagaStatus]
    /// Empty: all.
    public var type: String
    /// Empty: every user that the caller may see.
    public var userID: String
    /// Empty: all; else a UUID in lower case.
    public var deviceID: String
    /// Empty: all.
    public var batchID: String
    /// Empty: all.
    public var requestID: String
    public var page: PageRequest

    public init(validating request: V1.ListSagasRequest) throws(InvalidRequest) {
        var checker = FieldChecker()
        checker.filter(request.statuses, "statuses")
        self.statuses = Set(request.statuses).sorted { $0.rawValue < $1.rawValue }
        checker.length(request.type, 0...64, "type")
        self.type = request.type
        checker.owner(request.userID, "user_id")
        self.userID = request.userID
        self.deviceID = checker.deviceID(request.deviceID, isOptional: true)
        checker.identifier(request.batchID, "batch_id")
        self.batchID = request.batchID
        checker.identifier(request.requestID, "request_id")
        self.requestID = request.requestID
        var filters = request
        filters.statuses = self.statuses
        filters.deviceID = self.deviceID
        filters.pageSize = 0
        filters.pageToken = ""
        self.page = PageRequest(size: request.pageSize, token: request.pageToken, filters: filters, &checker)
        try checker.finish()
    }
}

extension V1.CompensateSagaRequest {
    public func validatedSagaID() throws(InvalidRequest) -> SagaID {
        var checker = FieldChecker()
        let id = checker.sagaID(self.sagaID)
        checker.length(self.reason, 0...1000, "reason")
        return try checker.finish(id)
    }
}

extension V1.ResumeSagaRequest {
    public func validatedSagaID() throws(InvalidRequest) -> SagaID {
        var checker = FieldChecker()
        let id = checker.sagaID(self.sagaID)
        checker.length(self.reason, 0...1000, "reason")
        return try checker.finish(id)
    }
}
