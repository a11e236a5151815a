import NIOCore

/// A request to do something with a device that is there, e.g. a `DeleteDeviceRequest`, that keeps every rule of the contract.
public struct DeviceOperationSpecification: Sendable, Equatable {
    /// Empty: none.
    public var requestID: String
    /// A UUID in lower case.
    public var deviceID: String
    public var returnWhen: V1.ReturnWhen
    public var sagaTimeout: Duration

    public init(validating request: some DeviceOperationRequest) throws(InvalidRequest) {
        var checker = FieldChecker()
        checker.identifier(request.requestID, "request_id")
        self.requestID = request.requestID
        self.deviceID = checker.deviceID(request.deviceID)
        checker.known(request.returnWhen, "return_when")
        if request.returnWhen == .provisioned {
            checker.violated("return_when", "must be RETURN_WHEN_FINISHED or RETURN_WHEN_ACCEPTED")
        }
        self.returnWhen = request.returnWhen == .unspecified ? .finished : request.returnWhen
        self.sagaTimeout = checker.sagaTimeout(request.sagaTimeout)
        try checker.finish()
    }

    /// See `CreateDeviceSpecification.canonicalBytes`.
    public var canonicalBytes: [UInt8] {
        let request = V1.DeleteDeviceRequest.with {
            $0.deviceID = self.deviceID
            $0.sagaTimeout = ProtobufDuration(self.sagaTimeout)
        }
        return Array(request.encoded().readableBytesView)
    }
}

extension V1.GetDeviceRequest {
    /// The checked id: a UUID in lower case.
    public func validatedDeviceID() throws(InvalidRequest) -> String {
        var checker = FieldChecker()
        let id = checker.deviceID(self.deviceID)
        try checker.finish()
        return id
    }
}

extension V1.BatchGetDevicesRequest {
    /// The ids in the order asked, in lower case, once each.
    public func validatedDeviceIDs() throws(InvalidRequest) -> [String] {
        var checker = FieldChecker()
        if self.deviceIDs.count > 1000 {
            checker.violated("device_ids", "must have up to 1000 elements, has \(self.deviceIDs.count)")
        }
        var seen: Set<String> = []
        let ids = self.deviceIDs.prefix(1000).enumerated()
            .map { checker.deviceID($0.element, "device_ids[\($0.offset)]") }.filter { seen.insert($0).inserted }
        try checker.finish()
        return ids
    }
}

/// A `ListDevicesRequest` that keeps every rule of the contract.
public struct ListDevicesQuery: Sendable, Equatable {
    /// Empty: every user that the caller may see.
    public var userID: String
    /// Empty: all.
    public var statuses: [V1.DeviceStatus]
    /// `.unspecified`: all.
    public var provider: V1.Provider
    /// Empty: all.
    public var batchID: String
    public var namePrefix: String
    public var tag: String
    public var page: PageRequest

    public init(validating request: V1.ListDevicesRequest) throws(InvalidRequest) {
        var checker = FieldChecker()
        checker.owner(request.userID, "user_id")
        self.userID = request.userID
        checker.filter(request.statuses, "statuses")
        self.statuses = Set(request.statuses).sorted { $0.rawValue < $1.rawValue }
        checker.known(request.provider, "provider")
        self.provider = request.provider
        checker.identifier(request.batchID, "batch_id")
        self.batchID = request.batchID
        checker.length(request.namePrefix, 0...100, "name_prefix")
        self.namePrefix = request.namePrefix
        checker.length(request.tag, 0...50, "tag")
        self.tag = request.tag
        var filters = request
        filters.statuses = self.statuses
        filters.pageSize = 0
        filters.pageToken = ""
        self.page = PageRequest(size: request.pageSize, token: request.pageToken, filters: filters, &checker)
        try checker.finish()
    }
}

/// A `ListPortsRequest` that keeps every rule of the contract.
public struct ListPortsQuery: Sendable, Equatable {
    /// Empty: every host.
    public var host: String
    public var page: PageRequest

    public init(validating request: V1.ListPortsRequest) throws(InvalidRequest) {
        var checker = FieldChecker()
        checker.length(request.host, 0...253, "host")
        self.host = request.host
        let filters = V1.ListPortsRequest.with { $0.host = request.host }
        self.page = PageRequest(size: request.pageSize, token: request.pageToken, filters: filters, &checker)
        try checker.finish()
    }
}
