import NIOCore

/// A `CreateDeviceRequest` that keeps every rule of the contract, with trimmed name and all defaults filled in.
public struct CreateDeviceSpecification: Sendable, Equatable {
    /// What a server adds to the contract's rules.
    public struct Rules: Sendable {
        /// Taken where the request names none.
        public var defaultProvider: V1.Provider
        /// The providers that are configured.
        public var providers: [V1.Provider]

        public init(defaultProvider: V1.Provider, providers: [V1.Provider]) {
            self.defaultProvider = defaultProvider
            self.providers = providers
        }
    }

    /// Empty: none.
    public var requestID: String
    public var name: String
    public var description: String
    public var type: V1.DeviceType
    public var provider: V1.Provider
    /// As in the request; empty: to be taken from the caller's identity, by `resolvingOwner`.
    public var userID: String
    public var tenantID: String
    /// No field is zero or empty.
    public var spec: V1.DeviceSpec
    public var tags: [String]
    public var metadata: [String: String]
    /// Its values are secrets.
    public var providerOptions: [String: String]
    public var returnWhen: V1.ReturnWhen
    public var sagaTimeout: Duration
    public var batchID: String

    /// Checks a request.
    ///
    /// - Throws: all violations at once. The provider's own rules (its Android versions, its options) come on top.
    public init(validating request: V1.CreateDeviceRequest, rules: Rules) throws(InvalidRequest) {
        var checker = FieldChecker()
        self.init(request, rules, &checker)
        try checker.finish()
    }

    /// As `init(validating:rules:)`, with further rules that are checked even if the contract's are broken.
    ///
    /// - Parameter further: is given what could be read; returns violations.
    public init(
        validating request: V1.CreateDeviceRequest, rules: Rules,
        further: (CreateDeviceSpecification) -> [GoogleRPC.FieldViolation]
    ) throws(InvalidRequest) {
        var checker = FieldChecker()
        self.init(request, rules, &checker)
        for violation in further(self) { checker.violated(violation.field, violation.explanation) }
        try checker.finish()
    }

    private init(_ request: V1.CreateDeviceRequest, _ rules: Rules, _ checker: inout FieldChecker) {
        checker.identifier(request.requestID, "request_id")
        self.requestID = request.requestID

        self.name = request.name.trimmed
        checker.length(self.name, 1...100, "name", note: " (white space around it is not counted)")
        checker.length(request.description, 0...500, "description")
        self.description = request.description

        checker.known(request.type, "type")
        self.type = request.type == .unspecified ? .phone : request.type
        self.provider = request.provider == .unspecified ? rules.defaultProvider : request.provider
        if !rules.providers.contains(self.provider) {
            let names = rules.providers.compactMap(\.name).joined(separator: ", ")
            checker.violated("provider", "must be one that is configured here: \(names.isEmpty ? "none is" : names)")
        }

        checker.owner(request.userID, "user_id")
        self.userID = request.userID
        checker.owner(request.tenantID, "tenant_id")
        self.tenantID = request.tenantID
        self.spec = Self.checked(request.spec ?? V1.DeviceSpec(), &checker)

        if request.tags.count > 10 {
            checker.violated("tags", "must have up to 10 elements, has \(request.tags.count)")
        }
        for (index, tag) in request.tags.enumerated() { checker.length(tag, 1...50, "tags[\(index)]") }
        self.tags = request.tags
        checker.metadata(request.metadata, "metadata")
        self.metadata = request.metadata
        checker.metadata(request.providerOptions, "provider_options")
        self.providerOptions = request.providerOptions
        for field in request.foldedFields {
            checker.violated(field, "must have keys that differ in more than how their characters are composed")
        }

        checker.known(request.returnWhen, "return_when")
        self.returnWhen = request.returnWhen == .unspecified ? .provisioned : request.returnWhen
        self.sagaTimeout = checker.sagaTimeout(request.sagaTimeout)
        checker.identifier(request.batchID, "batch_id")
        self.batchID = request.batchID
    }

    private static func checked(_ spec: V1.DeviceSpec, _ checker: inout FieldChecker) -> V1.DeviceSpec {
        var result = V1.DeviceSpec()
        result.cpuCores = checker.number(spec.cpuCores, 1...16, default: 2, "spec.cpu_cores")
        result.memoryMB = checker.number(spec.memoryMB, 512...32_768, default: 4096, "spec.memory_mb")
        result.storageMB = checker.number(spec.storageMB, 1024...1_048_576, default: 10_240, "spec.storage_mb")
        result.widthPx = checker.number(spec.widthPx, 240...7680, default: 1920, "spec.width_px")
        result.heightPx = checker.number(spec.heightPx, 240...7680, default: 1080, "spec.height_px")
        result.dpi = checker.number(spec.dpi, 120...640, default: 240, "spec.dpi")
        result.androidVersion = spec.androidVersion.isEmpty ? "11" : spec.androidVersion
        let parts = result.androidVersion.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        let isVersion =
            parts.count <= 2
            && parts.allSatisfy { part in
                (1...2).contains(part.count) && part.allSatisfy { (48...57).contains($0) }
            }
        if !isVersion { checker.violated("spec.android_version", "must be a version such as 11, 12.0 or 13") }
        return result
    }

    /// What a repeated `request_id` is compared by: everything but `request_id` itself and `return_when`, after
    /// defaults are filled in. The same bytes for the same request, in every process. Holds secrets: to be fed to an
    /// HMAC and never stored.
    public var canonicalBytes: [UInt8] {
        let request = V1.CreateDeviceRequest.with {
            $0.name = self.name
            $0.description = self.description
            $0.type = self.type
            $0.provider = self.provider
            $0.userID = self.userID
            $0.tenantID = self.tenantID
            $0.spec = self.spec
            $0.tags = self.tags
            $0.metadata = self.metadata
            $0.providerOptions = self.providerOptions
            $0.sagaTimeout = ProtobufDuration(self.sagaTimeout)
            $0.batchID = self.batchID
        }
        return Array(request.encoded().readableBytesView)
    }
}

extension String {
    /// Without white space at its ends.
    fileprivate var trimmed: String {
        let scalars = self.unicodeScalars
        guard let first = scalars.firstIndex(where: { !$0.properties.isWhitespace }),
            let last = scalars.lastIndex(where: { !$0.properties.isWhitespace })
        else { return "" }
        return String(scalars[first...last])
    }
}
